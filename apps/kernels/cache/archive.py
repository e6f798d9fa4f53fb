"""L4: whole blobs in the object storage, one object each, named by its sha256."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO, Any

from django.core.files.storage import Storage, storages

from apps.core.errors import Unavailable
from apps.core.objects import STORAGE_FAULTS, put
from apps.kernels.models import CHUNK_BYTES


def name_of(digest: str) -> str:
    return f"kernels/{digest[:2]}/{digest}"


def _storage() -> Storage:
    return storages["default"]


@contextmanager
def faults_told(verb: str) -> Iterator[None]:
    """Raises Unavailable in the place of STORAGE_FAULTS."""
    try:
        yield
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the object storage could not {verb}: {error}", code="storage") from error


def store(digest: str, pieces: Iterable[bytes]) -> None:
    """Have a copy that reads back as ``digest``, whatever an interrupted attempt left under its name.

    Raises:
        Unavailable: the storage does not take it, or gives back other bytes.
    """
    storage, name = _storage(), name_of(digest)
    with faults_told("store the kernel"):
        if storage.exists(name):
            if is_whole(digest):
                return
            storage.delete(name)
        with TemporaryFile() as spool:
            for piece in pieces:
                spool.write(piece)
            spool.seek(0)
            put(storage, name, spool)
        if not is_whole(digest):
            raise OSError("what comes back is not what was written")


def is_whole(digest: str) -> bool:
    """Does the copy read back as ``digest``? Raises STORAGE_FAULTS."""
    found = hashlib.sha256()
    with _storage().open(name_of(digest), "rb") as file:
        for piece in file.chunks(CHUNK_BYTES):
            found.update(piece)
    return found.hexdigest() == digest


def delete(digest: str) -> None:
    """Delete the copy; one that is gone already is a success. Raises Unavailable."""
    with faults_told("delete the kernel"):
        try:
            _storage().delete(name_of(digest))
        except FileNotFoundError:
            return


class Reader:
    """Chunks of one copy, by index. The file is opened at the first; close it."""

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self._file: IO[Any] | None = None

    def chunk(self, index: int) -> bytes:
        """The bytes at the place of chunk ``index``, unchecked. Raises Unavailable."""
        with faults_told("read the kernel"):
            if self._file is None:
                self._file = _storage().open(name_of(self._digest), "rb")
            self._file.seek(index * CHUNK_BYTES)
            return bytes(self._file.read(CHUNK_BYTES))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
