"""Months that left the event store: one file each in the object storage, an event a line, as the verifier reads them.

``audit/archive/<partition>.jsonl.gz``, in the order of the tree; the compressed bytes follow from the events alone.
"""

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from typing import IO, Any, cast

import orjson
from django.core.files.storage import storages

from apps.audit.models import AuditArchive
from apps.core.objects import opened

NAME = "audit/archive/{partition}.jsonl.gz"
BLOCK = 1 << 20


def write_events(events: Iterable[dict[str, Any]], file: IO[bytes]) -> int:
    """Write exported events, compressed; returns how many."""
    count = 0
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as packed:
        for event in events:
            packed.write(orjson.dumps(event) + b"\n")
            count += 1
    return count


def archived_events(archive: AuditArchive) -> Iterator[dict[str, Any]]:
    """The events of an archived month in the order of the tree, unpacked as they are read.

    Raises:
        One of STORAGE_FAULTS: the file cannot be read. ValueError / EOFError / gzip.BadGzipFile: it is damaged.
    """
    with storages["default"].open(archive.name, "rb") as file, gzip.open(cast("IO[bytes]", file), "rb") as unpacked:
        for line in unpacked:
            yield orjson.loads(line)


def sha256_of(name: str) -> str:
    """The digest of a stored file, read in blocks. Raises one of STORAGE_FAULTS."""
    with opened(storages["default"], name) as file:
        return sha256_of_file(file)


def sha256_of_file(file: IO[bytes]) -> str:
    """The digest of what is left of an open file."""
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()
