"""Where the bytes of kernels live. The work is the mover's: ``apps.kernels.cache.mover``."""

from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.kernels.cache import CorruptKernel, mover
from apps.kernels.models import Kernel, StorageTier


def change_tier(*, kernel: Kernel, tier: StorageTier, actor: Actor, reason: str = "") -> Kernel:
    """Bring the bytes of a kernel and its variants to ``tier``, verified; there already: a no-op.

    Raises:
        Conflict: no bytes, corrupt ones, held by a run (cold and archive only), or being moved by somebody else.
        NotFound: the bytes are gone. Unavailable: the object storage does not answer; the kernel stays where it was.
    """
    try:
        return mover.move(kernel, to=StorageTier(tier), actor=actor, reason=reason)
    except CorruptKernel as error:
        raise Conflict(
            f"the stored bytes are corrupt and stay where they are: {error}", code="corrupt_kernel"
        ) from error
