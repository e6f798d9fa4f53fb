"""The kernel store while its Redis is frozen, killed, full, flushed, restarted or lies: right bytes, soon, and no write
that was acknowledged is lost."""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings

from apps.core.actors import SYSTEM
from apps.core.errors import NotFound
from apps.kernels import services
from apps.kernels.cache import KernelStore, TierName, accesses, clients, process
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, OutboxKind
from tests.support.problems import assert_problem
from tests.support.store_in_trouble import (
    admin,
    be_impatient,
    configure,
    downloaded,
    is_caught_up,
    kernel_of,
    owed,
    path_of,
    read,
    seconds_of,
)
from tests.support.valkeys import Valkey, running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db")

__all__ = ["configure"]

DATA = random.Random(21).randbytes(700_000)
"""Two chunks."""
KEY = f"esper:k1:{{{hashlib.sha256(DATA).hexdigest()}}}"
OTHER = b"the bytes of another kernel"
STALL_SECONDS = 1.0
"""Of the one read that finds out; the time limit is 50 ms, the rest is a busy machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with running() as valkey:
        yield valkey


@pytest.fixture
def redis(server: Valkey, configure: Callable[..., None]) -> Iterator[Valkey]:
    """L2 of this process: empty at first, and well again in the end."""
    with server.client as client:
        client.flushall()
    configure(l2_url=server.url)
    yield server
    server.thaw()
    if server.process.poll() is not None:
        server.start()
    server.await_answers()
    with server.client as client:
        client.config_set("maxmemory", "0")
    clients._client.cache_clear()


def fill_up(redis: Valkey) -> None:
    with redis.client as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")


def flush(redis: Valkey) -> None:
    with redis.client as client:
        client.flushall()


def put_garbage(redis: Valkey) -> None:
    with redis.client as client:
        client.set(KEY, b"garbage")


def put_the_value_of_another_key(redis: Valkey) -> None:
    other = kernel_of(OTHER)
    with redis.client as client:
        client.copy(f"esper:k1:{{{other.digest}}}", KEY, replace=True)


def put_a_list(redis: Valkey) -> None:
    with redis.client as client:
        client.delete(KEY)
        client.lpush(KEY, DATA)


def flip_a_bit(redis: Valkey) -> None:
    with redis.client as client:
        byte = client.getrange(KEY, 5000, 5000)
        client.setrange(KEY, 5000, bytes([byte[0] ^ 1]))


def leave_a_lease_that_never_ends(redis: Valkey) -> None:
    with redis.client as client:
        client.delete(KEY)
        client.delete(f"{KEY}:lease")
        client.lpush(f"{KEY}:lease", "garbage")


OUTAGES: dict[str, Callable[[Valkey], None]] = {"frozen": Valkey.freeze, "killed": Valkey.kill, "full": fill_up}
LIES: dict[str, Callable[[Valkey], None]] = {
    "garbage": put_garbage,
    "the value of another key": put_the_value_of_another_key,
    "a value of another type": put_a_list,
    "a flipped bit": flip_a_bit,
    "a lease that never ends": leave_a_lease_that_never_ends,
}
LOSSES: dict[str, Callable[[Valkey], None]] = {"flushed": flush, "restarted": Valkey.restart}


def end_outage(redis: Valkey) -> None:
    redis.thaw()
    if redis.process.poll() is not None:
        redis.start()
    redis.await_answers()
    with redis.client as client:
        client.config_set("maxmemory", "0")


@pytest.mark.parametrize("trouble", [*OUTAGES, *LIES, *LOSSES])
def test_reads_are_right_and_fast_after_the_first(redis: Valkey, trouble: str) -> None:
    kernel, client = kernel_of(DATA), admin()
    make_trouble = {**OUTAGES, **LIES, **LOSSES}[trouble]
    assert KernelStore().locate(kernel.digest or "") == TierName.L2
    make_trouble(redis)

    assert seconds_of(lambda: client.head(path_of(kernel)).content) < STALL_SECONDS
    assert client.head(path_of(kernel)).status_code == 200
    assert downloaded(client, kernel) == DATA
    assert seconds_of(lambda: read(kernel), times=20) < 1.0
    assert read(kernel) == DATA
    assert Kernel.objects.get(pk=kernel.pk).state == KernelState.VALIDATED


def test_what_lies_in_redis_wrongly_is_replaced(redis: Valkey) -> None:
    kernel = kernel_of(DATA)
    for lie in LIES.values():
        lie(redis)
        assert read(kernel) == DATA

        tiers().memory.drop(kernel.digest or "")
        reading = KernelStore().stream(kernel.digest or "")
        assert (reading.tier, b"".join(reading)) == (TierName.L2, DATA)


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_write_is_acknowledged_and_redis_gets_it_when_it_is_back(
    redis: Valkey, configure: Callable[..., None], outage: str
) -> None:
    OUTAGES[outage](redis)
    digests: list[str] = []
    for number, mode in enumerate(("through", "back")):
        configure(write=mode)
        assert seconds_of(lambda: digests.append(KernelStore().put(DATA[number:]))) < STALL_SECONDS  # noqa: B023
        assert KernelStore().get(digests[-1]) == DATA[number:]
    assert owed(OutboxKind.FILL) == 2, "what Redis did not take is owed to it"

    end_outage(redis)
    wait_until(is_caught_up, seconds=10)
    redis_tier = tiers().redis
    assert redis_tier is not None
    assert all(map(redis_tier.has, digests))


def test_it_is_asked_again_once_it_is_back(redis: Valkey) -> None:
    kernel = kernel_of(DATA)
    redis.freeze()
    assert read(kernel) == DATA
    redis.thaw()

    def comes_from_redis() -> bool:
        tiers().memory.drop(kernel.digest or "")
        return KernelStore().stream(kernel.digest or "").tier == TierName.L2

    wait_until(comes_from_redis, seconds=5)


@pytest.mark.parametrize("mode", ["through", "back"])
def test_that_there_were_no_such_bytes_is_not_believed_after_they_were_written(
    redis: Valkey, configure: Callable[..., None], mode: str
) -> None:
    """Redis is frozen while the write is acknowledged, and still says afterwards what it knew before."""
    configure(write=mode, absent_ttl=60.0)
    digest, client = hashlib.sha256(DATA).hexdigest(), admin()
    with pytest.raises(NotFound):
        KernelStore().get(digest)
    redis.freeze()
    with pytest.raises(NotFound):
        KernelStore().get(hashlib.sha256(OTHER).hexdigest())  # Redis is left alone from here on
    kernel = kernel_of(DATA)
    redis.thaw()
    be_impatient()

    assert KernelStore().get(digest) == DATA
    assert client.head(path_of(kernel)).status_code == 200
    assert downloaded(client, kernel) == DATA
    assert Kernel.objects.get(pk=kernel.pk).state == KernelState.VALIDATED


def test_a_retirement_is_acknowledged_and_told_when_it_is_back(redis: Valkey) -> None:
    client = admin()
    for number, make_trouble in enumerate(OUTAGES.values()):
        kernel = kernel_of(DATA[number:])
        make_trouble(redis)

        services.retire_kernel(kernel=kernel, reason="old", actor=SYSTEM)

        assert_problem(client.get(path_of(kernel)), 409, "not_downloadable")
        assert owed(OutboxKind.CHANGED) >= 1
        end_outage(redis)
        wait_until(is_caught_up, seconds=10)


def test_no_node_of_a_cluster_answers(redis: Valkey, configure: Callable[..., None]) -> None:
    redis.kill()
    configure(l2_cluster=True)

    kernel, client = kernel_of(DATA), admin()
    services.change_tier(kernel=kernel, tier="cold", actor=SYSTEM)
    services.retire_kernel(kernel=kernel_of(OTHER), reason="old", actor=SYSTEM)

    assert downloaded(client, kernel) == DATA


def test_a_broker_that_is_frozen_is_not_waited_for(
    redis: Valkey, settings: LazySettings, configure: Callable[..., None]
) -> None:
    """The statistics go there, from a thread beside; a request that is throttled by it waits its 50 ms."""
    kernel, client = kernel_of(DATA), admin()
    with running() as broker:
        throttle: Any = {**settings.CACHES["throttle"], "LOCATION": broker.url}
        settings.CACHES = {**settings.CACHES, "throttle": throttle}
        assert accesses.publish()
        broker.freeze()

        assert seconds_of(lambda: read(kernel), times=20) < 1.0
        assert read(kernel) == DATA
        assert seconds_of(lambda: downloaded(client, kernel)) < STALL_SECONDS
        assert seconds_of(process.publish) < STALL_SECONDS
        broker.thaw()
        wait_until(accesses.publish, seconds=5)
        counts = {key: int(count) for key, count in broker.client.hgetall(accesses.READS).items()}
    assert counts[(kernel.digest or "").encode()] >= 22, "what could not be told is told later"
