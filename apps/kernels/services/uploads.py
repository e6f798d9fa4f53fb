"""Bytes that clients bring: uploaded whole, or named by their digest where they are here already."""

from io import BytesIO
from typing import IO

from django.db import transaction

from apps.audit.transitions import move
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid, NotFound
from apps.core.queue import enqueue_after_commit
from apps.kernels.cache import KernelStore, digest_of
from apps.kernels.lifecycle import KERNEL_LIFECYCLE, KernelState
from apps.kernels.models import Kernel
from apps.kernels.selectors import blob_for_reuse
from apps.kernels.services.pipeline import COMPILE_TASK


@transaction.atomic
def upload_binary(*, kernel: Kernel, data: bytes | IO[bytes], actor: Actor, expected_digest: str = "") -> Kernel:
    """Attach an artefact made elsewhere to a registered kernel. It is validated before any run may use it.

    A file is read chunk by chunk. The same bytes again are a no-op.

    Raises:
        Invalid: the bytes are not what their digest says. Conflict: the kernel has other bytes already.
    """
    file = BytesIO(data) if isinstance(data, bytes) else data
    digest, size = digest_of(file)
    if expected_digest and digest != expected_digest:
        raise Invalid(f"the body has sha256 {digest}, not {expected_digest}", code="digest_mismatch")
    if kernel.digest == digest:
        return kernel
    _require_registered(kernel)
    KernelStore().put_file(file)
    return _uploaded(kernel, digest, size, "uploaded", actor)


@transaction.atomic
def attach_blob(*, kernel: Kernel, digest: str, actor: Actor) -> Kernel:
    """Give a registered kernel bytes that a kernel of its workspace has: nothing is sent. They are
    validated as an upload is.

    Raises:
        NotFound: no kernel of the workspace has such bytes (any more): upload them.
        Conflict: the kernel has other bytes already.
    """
    if kernel.digest == digest:
        return kernel
    _require_registered(kernel)
    # Looked up again, and locked: a purge that frees the same bytes sees the new reference, or is over.
    blob = blob_for_reuse(digest, kernel.workspace_id, lock=True)
    if blob is None:
        raise NotFound("no kernel of this workspace has these bytes: upload them", code="no_blob")
    return _uploaded(kernel, blob.digest, blob.size, "attached by digest", actor)


def _require_registered(kernel: Kernel) -> None:
    if kernel.state != KernelState.REGISTERED:
        raise Conflict(f"the kernel is {kernel.state} and its bytes are immutable", code="immutable")


def _uploaded(kernel: Kernel, digest: str, size: int, reason: str, actor: Actor) -> Kernel:
    """The blob is locked: whoever brought the same bytes at the same time has committed by now."""
    fresh = Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)
    if fresh.digest == digest:
        return fresh
    _require_registered(fresh)
    uploaded = move(
        fresh,
        lifecycle=KERNEL_LIFECYCLE,
        to=KernelState.UPLOADED,
        event="kernel.uploaded",
        actor=actor,
        reason=reason,
        changes={"digest": digest, "size": size},
    )
    enqueue_after_commit(COMPILE_TASK, str(kernel.pk))
    return uploaded
