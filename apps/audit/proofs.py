"""Proofs from the stored tree: that an event is under a signed root, and that a root only ever grew (RFC 9162)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db.models import QuerySet

from apps.audit.canonical import plain
from apps.audit.merkle import TILE, Tree
from apps.audit.models import AuditCheckpoint, AuditCopy, AuditEvent, AuditKey, AuditLeaf, AuditNode
from apps.audit.services.recording import LEAF_COLUMNS
from apps.core.errors import Conflict, NotFound, Unavailable


def read_tile(group: int, tile: int) -> list[bytes]:
    """The stored digests of one tile, from its first on."""
    rows = AuditLeaf.objects.all() if group == 0 else AuditNode.objects.filter(group=group)
    within = rows.filter(index__gte=tile * TILE, index__lt=(tile + 1) * TILE)
    return [bytes(digest) for digest in within.order_by("index").values_list("digest", flat=True)]


def tree_size() -> int:
    """How many leaves the tree has: one more than the last one's index."""
    last = AuditLeaf.objects.order_by("-index").values_list("index", flat=True).first()
    return 0 if last is None else int(last) + 1


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The path (siblings from the leaf up) of the leaf ``index`` to the root of ``checkpoint``."""

    index: int
    checkpoint: AuditCheckpoint
    path: list[bytes]

    @property
    def size(self) -> int:
        return int(self.checkpoint.size)


@dataclass(frozen=True, slots=True)
class Consistency:
    """The path from the tree of ``first`` to that of ``second``."""

    first: AuditCheckpoint
    second: AuditCheckpoint
    path: list[bytes]


def inclusion(event: AuditEvent, *, size: int | None = None) -> Inclusion:
    """The proof of an event under the checkpoint of ``size`` leaves, by default the newest.

    Raises:
        Conflict: the event is not sealed yet, or not in that tree. NotFound: there is no such checkpoint.
    """
    index = AuditLeaf.objects.filter(event_id=event.pk, at=event.at).values_list("index", flat=True).first()
    if index is None:
        raise Conflict("this event is not sealed yet: the sealer runs every few seconds", code="not_sealed")
    checkpoint = checkpoint_of(size)
    if index >= checkpoint.size:
        raise Conflict(
            f"the event is leaf {index}: the tree of {checkpoint.size} leaves was signed before it", code="not_in_tree"
        )
    with _whole_tree():
        path = Tree(read_tile).inclusion(index, checkpoint.size)
    return Inclusion(index=index, checkpoint=checkpoint, path=path)


def consistency(*, first: int, second: int | None = None) -> Consistency:
    """The proof that the checkpoint of ``first`` leaves is the beginning of that of ``second``, by default the newest.

    Raises:
        NotFound: there is no such checkpoint. Conflict: the first is the larger one.
    """
    old, new = checkpoint_of(first), checkpoint_of(second)
    if old.size > new.size:
        raise Conflict(f"a tree of {old.size} leaves is not the beginning of one of {new.size}", code="order")
    with _whole_tree():
        path = Tree(read_tile).consistency(old.size, new.size)
    return Consistency(first=old, second=new, path=path)


@contextmanager
def _whole_tree() -> Iterator[None]:
    try:
        yield
    except LookupError as error:
        raise Unavailable(f"{error}: run manage.py verify_audit", code="tree_damaged") from error


def checkpoint_of(size: int | None) -> AuditCheckpoint:
    """The checkpoint of exactly ``size`` leaves, or the newest."""
    checkpoints = AuditCheckpoint.objects.order_by("-size")
    found = (checkpoints if size is None else checkpoints.filter(size=size)).first()
    if found is None:
        raise NotFound("nothing has been sealed yet" if size is None else f"no checkpoint was signed at {size} leaves")
    return found


def uncopied_checkpoints() -> QuerySet[AuditCheckpoint]:
    """Those whose note has not reached the object storage, oldest first: copies are made in the order of the tree."""
    last = AuditCopy.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    return AuditCheckpoint.objects.filter(size__gt=last).order_by("size")


def verifiers() -> list[str]:
    """The public keys that this trail was signed with, oldest first. Trust them only from elsewhere."""
    return list(AuditKey.objects.order_by("admitted_at").values_list("verifier", flat=True))


def exported(event: AuditEvent, index: int | None) -> dict[str, object]:
    """The event as the stand-alone verifier reads it: every column of its leaf, the leaf, and its place in the tree."""
    values = {name: plain(getattr(event, name)) for name in LEAF_COLUMNS}
    return {"index": index, **values, "leaf": bytes(event.leaf).hex()}
