"""The tables of kernels: what they are, their bytes and cache, their aliases, lineage, tags and retirement."""

from apps.kernels.models.aliases import AliasPeriod, KernelAlias
from apps.kernels.models.blobs import CHUNK_BYTES, MAX_KERNEL_BYTES, KernelBlob, KernelChunk
from apps.kernels.models.cache import AccessBatch, BlobAccess, CacheOutbox, CachePlan, CachePlanKind, OutboxKind
from apps.kernels.models.kernel import FieldReport, Kernel, KernelUse, KernelVariant, Pipeline, StorageTier
from apps.kernels.models.lineage import KernelLineage
from apps.kernels.models.retention import RetentionItem, RetentionPlan, RetentionPolicy
from apps.kernels.models.tags import MAX_TAG_KEYS, IndexState, TagKey, TagType

__all__ = [
    "CHUNK_BYTES",
    "MAX_KERNEL_BYTES",
    "MAX_TAG_KEYS",
    "AccessBatch",
    "AliasPeriod",
    "BlobAccess",
    "CacheOutbox",
    "CachePlan",
    "CachePlanKind",
    "FieldReport",
    "IndexState",
    "Kernel",
    "KernelAlias",
    "KernelBlob",
    "KernelChunk",
    "KernelLineage",
    "KernelUse",
    "KernelVariant",
    "OutboxKind",
    "Pipeline",
    "RetentionItem",
    "RetentionPlan",
    "RetentionPolicy",
    "StorageTier",
    "TagKey",
    "TagType",
]
