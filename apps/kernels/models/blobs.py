"""The bytes of kernels by content, in chunks (L3), and whether the object storage (L4) has them too."""

from django.db import models
from django.db.models import Q

CHUNK_BYTES = 512 * 1024
MAX_KERNEL_BYTES = 64 * 1024 * 1024


class KernelBlob(models.Model):
    """The bytes of artefacts, by content: the truth of the cache (L3). The content never changes."""

    digest = models.CharField(primary_key=True, max_length=64)
    size = models.BigIntegerField()
    chunk_count = models.PositiveIntegerField()
    in_database = models.BooleanField(default=True)
    """Its chunks are here (L3)."""
    archived_at = models.DateTimeField(null=True)
    """Since when the object storage (L4) holds a copy that was read back; NULL: it holds none."""
    freed_at = models.DateTimeField(null=True)
    """Since when nothing refers to it: its copy in L4 is deleted next, then this row."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(in_database=True) | Q(archived_at__isnull=False) | Q(freed_at__isnull=False),
                name="blob_lives_somewhere",
            ),
            models.CheckConstraint(condition=Q(size__gt=0, size__lte=MAX_KERNEL_BYTES), name="blob_size_is_bounded"),
        ]

    def __str__(self) -> str:
        return self.digest


class KernelChunk(models.Model):
    """512 KiB of a blob, with its own sha256: verified before it is used or sent. STORAGE EXTERNAL, uncompressed."""

    id = models.BigAutoField(primary_key=True)
    blob = models.ForeignKey(KernelBlob, on_delete=models.CASCADE, related_name="chunks", db_column="digest")
    index = models.PositiveIntegerField()
    sha256 = models.BinaryField()
    data = models.BinaryField(null=True)
    """NULL: these bytes are in L4 only; ``sha256`` stays, so that ranges of them can be verified."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["blob", "index"], name="chunk_once_per_blob")]

    def __str__(self) -> str:
        return f"{self.blob_id}[{self.index}]"
