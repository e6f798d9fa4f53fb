from apps.kernels.cache.bindings import Binding
from apps.kernels.cache.chunks import CorruptKernel
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.store import KernelStore, Reading, digest_of

__all__ = ["Binding", "CorruptKernel", "KernelStore", "Reading", "TierName", "digest_of"]
