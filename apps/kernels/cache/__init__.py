from apps.kernels.cache.chunks import CorruptKernel
from apps.kernels.cache.store import KernelStore

__all__ = ["CorruptKernel", "KernelStore"]
