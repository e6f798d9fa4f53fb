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
        return loading.from_either_place(checkpoint, lambda manifest, _: None)[0]


def object_of(checkpoint: Checkpoint, digest: str) -> memoryview:
    """The raw bytes of one object that the checkpoint needs.

    Raises:
        NotFound: it needs no such object. Conflict, Unavailable: as for ``manifest_of``.
    """
    require_object(checkpoint, digest)
    with _set_aside(checkpoint):
        try:
            return read_object(Places.of_objects(checkpoint.workspace.pk, [digest]), digest)
        except CorruptCheckpoint:  # the archive may have it whole, or it was moved in this moment
            _, found = loading.from_either_place(checkpoint, lambda _, source: read_object(source, digest))
            data: memoryview = found
            return data


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
    try:
        with _answering():
            return compare(_side(older), _side(newer))
    except CorruptCheckpoint:
        # Whose bytes they are shows when all are read: a sound one is not set aside for the other.
        for checkpoint in (older, newer):
            with _set_aside(checkpoint):
                loading.verify(checkpoint=checkpoint, actor=SYSTEM)
    with _answering():
        return compare(_side(older, from_archive=True), _side(newer, from_archive=True))


def _side(checkpoint: Checkpoint, *, from_archive: bool = False) -> Side:
    manifest = manifest_of(checkpoint)
    return Side(manifest, Places.of(checkpoint.workspace.pk, manifest, from_archive=from_archive))


def _require_bytes(checkpoint: Checkpoint) -> None:
    if checkpoint.state not in loading.READABLE:
        raise Conflict(f"the checkpoint is {checkpoint.state}: its bytes are not kept", code="no_bytes")


@contextmanager
def _set_aside(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        with _answering():
            yield
    except CorruptCheckpoint as error:
        loading.quarantine(checkpoint=checkpoint, problem=str(error), actor=SYSTEM)
        raise Unavailable(f"the checkpoint is broken: {error}", code="corrupt_checkpoint") from error


@contextmanager
def _answering() -> Iterator[None]:
    """Raises Unavailable in the place of STORAGE_FAULTS."""
    try:
        yield
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the checkpoint cannot be read now: {error}", code="storage") from error
