"""The object storage: files that are written whole, durably and once, and read alike from a folder and from a bucket.

Every error is one of STORAGE_FAULTS: FileNotFoundError where there is no such object, ShortObject where it ends too
early, and otherwise the storage's own (it is away, slow, full or refuses). A bucket that is gone is away.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast
from uuid import uuid4

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage

from apps.core.files import hand_to_owner, synchronise

STORAGE_FAULTS = (OSError, BotoCoreError, ClientError, Boto3Error)
"""What a storage raises when it is away, full or refuses."""
STORAGE_TIMEOUTS = (TimeoutError, ConnectTimeoutError, ReadTimeoutError)
"""Those of them that say that it did not answer in time."""

INCOMING = ".incoming"
"""The folder of a file system storage in which files lie until they are whole."""
ABANDONED_SECONDS = 24 * 3600.0
"""After which a file in it is what a killed writer left."""


class ShortObject(OSError):
    """The object ends before the range that was asked for does."""


def put(storage: Storage, name: str, data: bytes | IO[bytes]) -> None:
    """Store one file, given whole or open for reading: all of it is there afterwards, or nothing; on a file system, on
    the disk before returning.

    Raises:
        FileExistsError: the name is taken. Others of STORAGE_FAULTS: the storage did not take it.
    """
    content: File[bytes] = ContentFile(data) if isinstance(data, bytes) else File(data)
    if isinstance(storage, FileSystemStorage):
        _put_into_folder(storage, name, content)
        return
    if exists(storage, name):
        raise FileExistsError(f"the name {name} is taken")
    stored = storage.save(name, content)
    if stored != name:
        delete(storage, stored)
        raise FileExistsError(f"the name {name} is taken")


def _put_into_folder(storage: FileSystemStorage, name: str, content: "File[bytes]") -> None:
    """Written beside, synchronised, and then given its name: a crash or a full disk leaves nothing under it."""
    root, path = Path(storage.location), Path(storage.path(name))
    _remove_abandoned(root / INCOMING)
    part = f"{INCOMING}/{uuid4().hex}"
    try:
        storage.save(part, content)
        hand_to_owner(root / part, of=root)
        synchronise(root / part)
        path.parent.mkdir(parents=True, exist_ok=True)
        _give_name(root / part, path, name)
    finally:
        storage.delete(part)
    hand_to_owner(path, of=root)
    for folder in path.parents[: len(path.relative_to(root).parts)]:
        synchronise(folder)


def _give_name(part: Path, path: Path, name: str) -> None:
    try:
        os.link(part, path)  # unlike a rename, it refuses a name that is taken
    except FileExistsError as error:
        raise FileExistsError(f"the name {name} is taken") from error


def _remove_abandoned(incoming: Path) -> None:
    with suppress(FileNotFoundError):  # nothing was written yet, or another writer removes them too
        for part in incoming.iterdir():
            if part.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                part.unlink()


def put_once(storage: Storage, name: str, data: bytes) -> bool:
    """Store a file that may be there already with the same content (a repeated step); whether it is new.

    Raises:
        FileExistsError: the name holds something else. Others of STORAGE_FAULTS.
    """
    try:
        put(storage, name, data)
    except FileExistsError:
        if get(storage, name) != data:
            raise FileExistsError(f"{name} holds something else") from None
        return False
    return True


def get(storage: Storage, name: str) -> bytes:
    """The whole file. Raises FileNotFoundError or another of STORAGE_FAULTS."""
    with opened(storage, name) as file:
        return file.read()


@contextmanager
def opened(storage: Storage, name: str) -> Iterator[IO[bytes]]:
    """The file, to be read once from its beginning to its end, as it arrives.

    Raises:
        FileNotFoundError or another of STORAGE_FAULTS, here and while it is read.
    """
    if _is_bucket(storage):
        from apps.core import buckets

        with buckets.opened(storage, name) as body:
            yield body
        return
    with storage.open(name, "rb") as file:
        yield cast("IO[bytes]", file)


def read_range(storage: Storage, name: str, start: int, stop: int) -> bytes:
    """The bytes ``[start, stop)``, and no others are read for it.

    Raises:
        ShortObject: there are fewer. FileNotFoundError or another of STORAGE_FAULTS.
    """
    if not 0 <= start < stop:
        raise ValueError(f"[{start}, {stop}) is no range")
    try:
        data = _range(storage, name, start, stop)
    except EOFError:
        data = b""
    if len(data) != stop - start:
        raise ShortObject(f"{name} ends before byte {stop}")
    return data


def _range(storage: Storage, name: str, start: int, stop: int) -> bytes:
    if _is_bucket(storage):
        from apps.core import buckets

        with buckets.opened(storage, name, byte_range=(start, stop)) as body:
            return body.read()  # without a number: botocore tells a connection that ended early only then
    with storage.open(name, "rb") as file:
        file.seek(start)
        return bytes(file.read(stop - start))


def size(storage: Storage, name: str) -> int:
    """Bytes of the file. Raises FileNotFoundError or another of STORAGE_FAULTS."""
    if _is_bucket(storage):
        from apps.core import buckets

        return buckets.size(storage, name)
    return storage.size(name)


def exists(storage: Storage, name: str) -> bool:
    """Is there such a file? A storage that cannot be asked raises one of STORAGE_FAULTS: that is not a no."""
    try:
        size(storage, name)
    except FileNotFoundError:
        return False
    return True


def delete(storage: Storage, name: str) -> None:
    """Delete the file; one that is gone is a success. Raises STORAGE_FAULTS."""
    if _is_bucket(storage):
        from apps.core import buckets

        buckets.delete(storage, name)
        return
    storage.delete(name)


def listed(storage: Storage, folder: str) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in a folder, sorted; none where there is no such folder.

    Raises:
        STORAGE_FAULTS.
    """
    try:
        folders, files = storage.listdir(folder)
    except FileNotFoundError:
        return [], []
    return sorted(folders), sorted(files)


def _is_bucket(storage: Storage) -> bool:
    """Is it django-storages' S3? Its module takes long to import: ``buckets`` is imported where there is one."""
    return hasattr(storage, "bucket_name")
