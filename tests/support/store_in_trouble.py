"""The whole kernel store while one of its servers is in trouble: reading, downloading, and catching up afterwards.

``right_bytes`` and ``downloaded`` go past the memory of this process, so that a tier below has to answer.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connections
from django.utils import timezone

from apps.accounts.roles import Role
from apps.kernels.cache import KernelStore, relay
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CacheOutbox, Kernel
from tests.api.conftest import Caller
from tests.support.factories import KernelFactory, TokenFactory, UserFactory
from tests.support.proxy import Proxy

OPEN_SECONDS = 0.2
"""How long the breakers of these tests leave a tier alone."""


@pytest.fixture
def configure(settings: LazySettings) -> Callable[..., None]:
    """Changes settings of the cache in this process, which then makes its tiers anew, with impatient breakers."""

    def change(**changes: Any) -> None:
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, **changes}
        be_impatient()

    return change


def be_impatient() -> None:
    """Breakers that try again soon."""
    found = tiers()
    found.database.breaker = Breaker("l3", open_seconds=OPEN_SECONDS)
    found.storage.breaker = Breaker("l4", open_seconds=OPEN_SECONDS)
    if found.redis is not None:
        found.redis.breaker = Breaker("l2", open_seconds=OPEN_SECONDS)


def admin() -> Caller:
    """A client that may do everything."""
    return Caller(TokenFactory(user=UserFactory(role=Role.ADMIN)).secret)


def kernel_of(data: bytes, **values: Any) -> Kernel:
    row: Kernel = KernelFactory(state=KernelState.VALIDATED, data=data, **values)
    return row


def path_of(kernel: Kernel) -> str:
    return f"/api/v1/kernels/{kernel.pk}/binary"


def body_of(response: Any) -> bytes:
    return b"".join(response.streaming_content) if response.streaming else response.content


def read(kernel: Kernel) -> bytes:
    """The bytes from below the memory of this process."""
    tiers().memory.drop(kernel.digest or "")
    return KernelStore().get(kernel.digest or "")


def downloaded(client: Caller, kernel: Kernel) -> bytes:
    """The bytes that a download sends; they come from below the memory of this process."""
    tiers().memory.drop(kernel.digest or "")
    response = client.get(path_of(kernel))
    assert response.status_code == 200, response.content
    return body_of(response)


def seconds_of(call: Callable[[], object], *, times: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - began


def owed(*kinds: str) -> int:
    """Rows of the outbox, of these kinds."""
    return CacheOutbox.objects.filter(kind__in=kinds).count()


def is_caught_up() -> bool:
    """Work off the outbox, as if the pauses after failures were over; whether nothing is owed any more."""
    CacheOutbox.objects.filter(due_at__gt=timezone.now()).update(due_at=timezone.now())
    relay.drain()
    return not CacheOutbox.objects.exists()


@contextmanager
def database_through(proxy: Proxy) -> Iterator[None]:
    """This process reaches PostgreSQL through the proxy only."""
    settings = connections.settings["default"]
    before = {name: settings[name] for name in ("HOST", "PORT")}
    connections.close_all()
    settings.update(HOST="127.0.0.1", PORT=str(proxy.port))
    try:
        yield
    finally:
        connections.close_all()
        settings.update(before)
