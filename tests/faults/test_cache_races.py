"""Processes that write, read, retire, move and purge the same kernels at once: every answer is the right bytes or the
state's error, what was acknowledged is there, and what is gone is gone in every tier."""

import hashlib
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import pytest
import requests
from django.core.files.storage import storages
from django.db import connection, transaction

from apps.core.actors import SYSTEM
from apps.core.errors import NotFound, ServiceError
from apps.kernels import services
from apps.kernels.cache import KernelStore, archive, mover, process
from apps.kernels.cache.changes import TRUSTED_SECONDS
from apps.kernels.cache.chunks import DatabaseTier
from apps.kernels.cache.references import tiers_of
from apps.kernels.cache.segments import Segment
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelBlob, KernelChunk, StorageTier
from benchmarks.cache_site import Child
from tests.api.conftest import Caller
from tests.support.factories import KernelFactory, TokenFactory, UserFactory
from tests.support.objects import Folder
from tests.support.store_in_trouble import body_of, configure, is_caught_up, kernel_of, path_of
from tests.support.valkeys import Valkey, running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db")

__all__ = ["configure"]

DATA = random.Random(61).randbytes(700_000)
"""Two chunks."""
HEARD_SECONDS = TRUSTED_SECONDS + 1.0
"""After which every process knows what was acknowledged, on a busy machine."""
LEASE_SECONDS = 1.0

Counter = Any
"""A number that all processes of a test see."""


@pytest.fixture
def storage(folder_storage: Folder, configure: Callable[..., None]) -> Folder:
    configure(lease=LEASE_SECONDS)
    return folder_storage


@pytest.fixture
def start(storage: Folder) -> Iterator[Callable[..., Child]]:
    """Starts a forked process, which is killed in the end if it still works."""
    with ExitStack() as stack:

        def run(work: Callable[..., None], *arguments: Any) -> Child:
            child = Child(work, *arguments)
            stack.callback(child.kill)
            return child

        yield run


def number() -> Counter:
    return multiprocessing.get_context("fork").Value("i", 0)


# --- Writing


def read_from_before(pipe: Connection, acknowledged: Counter) -> None:
    """Reads each digest from before it was written until it was read five times after that; answers what was wrong."""
    while True:
        turn, digest = pipe.recv()
        wrong, right, has_begun = [], 0, False
        while right < 5 and not wrong:
            was_acknowledged = acknowledged.value >= turn
            try:
                data = KernelStore().get(digest)
            except NotFound:
                if was_acknowledged:
                    wrong.append(f"{turn}: not found after it was acknowledged")
            except Exception as error:
                wrong.append(f"{turn}: {type(error).__name__}: {error}")
            else:
                right += was_acknowledged
                if hashlib.sha256(data).hexdigest() != digest:
                    wrong.append(f"{turn}: other bytes")
            if not has_begun:
                pipe.send("reading")
                has_begun = True
        pipe.send(wrong)


@pytest.mark.parametrize("mode", ["through", "back"])
def test_after_a_write_is_acknowledged_nobody_hears_that_there_are_no_such_bytes(
    start: Callable[..., Child], configure: Callable[..., None], mode: str
) -> None:
    configure(write=mode)
    acknowledged, chance = number(), random.Random(mode)
    readers = [start(read_from_before, acknowledged) for _ in range(3)]
    for turn in range(1, 13):
        data = chance.randbytes(chance.choice((1_000, 100_000, 600_000)))
        for reader in readers:
            reader.send((turn, hashlib.sha256(data).hexdigest()))
        for reader in readers:
            assert reader.receive() == "reading"
        with transaction.atomic():
            KernelStore().put(data)
        acknowledged.value = turn
        assert [reader.receive() for reader in readers] == [[], [], []]


@pytest.mark.parametrize("l2", ["with Redis", "without"])
def test_bytes_that_are_written_between_two_questions_to_the_database_are_found(
    storage: Folder, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch, l2: str
) -> None:
    """A reader asks for the bytes, then for where they are: not there, and there by then."""
    if l2 == "without":
        configure(l2_url="")
    ask, digest = DatabaseTier.get, hashlib.sha256(DATA).hexdigest()

    def ask_then_write(self: DatabaseTier, digest: str, index: int) -> Segment | None:
        monkeypatch.setattr(DatabaseTier, "get", ask)
        answer = ask(self, digest, index)
        KernelStore().put(DATA)
        return answer

    monkeypatch.setattr(DatabaseTier, "get", ask_then_write)

    assert KernelStore().get(digest) == DATA


# --- Taking out of use


