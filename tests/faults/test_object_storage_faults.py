"""An object storage that is away, frozen, slow, broken, lying or full: right bytes or a clear error within seconds, and
nothing half-written that counts as there."""

import contextlib
import hashlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from django.core.files.storage import storages

from apps.checkpoints import services as checkpoints
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.checkpoints.services import archiving
from apps.core.actors import SYSTEM, WORKER
from apps.core.errors import Unavailable
from apps.core.objects import STORAGE_FAULTS, exists, get, put
from apps.kernels import services as kernels
from apps.kernels.cache import KernelStore, archive
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.segments import CorruptSegment, Segment, TierAway, chunk_digests
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, StorageTier
from esper_site.settings import object_storage as settings_of
from tests.support.checkpoints import checkpoint_folder, save
from tests.support.factories import KernelFactory
from tests.support.objects import Bucket, s3, use

__all__ = ["checkpoint_folder"]

DATA = b"".join(hashlib.sha256(bytes([number])).digest() * (CHUNK_BYTES // 64) for number in range(4))
"""Two chunks."""
DIGEST = hashlib.sha256(DATA).hexdigest()
READ_SECONDS = 0.5
PATIENCE = 2 * READ_SECONDS + 2.0
"""Two attempts, the pause between them, and a busy machine."""
AT_ONCE = 0.1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tier(clock: Clock) -> archive.ArchiveTier:
    return archive.ArchiveTier(Breaker("l4", clock=clock))


def read(tier: archive.ArchiveTier) -> bytes:
    segment: Segment | None = tier.read(DIGEST, 0, digests=chunk_digests(DATA), blob_size=len(DATA))
    assert segment is not None
    return segment.data


def store() -> None:
    archive.store(DIGEST, [DATA])


def seconds_until_away(call: Callable[[], object]) -> float:
    """How long it takes to hear that the tier is away."""
    start = time.monotonic()
    with pytest.raises(TierAway):
        call()
    return time.monotonic() - start


class TestAway:
    def test_after_five_refusals_it_is_not_asked_until_a_probe_finds_it_back(
        self, s3_storage: Bucket, tier: archive.ArchiveTier, clock: Clock
    ) -> None:
        store()
        s3_storage.proxy.cut()
        for _ in range(5):
            assert seconds_until_away(lambda: read(tier)) < PATIENCE
        s3_storage.proxy.mend()

        assert seconds_until_away(lambda: read(tier)) < AT_ONCE, "it is left alone, although it is back"
        clock.now += 5
        assert read(tier) == DATA
        assert tier.breaker.state == "closed"

    def test_whoever_writes_or_deletes_is_told(self, s3_storage: Bucket) -> None:
        s3_storage.proxy.cut()

        for attempt in (store, lambda: archive.delete(DIGEST), lambda: archive.Reader(DIGEST).chunk(0)):
            with pytest.raises(Unavailable) as told:
                attempt()
            assert told.value.code == "storage"


class TestFrozen:
    def test_it_costs_one_reader_its_patience_and_the_next_nothing(
        self, s3_storage: Bucket, tier: archive.ArchiveTier, clock: Clock
    ) -> None:
        store()
        s3_storage.be_patient_for(READ_SECONDS)
        s3_storage.proxy.freeze()

        assert READ_SECONDS < seconds_until_away(lambda: read(tier)) < PATIENCE
        assert seconds_until_away(lambda: read(tier)) < AT_ONCE
        s3_storage.proxy.mend()
        clock.now += 5
        assert read(tier) == DATA

    def test_a_copy_that_could_not_be_written_is_absent_or_whole(self, s3_storage: Bucket) -> None:
        s3_storage.be_patient_for(READ_SECONDS)
        s3_storage.proxy.freeze()
        with pytest.raises(Unavailable):
            store()
        s3_storage.proxy.mend()

        assert not exists(storages["default"], archive.name_of(DIGEST)) or archive.is_whole(DIGEST)
        store()
        assert archive.is_whole(DIGEST)


def test_a_slow_storage_gives_the_right_bytes(s3_storage: Bucket, tier: archive.ArchiveTier) -> None:
    store()
    s3_storage.proxy.slow(READ_SECONDS / 20)

    assert read(tier) == DATA


def test_a_connection_that_breaks_on_the_way_gives_an_error_and_not_fewer_bytes(
    s3_storage: Bucket, tier: archive.ArchiveTier
) -> None:
    store()
    for size in (0, 100, len(DATA) // 2, len(DATA)):
        s3_storage.proxy.break_after(size)
        with pytest.raises(TierAway):
            read(tier)
        s3_storage.proxy.break_after(size)
        with pytest.raises(STORAGE_FAULTS):
            get(storages["default"], archive.name_of(DIGEST))
        s3_storage.proxy.mend()
        tier.breaker = Breaker("l4")

    assert read(tier) == DATA


@pytest.mark.django_db
class TestFrozenForItsUsers:
    def test_a_kernel_that_cannot_go_down_stays_where_it_is(self, s3_storage: Bucket) -> None:
        kernel = KernelFactory(state=KernelState.VALIDATED, data=DATA)
        s3_storage.be_patient_for(READ_SECONDS)
        s3_storage.proxy.freeze()

        with pytest.raises(Unavailable):
            kernels.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM, reason="room")
        kernel.refresh_from_db()
        assert kernel.storage_tier != StorageTier.COLD
        assert KernelStore().get(DIGEST) == DATA

    @pytest.mark.usefixtures("checkpoint_folder")
    def test_a_checkpoint_that_cannot_be_copied_is_kept_where_it_is(self, s3_storage: Bucket) -> None:
        s3_storage.be_patient_for(READ_SECONDS)
        s3_storage.proxy.freeze()
        checkpoint = save(step=10)
        with pytest.raises(Unavailable):
            archiving.copy(checkpoint=checkpoint)
        checkpoint.refresh_from_db()
        assert checkpoint.copied_at is None
        assert step_of_latest(checkpoint.run_id) == 10


def step_of_latest(run_id: UUID) -> int:
    stored = checkpoints.load_latest(run_id=run_id, actor=WORKER)
    assert stored is not None
    return stored.checkpoint.step


# --- A server that answers what the test wants


class Answers(BaseHTTPRequestHandler):
    """Every request gets the same: a status, headers and a body."""

    protocol_version = "HTTP/1.1"
    status = 500
    headers_given: dict[str, str]
    body = b""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        for name, value in (
            {"Content-Length": str(len(self.body)), "Connection": "close"} | self.headers_given
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else self.body)
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """What is asked is of no interest."""


@pytest.fixture
def server_that_answers(settings: Any) -> Iterator[Callable[..., None]]:
    """Makes the bucket one whose server gives this answer to everything."""
    with contextlib.ExitStack() as running:

        def start(status: int, body: bytes = b"", **headers: str) -> None:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            handler = type("Handler", (Answers,), {"status": status, "body": body, "headers_given": given})
            server = running.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            running.callback(server.shutdown)
            use(settings, s3("any", f"http://127.0.0.1:{server.server_port}"))

        yield start


@pytest.mark.parametrize("status", [500, 503, 403])
def test_a_storage_that_answers_with_errors_is_away_and_has_lost_nothing(
    server_that_answers: Callable[..., None], tier: archive.ArchiveTier, status: int
) -> None:
    server_that_answers(status)

    assert seconds_until_away(lambda: read(tier)) < PATIENCE
    for attempt in (store, lambda: archive.delete(DIGEST), lambda: archive.Reader(DIGEST).chunk(0)):
        with pytest.raises(Unavailable) as told:
            attempt()
        assert told.value.code == "storage"


LAST = len(DATA) - 1
RANGE = f"bytes 0-{LAST}/{len(DATA)}"


@pytest.mark.parametrize(
    ("status", "body", "headers", "told"),
    [
        (206, DATA[:-1] + b"x", {"Content_Range": RANGE}, CorruptSegment),
        (206, DATA[:-1], {"Content_Range": f"bytes 0-{LAST - 1}/{LAST}"}, CorruptSegment),
        (206, DATA[:-1], {"Content_Range": RANGE}, CorruptSegment),
        (206, DATA[:-1], {"Content_Range": RANGE, "Content_Length": str(len(DATA))}, TierAway),
        (206, DATA, {"Content_Range": f"bytes 1-{LAST + 1}/{len(DATA) + 1}"}, TierAway),
        (200, DATA * 2, {}, TierAway),
        (404, b"<html>not found</html>", {}, TierAway),
    ],
    ids=["other bytes", "a shorter object", "fewer bytes", "a body that breaks off", "another range", "all", "a page"],
)
def test_a_storage_that_lies_is_found_out(
    server_that_answers: Callable[..., None],
    tier: archive.ArchiveTier,
    status: int,
    body: bytes,
    headers: dict[str, str],
    told: type[Exception],
) -> None:
    server_that_answers(status, body, **headers)

    with pytest.raises(told):
        read(tier)


@pytest.mark.django_db
def test_a_storage_that_lies_when_it_is_read_back_gets_no_kernel(server_that_answers: Callable[..., None]) -> None:
    kernel = KernelFactory(state=KernelState.VALIDATED, data=DATA)
    server_that_answers(200, DATA[:-1] + b"x")

    with pytest.raises(Unavailable):
        kernels.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM, reason="room")
    assert KernelStore().get(DIGEST) == DATA


# --- A disk that is full


@pytest.fixture
def small_disk(tmp_path: Path, settings: Any) -> Iterator[Path]:
    """The storage is a folder on a disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", folder], check=True)
    use(settings, settings_of.folder(folder))
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.root
def test_what_does_not_fit_leaves_nothing_and_takes_no_room(small_disk: Path) -> None:
    large = DATA * 5

    with pytest.raises(Unavailable, match="No space left"):
        archive.store(hashlib.sha256(large).hexdigest(), [large])

    assert files(small_disk) == []
    put(storages["default"], "fits", DATA * 3)


@pytest.mark.root
@pytest.mark.django_db
def test_a_checkpoint_that_does_not_fit_leaves_the_one_before_it(small_disk: Path, settings: Any) -> None:
    settings.CHECKPOINTS_ROOT = small_disk / "checkpoints"
    settings.CHECKPOINTS_ROOT.mkdir()
    first = save(step=10)
    kept = files(small_disk)

    with pytest.raises(Unavailable, match="No space left"):
        save(first.run_id, step=20, state={"tolaria": {"weights": torch.rand(2 * 1024**2)}})

    assert step_of_latest(first.run_id) == 10
    assert Checkpoint.objects.get(run_id=first.run_id, step=20).state == CheckpointState.ABANDONED
    assert files(small_disk) == kept
