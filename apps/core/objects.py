"""Writing to the object storage: whole, durable and under exactly the name that was asked for."""

import os
from pathlib import Path
from typing import IO

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage

STORAGE_FAULTS = (OSError, BotoCoreError, ClientError, Boto3Error)
"""What a storage raises when it is away, full or refuses."""


def put(storage: Storage, name: str, data: bytes | IO[bytes]) -> None:
    """Store one file, given whole or open for reading; on a file system, on the disk before returning.

    Raises:
        FileExistsError: the name is taken. Others of STORAGE_FAULTS: the storage did not take it.
    """
    stored = storage.save(name, ContentFile(data) if isinstance(data, bytes) else File(data))
    if stored != name:
        storage.delete(stored)
        raise FileExistsError(f"the name {name} is taken")
    if isinstance(storage, FileSystemStorage):
        hand_to_owner(Path(storage.path(name)), of=Path(storage.location))
        for path in (storage.path(name), os.path.dirname(storage.path(name))):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def hand_to_owner(path: Path, *, of: Path) -> None:
    """What root writes into a folder of another account (a command by hand) belongs to that account, with its folders.

    The workers run as that account (``esper_site.embedded.privileges``) and must be able to go on.
    """
    owner = of.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    while path != of and of in path.parents:
        os.chown(path, owner.st_uid, owner.st_gid)
        path = path.parent


def get(storage: Storage, name: str) -> bytes:
    """The whole file. Raises FileNotFoundError or another of STORAGE_FAULTS."""
    with storage.open(name, "rb") as file:
        return bytes(file.read())


def put_once(storage: Storage, name: str, data: bytes) -> bool:
    """Store a file that may be there already with the same content (a repeated step); whether it is new.

    Raises:
        FileExistsError: the name holds something else. Others of STORAGE_FAULTS.
    """
    if not storage.exists(name):
        put(storage, name, data)
        return True
    if get(storage, name) != data:
        raise FileExistsError(f"{name} holds something else")
    return False
