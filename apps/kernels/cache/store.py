"""The only way to kernel bytes: L1 (memory), L2 (Redis), L3 (PostgreSQL, the truth), L4 (object storage).

    digest = KernelStore().put(data)          # in the transaction of whoever refers to it
    data = KernelStore().get(digest)
    reading = KernelStore().stream(digest)    # pieces; reading.tier: which tier the first of them came from

``reading`` finds the way of each segment; ``mover`` moves bytes between L3 and L4.
"""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from django.db import transaction

from apps.core.errors import Invalid, PayloadTooLarge
from apps.kernels.cache import accesses, chunks, outbox, reading
from apps.kernels.cache.chunks import CorruptKernel
from apps.kernels.cache.references import no_such_bytes, require_readable
from apps.kernels.cache.segments import SEGMENT_BYTES, TierAway, TierName, segment_count
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, KernelBlob


class Reading(Iterator[bytes]):
    """The bytes ``[start, stop)`` of a blob, in pieces of at most a chunk. The first of them is read when it is made.

    One segment (4 MiB) is in memory at a time.
    """

    def __init__(self, digest: str, start: int, stop: int | None) -> None:
        """Raises as ``KernelStore.get`` does."""
        self._digest = digest
        self._keep = accesses.read(digest)
        first = _small_range(digest, start, stop) or reading.read(
            digest, start // SEGMENT_BYTES, keep_in_memory=self._keep
        )
        self.tier: TierName = first.tier
        """Which tier had the first segment."""
        self.seconds: dict[TierName, float] = first.seconds
        """How long each tier was asked for it."""
        self.blob_size = first.segment.blob_size
        self._pieces = self._cut(first, start, self.blob_size if stop is None else min(stop, self.blob_size))

    def __next__(self) -> bytes:
        return next(self._pieces)

    def _cut(self, found: reading.Found, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            data, offset = found.segment.data, found.offset
            end = min(stop, offset + len(data))
            for at in range(start, end, CHUNK_BYTES):
                yield data[at - offset : min(at + CHUNK_BYTES, end) - offset]
            start = end
            if start < stop:
                found = reading.read(
                    self._digest, start // SEGMENT_BYTES, keep_in_memory=self._keep, blob_size=self.blob_size
                )


def _small_range(digest: str, start: int, stop: int | None) -> reading.Found | None:
    """The chunks of a range of at most a chunk, if they are to be had by themselves. Raises as ``KernelStore.get``."""
    if stop is None or stop - start > CHUNK_BYTES:
        return None
    return reading.read_chunks(digest, start, stop)


class KernelStore:
    """Immutable, content-addressed blobs of at most 64 MiB, in chunks of 512 KiB that are verified one by one."""

    def put(self, data: bytes) -> str:
        """Store ``data`` and return its sha256; storing the same bytes again heals what went wrong of them.

        In the transaction of whoever refers to them: the blob's row is locked until then, so that a purge that frees
        the same bytes sees the new reference. The bytes are in L3 when it commits; L2 and L4 follow (``outbox``).

        Raises:
            Invalid: no bytes. PayloadTooLarge: more than MAX_KERNEL_BYTES.
        """
        return self.put_file(BytesIO(data))

    def put_file(self, file: IO[bytes]) -> str:
        """As ``put``, of everything in ``file``, one chunk in memory at a time."""
        digest, size = digest_of(file)
        if size == 0:
            raise Invalid("a kernel cannot be empty", code="empty")
        if size > MAX_KERNEL_BYTES:
            raise PayloadTooLarge(f"a kernel has at most {MAX_KERNEL_BYTES} bytes, not {size}")
        with transaction.atomic():
            blob, created = KernelBlob.objects.select_for_update().get_or_create(
                digest=digest, defaults={"size": size, "chunk_count": -(-size // CHUNK_BYTES)}
            )
            file.seek(0)
            chunks.write(digest, iter(lambda: file.read(CHUNK_BYTES), b""))
            if created or not blob.in_database:
                # A blob that was being freed may have lost its copy in L4 already.
                archived_at = None if blob.freed_at else blob.archived_at
                KernelBlob.objects.filter(pk=digest).update(in_database=True, freed_at=None, archived_at=archived_at)
                outbox.owe_new_bytes(digest)
        return digest

    def get(self, digest: str) -> bytes:
        """The whole blob, checked chunk by chunk and as a whole.

        Raises:
            NotFound: no such blob. CorruptKernel: no tier has the bytes that were put. Conflict: it is archived.
            Unavailable: the tier that has it does not answer.
        """
        pieces = list(Reading(digest, 0, None))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(data) > CHUNK_BYTES and hashlib.sha256(data).hexdigest() != digest:  # of one chunk it is the same digest
            return self._put_right(digest)
        return data

    def stream(self, digest: str, start: int = 0, stop: int | None = None) -> Reading:
        """The bytes ``[start, stop)`` in pieces; only the segments in that range are read, and of a range of at most a
        chunk only its chunks. Raises as ``get`` does."""
        return Reading(digest, start, stop)

    def verify(self, digest: str) -> None:
        """Read what L3 and L4 have of the blob, past the copies in L1 and L2, and heal it. Raises as ``get`` does."""
        found = hashlib.sha256()
        for piece in self._truth(digest):
            found.update(piece)
        if found.hexdigest() != digest:
            self._put_right(digest)

    def _put_right(self, digest: str) -> bytes:
        """Each chunk fits the digest that L3 has of it, but together they are another blob: so L3 is wrong, and so are
        the copies that were made of it. Raises as ``get`` does."""
        reading.heal(digest)
        with transaction.atomic():
            outbox.owe_forgetting(digest)
        data = b"".join(self._truth(digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptKernel(digest, -1)
        return data

    def _truth(self, digest: str) -> Iterator[bytes]:
        """The blob segment by segment, from L3 or L4."""
        for index in range(segment_count(self.size(digest))):
            yield reading.read_truth(digest, index).segment.data

    def locate(self, digest: str) -> TierName:
        """The tier that would answer, without reading. Raises NotFound, Conflict, OperationalError."""
        found = tiers()
        if found.memory.has(digest):
            return TierName.L1
        try:
            if found.redis is not None and found.redis.has(digest):
                return TierName.L2
        except TierAway:
            pass
        blob = self._blob(digest)
        if blob.in_database:
            return TierName.L3
        require_readable(digest)
        return TierName.L4

    def size(self, digest: str) -> int:
        """Bytes of the blob. Raises NotFound, OperationalError."""
        return self._blob(digest).size

    def _blob(self, digest: str) -> KernelBlob:
        blob = KernelBlob.objects.filter(digest=digest, freed_at=None).first()
        if blob is None:
            raise no_such_bytes(digest)
        return blob


def digest_of(file: IO[bytes]) -> tuple[str, int]:
    """The sha256 of everything in a file, and its size in bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    return digest.hexdigest(), file.tell()
