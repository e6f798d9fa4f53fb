"""The only way to kernel bytes. Today it is L3 (PostgreSQL), the truth; faster tiers go in front of it here."""

import hashlib
from collections.abc import Iterator

from django.db import transaction

from apps.core.errors import Invalid, NotFound, PayloadTooLarge
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, KernelBlob, KernelChunk


class CorruptKernel(Exception):
    """A stored chunk does not have its digest: these bytes must not be used."""

    def __init__(self, digest: str, index: int) -> None:
        super().__init__(f"chunk {index} of kernel {digest} is corrupt or missing")
        self.digest = digest
        self.index = index


class KernelStore:
    """Immutable, content-addressed blobs of at most 64 MiB, in chunks of 512 KiB that are verified one by one."""

    def put(self, data: bytes) -> str:
        """Store ``data`` and return its sha256; storing the same bytes again is a no-op.

        Raises:
            Invalid: no bytes. PayloadTooLarge: more than MAX_KERNEL_BYTES.
        """
        if not data:
            raise Invalid("a kernel cannot be empty", code="empty")
        if len(data) > MAX_KERNEL_BYTES:
            raise PayloadTooLarge(f"a kernel has at most {MAX_KERNEL_BYTES} bytes, not {len(data)}")
        digest = hashlib.sha256(data).hexdigest()
        pieces = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
        with transaction.atomic():
            _, created = KernelBlob.objects.get_or_create(
                digest=digest, defaults={"size": len(data), "chunk_count": len(pieces)}
            )
            if created:
                KernelChunk.objects.bulk_create(
                    KernelChunk(blob_id=digest, index=index, sha256=hashlib.sha256(piece).digest(), data=piece)
                    for index, piece in enumerate(pieces)
                )
        return digest

    def get(self, digest: str) -> bytes:
        """The whole blob, checked chunk by chunk and as a whole.

        Raises:
            NotFound: no such blob. CorruptKernel: what is stored is not what was put.
        """
        data = b"".join(self.stream(digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptKernel(digest, -1)
        return data

    def size(self, digest: str) -> int:
        """Bytes of the blob. Raises NotFound."""
        return self._blob(digest).size

    def stream(self, digest: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes ``[start, stop)``: one verified chunk in memory at a time, and only the chunks in that range.

        Raises:
            NotFound: no such blob (before the first piece). CorruptKernel: at the chunk that is.
        """
        blob = self._blob(digest)
        stop = blob.size if stop is None else min(stop, blob.size)
        return self._pieces(digest, start, stop)

    def _pieces(self, digest: str, start: int, stop: int) -> Iterator[bytes]:
        for index in range(start // CHUNK_BYTES, -(-stop // CHUNK_BYTES)):
            offset = index * CHUNK_BYTES
            yield self._chunk(digest, index)[max(start - offset, 0) : stop - offset]

    def _chunk(self, digest: str, index: int) -> bytes:
        row = KernelChunk.objects.filter(blob_id=digest, index=index).first()
        if row is None or hashlib.sha256(row.data).digest() != bytes(row.sha256):
            raise CorruptKernel(digest, index)
        return bytes(row.data)

    def _blob(self, digest: str) -> KernelBlob:
        blob = KernelBlob.objects.filter(digest=digest).first()
        if blob is None:
            raise NotFound(f"there are no bytes with digest {digest}")
        return blob
