from apps.kernels.cache.chunks import CorruptKernel
from apps.kernels.cache.store import KernelStore, digest_of

__all__ = ["CorruptKernel", "KernelStore", "digest_of"]