def download_until_refused(pipe: Connection, secret: str, acknowledged: Counter) -> None:
    """Downloads each kernel until it was refused 20 times in a row after that was acknowledged.

    Answers what was wrong, and when the bytes were given out last.
    """
    process.start()
    client = Caller(secret)
    while True:
        turn, path, digest, data = pipe.recv()
        wrong, refusals, last, downloads = [], 0, 0.0, 0
        while refusals < 20 and not wrong:
            response = client.get(path)
            if response.status_code == 200:
                try:
                    is_right = body_of(response) == data
                except ServiceError:
                    is_right = True  # it broke off
                wrong += [] if is_right else [f"{turn}: other bytes"]
                last, refusals = time.monotonic(), 0
                downloads += 1
            elif response.status_code == 409:
                refusals += acknowledged.value >= turn
            else:
                wrong.append(f"{turn}: {response.content!r}")
            with suppress(NotFound):
                if KernelStore().get(digest) != data:
                    wrong.append(f"{turn}: other bytes by digest")
            if downloads == 5:
                pipe.send("downloading")
                downloads += 1
        pipe.send((wrong, last))


def retire(kernel: Kernel) -> None:
    services.retire_kernel(kernel=kernel, reason="old", actor=SYSTEM)


def quarantine(kernel: Kernel) -> None:
    services.quarantine_kernel(kernel=kernel, reason="wrong", actor=SYSTEM)


def retire_and_purge(kernel: Kernel) -> None:
    retired = services.retire_kernel(kernel=kernel, reason="old", actor=SYSTEM, restorable_for=timedelta(0))
    services.purge_kernel(kernel=retired, actor=SYSTEM)


def test_what_was_taken_out_of_use_is_given_out_by_no_process_once_it_heard(start: Callable[..., Child]) -> None:
    secret, acknowledged = TokenFactory(user=UserFactory(role="admin")).secret, number()
    readers = [start(download_until_refused, secret, acknowledged) for _ in range(2)]
    for turn, act in enumerate((retire, quarantine, retire_and_purge), start=1):
        data = DATA[turn:]
        kernel = kernel_of(data)
        for reader in readers:
            reader.send((turn, path_of(kernel), kernel.digest, data))
        for reader in readers:
            assert reader.receive() == "downloading"
        act(kernel)
        acknowledged.value, told = turn, time.monotonic()

        for reader in readers:
            wrong, last = reader.receive()
            assert wrong == []
            assert last - told < HEARD_SECONDS


def times_listened(redis: Valkey) -> int:
    """How often whoever follows the changes has had an answer, if an empty one."""
    with redis.client as client:
        return int(client.info("commandstats").get("cmdstat_xread", {}).get("calls", 0))


def test_the_site_gives_out_nothing_retired_even_while_its_redis_is_frozen(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, configure: Callable[..., None]
) -> None:
    first, second = kernel_of(DATA), kernel_of(DATA[1:])
    secret = TokenFactory(user=UserFactory(role="admin")).secret
    with running() as redis:
        monkeypatch.setenv("ESPER_CACHE_L2_URL", redis.url)
        configure(l2_url=redis.url)  # this process tells of what it retires where the site listens
        site = request.getfixturevalue("live_site")
        wait_until(lambda: times_listened(redis) > 0, seconds=10)  # from now on the site remembers kernels

        def status(kernel: Kernel) -> int:
            headers = {"Authorization": f"Bearer {secret}"}
            response = requests.get(f"{site}{path_of(kernel)}", headers=headers, timeout=10)
            if response.ok:
                assert hashlib.sha256(response.content).hexdigest() == kernel.digest
            return response.status_code

        for kernel in (first, second) * 3:
            assert status(kernel) == 200
        retire(first)
        wait_until(lambda: status(first) == 409, seconds=HEARD_SECONDS)

        redis.freeze()
        assert status(second) == 200, "it has the bytes, and can ask the database for the rest"
        retire(second)
        wait_until(lambda: status(second) == 409, seconds=HEARD_SECONDS)
        redis.thaw()


# --- Everything at once


def retire_shortly(kernel: Kernel) -> None:
    services.retire_kernel(kernel=kernel, reason="old", actor=SYSTEM, restorable_for=timedelta(0))


def restore(kernel: Kernel) -> None:
    services.restore_kernel(kernel=kernel, actor=SYSTEM)


def purge(kernel: Kernel) -> None:
    services.purge_kernel(kernel=kernel, actor=SYSTEM)


def move_to(tier: StorageTier) -> Callable[[Kernel], None]:
    return lambda kernel: (services.change_tier(kernel=kernel, tier=tier, actor=SYSTEM), None)[1]


def upload_again(kernel: Kernel | None = None) -> None:
    name = f"{os.getpid()}-{time.monotonic_ns()}"  # the factory of another process counts as this one does
    waiting = KernelFactory(awaits_upload=True, name=name, blueprint_version__blueprint__name=name)
    services.upload_binary(kernel=waiting, data=DATA, actor=SYSTEM)


