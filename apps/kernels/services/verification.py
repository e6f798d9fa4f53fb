"""Reading a kernel's bytes again, to know that they are still what their digest says."""

from apps.core.actors import Actor
from apps.core.errors import Conflict, NotFound
from apps.kernels.cache import CorruptKernel, KernelStore
from apps.kernels.cache.references import digests_of
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.kernels.services.pipeline import quarantine_kernel


def verify_kernel(*, kernel: Kernel, actor: Actor, reason: str = "") -> Kernel:
    """Read all bytes of a kernel and of its variants; wrong or missing ones quarantine it. Right ones change nothing.

    Raises:
        Conflict: it has no bytes, they are archived, or it is quarantined already and they are wrong still.
        Unavailable: the object storage has them and does not answer.
    """
    if kernel.digest is None or kernel.state == KernelState.PURGED:
        raise Conflict(f"the kernel is {kernel.state} and has no bytes", code="no_binary")
    try:
        for digest in digests_of(kernel):
            KernelStore().verify(digest)
    except (CorruptKernel, NotFound) as error:
        if kernel.state == KernelState.QUARANTINED:
            raise Conflict(f"still wrong: {error}", code="corrupt_kernel") from error
        told = f"{error} ({reason})" if reason else str(error)
        return quarantine_kernel(kernel=kernel, reason=told, actor=actor)
    return kernel
