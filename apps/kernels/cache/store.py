"""The only way to kernel bytes: L3 (PostgreSQL), the truth, then L4 (object storage) for those that were moved there.

Faster tiers go in front of it here. ``mover`` moves bytes between the two.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from typing import IO

from django.db import transaction

from apps.core.errors import Conflict, Invalid, NotFound, PayloadTooLarge
from apps.kernels.cache import archive, chunks
from apps.kernels.cache.chunks import CorruptKernel
from apps.kernels.cache.references import tiers_of
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, KernelBlob, StorageTier


class KernelStore:
    """Immutable, content-addressed blobs of at most 64 MiB, in chunks of 512 KiB that are verified one by one."""

    def put(self, data: bytes) -> str:
        """Store ``data`` and return its sha256; storing the same bytes again heals what went wrong of them.

        In the transaction of whoever refers to them: the blob's row is locked until then, so that a purge that frees
        the same bytes sees the new reference.

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
        return digest

    def get(self, digest: str) -> bytes:
        """The whole blob, checked chunk by chunk and as a whole.

        Raises:
            NotFound: no such blob. CorruptKernel: what is stored is not what was put. Conflict: it is archived.
            Unavailable: only L4 has it, and does not answer.
        """
        data = b"".join(self.stream(digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptKernel(digest, -1)
        return data

    def verify(self, digest: str) -> None:
        """Read the blob through, a few MiB in memory at a time. Raises as ``get`` does."""
        found = hashlib.sha256()
        for piece in self.stream(digest):
            found.update(piece)
        if found.hexdigest() != digest:
            raise CorruptKernel(digest, -1)

    def size(self, digest: str) -> int:
        """Bytes of the blob. Raises NotFound."""
        return self._blob(digest).size

    def stream(self, digest: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes ``[start, stop)``: a few MiB in memory at a time, and only the chunks in that range.

        Raises:
            NotFound: no such blob. Conflict: it is archived (both before the first piece). CorruptKernel: at the chunk
            that is. Unavailable: only L4 has it, and does not answer.
        """
        blob = self._blob(digest)
        _require_readable(blob)
        stop = blob.size if stop is None else min(stop, blob.size)
        return pieces(digest, start, stop)

    def _blob(self, digest: str) -> KernelBlob:
        blob = KernelBlob.objects.filter(digest=digest, freed_at=None).first()
        if blob is None:
            raise NotFound(f"there are no bytes with digest {digest}")
        return blob


def digest_of(file: IO[bytes]) -> tuple[str, int]:
    """The sha256 of everything in a file, and its size in bytes."""
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(CHUNK_BYTES):
        digest.update(piece)
    return digest.hexdigest(), file.tell()


def pieces(digest: str, start: int, stop: int) -> Iterator[bytes]:
    """The bytes ``[start, stop)``, each checked chunk from L3 where it has it, else from L4. Raises CorruptKernel."""
    with closing(archive.Reader(digest)) as archived:
        for chunk in chunks.read(digest, start // CHUNK_BYTES, -(-stop // CHUNK_BYTES)):
            data = archived.chunk(chunk.index) if chunk.data is None else chunk.data
            offset = chunk.index * CHUNK_BYTES
            yield chunk.checked(digest, data)[max(start - offset, 0) : stop - offset]


def _require_readable(blob: KernelBlob) -> None:
    """Raises Conflict: only archived kernels have these bytes."""
    if blob.in_database:
        return
    tiers = tiers_of([blob.digest])[blob.digest]
    if tiers == {StorageTier.ARCHIVE}:
        raise Conflict(
            f"the bytes {blob.digest} are archived: move a kernel that has them to another tier first "
            '(POST /api/v1/kernels/{id}/tier {"tier": "warm"})',
            code="archived",
        )
