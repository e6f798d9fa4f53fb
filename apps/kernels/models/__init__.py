"""The tables of kernels: what they are, their bytes, their aliases, their lineage, their tags, their retirement."""

from apps.kernels.models.aliases import AliasPeriod, KernelAlias
from apps.kernels.models.blobs import CHUNK_BYTES, MAX_KERNEL_BYTES, KernelBlob, KernelChunk
from apps.kernels.models.kernel import FieldReport, Kernel, KernelUse, KernelVariant, Pipeline, StorageTier
from apps.kernels.models.lineage import KernelLineage
from apps.kernels.models.retention import RetentionItem, RetentionPlan, RetentionPolicy
from apps.kernels.models.tags import MAX_TAG_KEYS, IndexState, TagKey, TagType

__all__ = [
    "CHUNK_BYTES",
    "MAX_KERNEL_BYTES",
    "MAX_TAG_KEYS",
    "AliasPeriod",
    "FieldReport",
    "IndexState",
    "Kernel",
    "KernelAlias",
    "KernelBlob",
    "KernelChunk",
    "KernelLineage",
    "KernelUse",
    "KernelVariant",
    "Pipeline",
    "RetentionItem",
    "RetentionPlan",
    "RetentionPolicy",
    "StorageTier",
    "TagKey",
    "TagType",
]
