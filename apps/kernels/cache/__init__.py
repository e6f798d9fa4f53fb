from apps.kernels.cache.store import CorruptKernel, KernelStore

__all__ = ["CorruptKernel", "KernelStore"]
