"""L4: whole blobs in the object storage, one object each, named by its sha256.

``ArchiveTier`` reads segments of them for the store; the functions are what ``mover`` moves, checks and deletes with.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from django.core.files.storage import FileSystemStorage, Storage, storages

from apps.core.errors import Unavailable
from apps.core.objects import (
    STORAGE_FAULTS,
    STORAGE_TIMEOUTS,
    ShortObject,
    exists,
    opened,
    put,
    read_range,
    size,
)
from apps.core.objects import delete as delete_object
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.segments import (
    SEGMENT_BYTES,
    SEGMENT_CHUNKS,
    CorruptSegment,
    Segment,
    TierAway,
    TierName,
    segment_size,
)
from apps.kernels.models import CHUNK_BYTES

FOLDER = "kernels"


def name_of(digest: str) -> str:
    return f"{FOLDER}/{digest[:2]}/{digest}"


def _storage() -> Storage:
    return storages["default"]


def _require_mounted() -> None:
    """Where a copy should be, a folder without any kernels has not lost them: its disk is not mounted, or it was moved.

    A bucket that is gone says so itself.

    Raises:
        NotADirectoryError: that is so.
    """
    storage = _storage()
    if isinstance(storage, FileSystemStorage) and not Path(storage.path(FOLDER)).is_dir():
        raise NotADirectoryError(f"its folder {FOLDER!r} is not there: is it mounted?")


@contextmanager
def faults_told(verb: str) -> Iterator[None]:
    """Raises Unavailable in the place of STORAGE_FAULTS."""
    try:
        yield
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the object storage could not {verb}: {error}", code="storage") from error


# --- Whole blobs


def store(digest: str, pieces: Iterable[bytes]) -> None:
    """Have a copy that reads back as ``digest``, whatever an interrupted attempt left under its name.

    Raises:
        Unavailable: the storage does not take it, or gives back other bytes.
    """
    storage, name = _storage(), name_of(digest)
    with faults_told("store the kernel"):
        if exists(storage, name):
            if is_whole(digest):
                return
            delete_object(storage, name)
        with TemporaryFile() as spool:
            for piece in pieces:
                spool.write(piece)
            spool.seek(0)
            with suppress(FileExistsError):  # another writer of the same bytes was faster: what is there counts
                put(storage, name, spool)
        if not is_whole(digest):
            raise OSError("what comes back is not what was written")


def is_whole(digest: str) -> bool:
    """Does the copy read back as ``digest``? One chunk in memory at a time. Raises STORAGE_FAULTS."""
    found = hashlib.sha256()
    with opened(_storage(), name_of(digest)) as file:
        while piece := file.read(CHUNK_BYTES):
            found.update(piece)
    return found.hexdigest() == digest


def delete(digest: str) -> None:
    """Delete the copy; one that is gone already is a success. Raises Unavailable."""
    with faults_told("delete the kernel"):
        delete_object(_storage(), name_of(digest))


class Reader:
    """Chunks of one copy, by index; one segment of them is read, and held, at a time."""

    def __init__(self, digest: str) -> None:
        self._name = name_of(digest)
        self._size: int | None = None
        self._held = -1
        self._segment = b""

    def chunk(self, index: int) -> bytes:
        """The bytes at the place of chunk ``index``, unchecked; none past the end. Raises Unavailable."""
        segment, place = divmod(index, SEGMENT_CHUNKS)
        if segment != self._held:
            with faults_told("read the kernel"):
                self._segment = self._read(segment)
            self._held = segment
        return self._segment[place * CHUNK_BYTES : (place + 1) * CHUNK_BYTES]

    def _read(self, segment: int) -> bytes:
        if self._size is None:
            self._size = size(_storage(), self._name)
        start = segment * SEGMENT_BYTES
        stop = min(start + SEGMENT_BYTES, self._size)
        return read_range(_storage(), self._name, start, stop) if start < stop else b""

    def close(self) -> None:
        self._held, self._segment = -1, b""


# --- Segments


class ArchiveTier:
    """Segments of the copies, for the store, which knows from L3 how long a blob is and what digest each chunk has.

    It is no ``Tier``: its objects are whole blobs, which are stored and deleted by the functions above.
    """

    name = TierName.L4

    def __init__(self, breaker: Breaker | None = None) -> None:
        self.breaker = breaker or Breaker(self.name)

    def read(self, digest: str, index: int, *, digests: Sequence[bytes], blob_size: int) -> Segment | None:
        """Segment ``index`` of the blob, each chunk of it verified against ``digests``; None: there is no copy.

        Raises:
            CorruptSegment: the copy is too short, or has other bytes. TierAway: the storage does not answer, has not
            for a while, or is not mounted.
        """
        start = index * SEGMENT_BYTES
        stop = start + segment_size(blob_size, index)
        with self._watched():
            try:
                data = read_range(_storage(), name_of(digest), start, stop)
            except FileNotFoundError:
                _require_mounted()
                return None
            except ShortObject as error:
                raise CorruptSegment(f"the copy of {digest} in the object storage is too short") from error
        segment = Segment(data, blob_size, tuple(digests))
        if not segment.is_intact():
            raise CorruptSegment(f"segment {index} of the copy of {digest} in the object storage is corrupt")
        return segment

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """The breaker around one request. Raises TierAway."""
        if not self.breaker.allows():
            raise TierAway(f"the object storage failed {self.breaker.seconds_since_change:.0f} s ago")
        try:
            yield
        except STORAGE_FAULTS as error:
            self.breaker.failed(was_timeout=isinstance(error, STORAGE_TIMEOUTS))
            raise TierAway(f"the object storage does not answer: {error}") from error
        except CorruptSegment:
            self.breaker.succeeded()
            raise
        self.breaker.succeeded()
