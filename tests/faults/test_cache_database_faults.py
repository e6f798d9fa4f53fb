"""The kernel store while PostgreSQL is gone, slow or read-only: the fast tiers answer, the rest is a clear error, and
nothing is half-written."""

import hashlib
import os
import random
from collections.abc import Callable, Iterator

import psycopg
import pytest
import requests
from django.db import DatabaseError, connection, transaction
from psycopg import sql

from apps.core.actors import SYSTEM
from apps.core.errors import NotFound, Unavailable
from apps.kernels import services
from apps.kernels.cache import KernelStore, TierName
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, CacheOutbox, Kernel, KernelBlob, KernelChunk, StorageTier
from tests.support.factories import KernelFactory, TokenFactory, UserFactory
from tests.support.objects import Folder
from tests.support.problems import assert_problem
from tests.support.proxy import Proxy, proxy_to
from tests.support.stack import Servers
from tests.support.store_in_trouble import (
    admin,
    configure,
    database_through,
    downloaded,
    is_caught_up,
    kernel_of,
    path_of,
    read,
    seconds_of,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db")

__all__ = ["configure"]

DATA = random.Random(31).randbytes(700_000)
"""Two chunks."""
COLD_DATA = random.Random(32).randbytes(700_000)
AT_ONCE = 1.0
"""For twenty reads of a fast tier, on a busy machine."""
PATIENCE = 3.0


@pytest.fixture
def proxy(committed_db: str, configure: Callable[..., None]) -> Iterator[Proxy]:
    """The only way of this process to its database."""
    configure()
    with proxy_to(os.environ["DATABASE_URL"]) as proxy, database_through(proxy):
        yield proxy
        proxy.mend()


def keep_in_memory(kernel: Kernel) -> None:
    for _ in range(2):
        KernelStore().get(kernel.digest or "")
    assert KernelStore().locate(kernel.digest or "") == TierName.L1


def only_in_database(kernel: Kernel) -> str:
    """The digest of a kernel that no faster tier has any more."""
    redis = tiers().redis
    assert redis is not None
    assert kernel.digest is not None
    redis.drop(kernel.digest)
    tiers().memory.drop(kernel.digest)
    return kernel.digest


def unavailable(digest: str) -> None:
    with pytest.raises(Unavailable) as told:
        KernelStore().get(digest)
    assert told.value.code == "database"


class TestGone:
    def test_fast_tiers_answer_and_the_rest_is_a_clear_error_until_it_is_back(self, proxy: Proxy) -> None:
        in_memory, in_redis, elsewhere = kernel_of(DATA), kernel_of(DATA[1:]), kernel_of(DATA[2:])
        keep_in_memory(in_memory)
        digest = only_in_database(elsewhere)
        proxy.cut()

        assert seconds_of(lambda: KernelStore().get(in_memory.digest or ""), times=20) < AT_ONCE
        assert KernelStore().get(in_memory.digest or "") == DATA
        assert seconds_of(lambda: read(in_redis), times=20) < AT_ONCE
        assert read(in_redis) == DATA[1:]
        assert seconds_of(lambda: unavailable(digest), times=20) < PATIENCE
        assert tiers().database.breaker.opened >= 1, "it is left alone"

        proxy.mend()
        wait_until(lambda: tiers().database.breaker.state == "half-open", seconds=5)
        assert read(elsewhere) == DATA[2:]
        assert tiers().database.breaker.state == "closed"

    def test_a_write_that_breaks_off_is_an_error_and_leaves_nothing(self, proxy: Proxy) -> None:
        def write_half() -> None:
            with transaction.atomic():
                KernelStore().put(DATA)
                proxy.cut()

        with pytest.raises(DatabaseError):
            write_half()
        proxy.mend()
        connection.close()

        with pytest.raises(NotFound):
            KernelStore().get(hashlib.sha256(DATA).hexdigest())
        assert not KernelBlob.objects.exists()
        assert not CacheOutbox.objects.exists()

    def test_a_download_that_breaks_off_never_sends_other_bytes(self, proxy: Proxy) -> None:
        big = random.Random(33).randbytes(9 * CHUNK_BYTES)
        kernel, client = kernel_of(big), admin()
        only_in_database(kernel)
        response = client.get(path_of(kernel))
        proxy.cut()

        sent = []
        with pytest.raises(Unavailable):
            sent.extend(response.streaming_content)
        assert b"".join(sent) == big[: 8 * CHUNK_BYTES]
        proxy.mend()
        connection.close()
        wait_until(lambda: read(kernel) == big, seconds=5)
        assert Kernel.objects.get(pk=kernel.pk).state == KernelState.VALIDATED


class TestSlow:
    DELAY = 0.1

    def test_fast_tiers_do_not_wait_for_it_and_the_rest_is_right(self, proxy: Proxy) -> None:
        in_memory, in_redis, elsewhere = kernel_of(DATA), kernel_of(DATA[1:]), kernel_of(DATA[2:])
        keep_in_memory(in_memory)
        only_in_database(elsewhere)
        proxy.slow(self.DELAY)

        assert seconds_of(lambda: KernelStore().get(in_memory.digest or ""), times=20) < AT_ONCE
        assert seconds_of(lambda: read(in_redis), times=20) < AT_ONCE
        assert KernelStore().get(elsewhere.digest or "") == DATA[2:]
        assert seconds_of(lambda: read(elsewhere)) < AT_ONCE, "Redis has it now"


def test_the_site_says_so_while_it_is_gone_and_sends_the_bytes_when_it_is_back(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = kernel_of(DATA)
    secret = TokenFactory(user=UserFactory(role="admin")).secret
    with proxy_to(os.environ["DATABASE_URL"]) as proxy:
        monkeypatch.setenv("DATABASE_URL", proxy.url(os.environ["DATABASE_URL"]))
        site = request.getfixturevalue("live_site")

        def download() -> requests.Response:
            headers = {"Authorization": f"Bearer {secret}"}
            return requests.get(f"{site}{path_of(kernel)}", headers=headers, timeout=30)

        assert download().content == DATA
        proxy.cut()
        refused = download()
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.headers["Retry-After"]
        proxy.mend()
        wait_until(lambda: download().content == DATA, seconds=40)


# --- Read-only


@pytest.fixture
def read_only(committed_db: str, servers: Servers) -> Callable[[], None]:
    """Makes the database refuse writes, as one does that is a standby, or runs out of room."""

    def set_to(value: str) -> None:
        statement = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        with psycopg.connect(servers.url("admin", committed_db), autocommit=True) as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute(statement.format(sql.Identifier(committed_db), sql.SQL(value)))
        connection.close()

    return lambda: set_to("on")


def archived_too(data: bytes) -> Kernel:
    """In L3, and a copy in L4; no faster tier has it."""
    kernel = kernel_of(data)
    wait_until(is_caught_up, seconds=10)
    assert KernelBlob.objects.get(pk=kernel.digest).archived_at is not None
    only_in_database(kernel)
    return kernel


class TestReadOnly:
    def test_reads_are_right_and_what_cannot_be_healed_is_served_from_its_copy(
        self, folder_storage: Folder, read_only: Callable[[], None]
    ) -> None:
        client, intact, corrupt = admin(), archived_too(DATA), archived_too(DATA[1:])
        KernelChunk.objects.filter(blob_id=corrupt.digest, index=1).update(data=b"\0" * 1000)
        read_only()

        assert KernelStore().get(intact.digest or "") == DATA
        assert KernelStore().get(corrupt.digest or "") == DATA[1:]
        assert downloaded(client, corrupt) == DATA[1:]

    def test_corrupt_bytes_without_a_copy_are_a_clear_error(
        self, read_only: Callable[[], None], configure: Callable[..., None]
    ) -> None:
        configure(copies=False)
        kernel, client = kernel_of(DATA), admin()
        only_in_database(kernel)
        KernelChunk.objects.filter(blob_id=kernel.digest, index=1).update(data=b"\0" * 1000)
        read_only()

        with pytest.raises(Unavailable) as told:
            KernelStore().get(kernel.digest or "")
        assert told.value.code == "being_healed"
        assert_problem(client.get(path_of(kernel)), 503, "being_healed")

    def test_a_write_is_refused_clearly_and_leaves_nothing(self, read_only: Callable[[], None]) -> None:
        waiting, client = KernelFactory(awaits_upload=True), admin()
        data = (2).to_bytes(8, "little") + b"{}"
        read_only()

        with pytest.raises(DatabaseError):
            KernelStore().put(DATA)
        answer = client.generic("PUT", path_of(waiting), data, content_type="application/octet-stream")

        assert_problem(answer, 503, "database_unavailable")
        for lost in (DATA, data):
            with pytest.raises(NotFound):
                KernelStore().get(hashlib.sha256(lost).hexdigest())
        assert not KernelBlob.objects.exists()

    def test_a_kernel_stays_in_its_tier(self, folder_storage: Folder, read_only: Callable[[], None]) -> None:
        kernel = archived_too(DATA)
        read_only()

        with pytest.raises(DatabaseError):
            services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM)
        assert KernelStore().get(kernel.digest or "") == DATA
