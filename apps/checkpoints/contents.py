"""What stands in checkpoints, for those who look: a manifest, one object, two checkpoints compared.

Broken bytes that a reader comes upon are set aside as those that a run comes upon, and answered as a fault of ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from apps.checkpoints.comparing import ComponentComparison, Side, compare
from apps.checkpoints.models import Checkpoint, ObjectReference
from apps.checkpoints.objects import read_object
from apps.checkpoints.places import Places
from apps.checkpoints.services import loading
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.manifests import Manifest
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, NotFound, Unavailable
from apps.core.objects import STORAGE_FAULTS


def manifest_of(checkpoint: Checkpoint) -> Manifest:
    """Raises Conflict: its bytes are not kept. Unavailable: they cannot be read, or are broken."""
    _require_bytes(checkpoint)
    with _set_aside(checkpoint):
        return loading.read(checkpoint)


def object_of(checkpoint: Checkpoint, digest: str) -> memoryview:
    """The raw bytes of one object that the checkpoint needs.

    Raises:
        NotFound: it needs no such object. Conflict, Unavailable: as for ``manifest_of``.
    """
    require_object(checkpoint, digest)
    with _set_aside(checkpoint):
        return read_object(Places.of_objects(checkpoint.workspace.pk, [digest]), digest)


def require_object(checkpoint: Checkpoint, digest: str) -> int:
    """The raw size (bytes) of an object that the checkpoint needs. Raises NotFound, Conflict."""
    _require_bytes(checkpoint)
    needed = ObjectReference.objects.filter(checkpoint=checkpoint, object__digest=digest)
    size = needed.values_list("object__raw_size", flat=True).first()
    if size is None:
        raise NotFound("the checkpoint has no such object", code="no_object")
    return size


def compared(*, older: Checkpoint, newer: Checkpoint) -> dict[str, ComponentComparison]:
    """Component -> what has changed. Raises Conflict, Unavailable: as for ``manifest_of``."""
    sides = []
    for checkpoint in (older, newer):
        manifest = manifest_of(checkpoint)
        sides.append(Side(manifest, Places.of(checkpoint.workspace.pk, manifest)))
    with _set_aside(older), _set_aside(newer):
        return compare(*sides)


def _require_bytes(checkpoint: Checkpoint) -> None:
    if checkpoint.state not in loading.READABLE:
        raise Conflict(f"the checkpoint is {checkpoint.state}: its bytes are not kept", code="no_bytes")


@contextmanager
def _set_aside(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except CorruptCheckpoint as error:
        loading.quarantine(checkpoint=checkpoint, problem=str(error), actor=SYSTEM)
        raise Unavailable(f"the checkpoint is broken: {error}", code="corrupt_checkpoint") from error
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the checkpoint cannot be read now: {error}", code="storage") from error