def settle(kernel: Kernel) -> None:
    mover.settle()


DEEDS: tuple[Callable[[Kernel], None], ...] = (
    *(quarantine, retire_shortly, retire_shortly, retire_shortly, restore, purge, purge, purge, upload_again, settle),
    *(move_to(StorageTier.COLD), move_to(StorageTier.WARM), move_to(StorageTier.ARCHIVE)),
)


def do_deeds(pipe: Connection, seed: str, digest: str) -> None:
    """Twenty deeds on kernels with the same bytes; a refusal is an answer. Tells what else came."""
    chance, wrong = random.Random(seed), []
    for _ in range(20):
        row = chance.choice(Kernel.objects.filter(digest=digest).exclude(state=KernelState.PURGED)[:4] or [None])
        if row is None:
            upload_again()
            continue
        try:
            chance.choice(DEEDS)(row)
        except ServiceError:
            continue
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
    pipe.send(wrong)


def read_meanwhile(pipe: Connection, digest: str) -> None:
    """Reads until it is told to stop; a clear refusal is an answer, other bytes and corrupt ones are not."""
    wrong: list[str] = []
    while not pipe.poll():
        try:
            if KernelStore().get(digest) != DATA:
                wrong.append("other bytes")
        except ServiceError:
            continue
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
    pipe.send(wrong)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_done_at_once_states_and_bytes_agree_in_the_end(start: Callable[..., Child], seed: int) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    for _ in range(2):
        kernel_of(DATA)
    reader = start(read_meanwhile, digest)
    doers = [start(do_deeds, f"{seed} {doer}", digest) for doer in range(3)]

    assert [doer.receive() for doer in doers] == [[], [], []]
    reader.send("stop")
    assert reader.receive() == []
    wait_until(is_caught_up, seconds=10)
    mover.settle()
    wait_until(is_caught_up, seconds=10)
    assert_bytes_agree(digest)


def assert_bytes_agree(digest: str) -> None:
    """Those that a kernel refers to are there and right; those that none does are in no tier."""
    found = tiers()
    assert found.redis is not None
    found.memory.drop(digest)
    needed = tiers_of([digest])[digest]
    blob = KernelBlob.objects.filter(pk=digest).first()
    has_copy = storages["default"].exists(archive.name_of(digest))
    if not needed:
        assert blob is None
        assert not has_copy
        assert not found.redis.has(digest)
        assert not KernelChunk.objects.filter(blob_id=digest).exists()
        with pytest.raises(NotFound):
            KernelStore().get(digest)
        return
    assert blob is not None
    assert blob.freed_at is None
    assert blob.in_database == bool(needed & {StorageTier.WARM, StorageTier.HOT})
    assert blob.archived_at is None or archive.is_whole(digest)
    if needed != {StorageTier.ARCHIVE}:
        assert KernelStore().get(digest) == DATA
        KernelStore().verify(digest)


# --- Forks and kills


def read_all(pipe: Connection, blobs: dict[str, bytes]) -> None:
    pipe.send([digest for digest, data in blobs.items() for _ in range(2) if KernelStore().get(digest) != data])


def test_children_that_are_forked_while_threads_read_read_right(start: Callable[..., Child]) -> None:
    blobs = {kernel_of(data).digest or "": data for data in (DATA, DATA[:1000], DATA * 7)}
    over = threading.Event()

    def keep_reading() -> int:
        reads = 0
        while not over.is_set():
            tiers().memory.drop(random.Random(reads).choice(list(blobs)))
            for digest, data in blobs.items():
                assert KernelStore().get(digest) == data
                reads += 1
        connection.close()
        return reads

    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(keep_reading) for _ in range(3)]
        try:
            for _ in range(4):
                children = [start(read_all, blobs) for _ in range(2)]
                assert [child.receive() for child in children] == [[], []]
        finally:
            over.set()
        assert all(reads.result() > 0 for reads in reading)


def load_for_ever(pipe: Connection, digest: str) -> None:
    """Begins to load under a lease, and never ends."""

    def stuck(*args: object) -> None:
        pipe.send("loading")
        threading.Event().wait()

    DatabaseTier.get = stuck  # type: ignore[assignment, method-assign]
    KernelStore().get(digest)


def test_the_bytes_are_there_within_a_lease_after_its_holder_was_killed(start: Callable[..., Child]) -> None:
    kernel = kernel_of(DATA)
    redis = tiers().redis
    assert redis is not None
    assert kernel.digest is not None
    redis.drop(kernel.digest)
    holder = start(load_for_ever, kernel.digest)
    assert holder.receive() == "loading"
    holder.kill()

    began = time.monotonic()
    assert KernelStore().get(kernel.digest) == DATA
    assert time.monotonic() - began < LEASE_SECONDS + 1.0
    assert redis.has(kernel.digest), "and the others need not load them again"
