"""L3: the chunks of a blob in PostgreSQL, read and written in the binary format (text costs 1.6-2.7 times as much)."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psycopg
from django.db import connection

from apps.kernels.models import KernelChunk

ROUND = 8
"""Chunks per round trip: 4 MiB is what one reader holds."""
TABLE = KernelChunk._meta.db_table
READ = f'SELECT "index", sha256, data FROM {TABLE} WHERE digest = %s AND "index" >= %s AND "index" < %s ORDER BY 1'  # noqa: S608
WRITE = (
    f'INSERT INTO {TABLE} (digest, "index", sha256, data) VALUES (%s, %s, %b, %b) '  # noqa: S608 - a name of our own
    'ON CONFLICT (digest, "index") DO UPDATE SET sha256 = EXCLUDED.sha256, data = EXCLUDED.data '
    f"WHERE ({TABLE}.sha256, {TABLE}.data) IS DISTINCT FROM (EXCLUDED.sha256, EXCLUDED.data)"
)


class CorruptKernel(Exception):
    """A stored chunk does not have its digest: these bytes must not be used."""

    def __init__(self, digest: str, index: int) -> None:
        super().__init__(f"chunk {index} of kernel {digest} is corrupt or missing")
        self.digest = digest
        self.index = index


@dataclass(frozen=True, slots=True)
class Chunk:
    """``data`` is None when only L4 has it."""

    index: int
    sha256: bytes
    data: bytes | None

    def checked(self, digest: str, data: bytes) -> bytes:
        """``data``, if it is this chunk of the blob ``digest``. Raises CorruptKernel."""
        if hashlib.sha256(data).digest() != self.sha256:
            raise CorruptKernel(digest, self.index)
        return data


def read(digest: str, first: int, last: int) -> Iterator[Chunk]:
    """Chunks ``[first, last)`` as they are stored, ROUND of them in memory at a time; the caller checks them.

    Raises:
        CorruptKernel: one is missing.
    """
    for start in range(first, last, ROUND):
        stop = min(start + ROUND, last)
        rows = _rows(digest, start, stop)
        for index in range(start, stop):
            if index - start >= len(rows) or rows[index - start][0] != index:
                raise CorruptKernel(digest, index)
            yield Chunk(*rows[index - start])


def _rows(digest: str, start: int, stop: int) -> list[tuple[int, bytes, bytes | None]]:
    connection.ensure_connection()
    # Django's own cursor binds on the client, which knows text only.
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(READ, [digest, start, stop], binary=True)
        return cursor.fetchall()


def write(digest: str, pieces: Iterable[bytes]) -> None:
    """Store the chunks of a blob, in the caller's transaction. A chunk whose bytes went to L4, or went wrong, gets them
    back; right ones are not written again."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        for index, piece in enumerate(pieces):
            cursor.execute(WRITE, [digest, index, hashlib.sha256(piece).digest(), piece])


def empty(digest: str) -> None:
    """Take the bytes away and keep what verifies them."""
    KernelChunk.objects.filter(blob_id=digest).update(data=None)
