"""L3: the chunks of a blob in PostgreSQL, read and written in the binary format (text costs 1.6-2.7 times as much)."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from django.db import InterfaceError, OperationalError, connection

from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.segments import SEGMENT_CHUNKS, CorruptSegment, Segment, TierAway, TierName
from apps.kernels.models import CHUNK_BYTES, KernelBlob, KernelChunk

Answer = TypeVar("Answer")

ROUND = 8
"""Chunks per round trip: 4 MiB is what one reader holds."""
TABLE, BLOBS = KernelChunk._meta.db_table, KernelBlob._meta.db_table
READ = f'SELECT "index", sha256, data FROM {TABLE} WHERE digest = %s AND "index" >= %s AND "index" < %s ORDER BY 1'  # noqa: S608
SEGMENT = (
    f'SELECT b.size, b.archived_at IS NOT NULL, c."index", c.sha256, %s FROM {BLOBS} AS b '  # noqa: S608
    f'LEFT JOIN {TABLE} AS c ON c.digest = b.digest AND c."index" >= %%s AND c."index" < %%s '
    "WHERE b.digest = %%s AND b.freed_at IS NULL ORDER BY 3"
)
WRITE = (
    f'INSERT INTO {TABLE} (digest, "index", sha256, data) VALUES (%s, %s, %b, %b) '  # noqa: S608 - a name of our own
    'ON CONFLICT (digest, "index") DO UPDATE SET sha256 = EXCLUDED.sha256, data = EXCLUDED.data '
    f"WHERE ({TABLE}.sha256, {TABLE}.data) IS DISTINCT FROM (EXCLUDED.sha256, EXCLUDED.data)"
)


class CorruptKernel(CorruptSegment):
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


@dataclass(frozen=True, slots=True)
class Stored:
    """What L3 knows of some chunks: ``data`` of a chunk is None where only L4 has it, or where it was not asked for."""

    blob_size: int
    has_copy: bool
    """L4 has the blob too, or alone."""
    chunks: tuple[Chunk, ...]

    @property
    def digests(self) -> tuple[bytes, ...]:
        return tuple(chunk.sha256 for chunk in self.chunks)


def stored(digest: str, first: int, last: int, *, with_data: bool) -> Stored | None:
    """Chunks ``[first, last)`` of a blob, as far as it goes, in one query; None: no such blob, or it ends before.

    Raises:
        CorruptKernel: one is missing. OperationalError, InterfaceError.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        statement = SEGMENT % ("CASE WHEN b.in_database THEN c.data END" if with_data else "NULL::bytea")
        cursor.execute(statement.encode(), [first, last, digest], binary=True)
        rows = cursor.fetchall()
    if not rows or rows[0][0] <= first * CHUNK_BYTES:
        return None
    size, has_copy = rows[0][0], rows[0][1]
    for number in range(first, min(last, -(-size // CHUNK_BYTES))):
        if number - first >= len(rows) or rows[number - first][2] != number:
            raise CorruptKernel(digest, number)
    return Stored(size, has_copy, tuple(Chunk(*row[2:]) for row in rows))


class DatabaseTier:
    """L3, the truth."""

    name = TierName.L3

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker

    def get(self, digest: str, index: int) -> Segment | None:
        """None also where only L4 has the bytes. Raises TierAway, CorruptKernel."""
        return self.get_chunks(digest, index * SEGMENT_CHUNKS, (index + 1) * SEGMENT_CHUNKS)

    def get_chunks(self, digest: str, first: int, last: int) -> Segment | None:
        """As ``get``, but of chunks ``[first, last)``."""
        found = self._stored(digest, first, last, with_data=True)
        if found is None or any(chunk.data is None for chunk in found.chunks):
            return None
        data = b"".join(chunk.checked(digest, chunk.data or b"") for chunk in found.chunks)
        is_whole = len(data) == found.blob_size
        if len(data) != min(last * CHUNK_BYTES, found.blob_size) - first * CHUNK_BYTES or (
            is_whole and _sha256(data, found.digests) != digest
        ):
            raise CorruptKernel(digest, first)
        return Segment(data, found.blob_size, found.digests)

    def describe(self, digest: str, index: int) -> Stored | None:
        """Segment ``index`` without its bytes. Raises TierAway, CorruptKernel."""
        return self._stored(digest, index * SEGMENT_CHUNKS, (index + 1) * SEGMENT_CHUNKS, with_data=False)

    def has(self, digest: str) -> bool:
        """Is there such a blob, be its bytes here or in L4? Raises TierAway."""
        return self._ask(KernelBlob.objects.filter(pk=digest, freed_at=None).exists)

    def _stored(self, digest: str, first: int, last: int, *, with_data: bool) -> Stored | None:
        """Raises TierAway, CorruptKernel."""
        return self._ask(lambda: stored(digest, first, last, with_data=with_data))

    def _ask(self, query: Callable[[], Answer]) -> Answer:
        """What the database answers, with the breaker in front. Raises TierAway, and whatever else ``query`` does."""
        if connection.in_atomic_block:  # a broken transaction is its owner's: the error has to reach it as it is
            return query()
        if not self.breaker.allows():
            raise TierAway("the database did not answer lately")
        try:
            found = query()
        except (OperationalError, InterfaceError) as error:
            self.breaker.failed()
            connection.close()  # the next one connects anew
            raise TierAway(f"the database does not answer: {error}") from error
        except BaseException:
            self.breaker.succeeded()
            raise
        self.breaker.succeeded()
        return found


def _sha256(data: bytes, digests: tuple[bytes, ...]) -> str:
    """Of a whole blob, in hex: of one chunk it is known."""
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(data).hexdigest()


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
