"""Sealing: recorded events become leaves of the Merkle tree, and its root is signed and copied out of the database.

One sealer at a time. A batch is one transaction: leaves, nodes and checkpoint appear together or not at all, so a
sealer may be killed anywhere. Copies follow after the commit and are caught up by whoever seals next.
"""

import time
from dataclasses import dataclass

import structlog
from django.core.files.storage import storages
from django.db import connection, transaction
from django.utils import timezone

from apps.audit import keys
from apps.audit import services as audit
from apps.audit.keys import KeyFault, Ring, SigningKey, sign_note
from apps.audit.merkle import Tree
from apps.audit.models import AuditCheckpoint, AuditCopy, AuditKey, AuditPending
from apps.audit.proofs import read_tile, tree_size, uncopied_checkpoints
from apps.audit.verifier import Checkpoint
from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.core.objects import STORAGE_FAULTS, put_once

log = structlog.get_logger(__name__)

LOCK = 7378697629483820
"""Of the advisory lock that the SQL function takes too (second migration)."""
BATCH = 20_000
COPIES_AT_ONCE = 100
COPIES = "audit/checkpoints"
COPIES_IN_A_FOLDER = 100_000


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one call sealed: events ``first`` to ``size``, in ``seconds``."""

    first: int
    size: int
    seconds: float

    @property
    def count(self) -> int:
        return self.size - self.first


def seal(*, most: int = BATCH) -> Sealed | None:
    """Seal what is final, batch after batch, and copy the new checkpoints; None while another process seals.

    Raises:
        KeyFault: there is no key to sign with; nothing was sealed, and recording goes on.
    """
    started, first, size = time.monotonic(), None, 0
    while True:
        batch = _seal_batch(most)
        if batch is None:
            return None
        first, size = batch[0] if first is None else first, batch[1]
        if batch[1] - batch[0] < most:
            break
    copy_checkpoints()
    return Sealed(first=first, size=size, seconds=time.monotonic() - started)


@transaction.atomic
def _seal_batch(most: int) -> tuple[int, int] | None:
    """(size before, size after); the same when nothing was final; None when another process seals."""
    if not _take_lock():
        return None
    ring = _ring()
    before = AuditCheckpoint.objects.order_by("-size").values_list("size", flat=True).first() or 0
    if AuditPending.objects.exists():
        _take_final(most)
    size = tree_size()
    if size > before:  # also leaves that somebody placed without a checkpoint
        _append_checkpoint(size, ring)
    return before, size


def _take_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        return bool(cursor.fetchone()[0])


def _take_final(most: int) -> None:
    """The database's function places leaves, and nodes over the tiles that become full."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT esper_audit_seal(%s)", [most])


def _append_checkpoint(size: int, ring: Ring) -> None:
    """Sign the tree, which must be the extension of what was signed last.

    Raises:
        TrailChanged: it is not.
    """
    now = timezone.now()
    tree = Tree(read_tile)
    try:
        root = tree.root(size)
        _require_extension(tree, size)
    except LookupError as error:
        raise TrailChanged(f"{error}: run manage.py verify_audit") from error
    signers = _admit(ring)
    extensions = [f"time {now.isoformat()}", *(f"key {key.verifier}" for key in signers[:1] if len(signers) > 1)]
    note = sign_note(Checkpoint(ring.current.name, size, root, tuple(extensions)).text, *signers)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT esper_audit_add_checkpoint(%s, %s, %s, %s, %s)",
            [size, now, root, note, ring.current.id],
        )
    transaction.on_commit(lambda: _tell(note, size))


def _tell(note: str, size: int) -> None:
    """After the commit: the log gets the whole note, and the key's folder what was signed last."""
    log.info("audit_checkpoint", size=size, note=note)
    keys.remember(note)


class TrailChanged(KeyFault):
    """The trail is not the extension of what this key's holder signed last: it is not signed."""

    code = "audit_trail_changed"


def _require_extension(tree: Tree, size: int) -> None:
    """An owner of the database who rewrote its tail must not get our signature for it."""
    last = keys.last_signed()
    if last is None:
        return
    if last.size > size or tree.root(last.size) != last.root:
        raise TrailChanged(
            f"the {size} leaves are not the continuation of the {last.size} that were signed last ({keys.folder()}): "
            "run manage.py verify_audit; if an older backup was restored on purpose, run "
            "manage.py seal_audit --trail-was-restored --reason WHY"
        )


def accept_restored_trail(*, actor: Actor, reason: str) -> None:
    """Begin anew from the trail as it is: an older backup was restored, and what was signed after it is given up.

    Raises:
        Conflict: the trail is the continuation of what was signed last, so there is nothing to accept.
    """
    last = keys.last_signed()
    if last is None or (last.size <= tree_size() and Tree(read_tile).root(last.size) == last.root):
        raise Conflict("the trail goes on from what was signed last: there is nothing to accept", code="not_restored")
    with transaction.atomic():
        audit.record(
            type="audit.restored",
            subject=("trail", "audit"),
            actor=actor,
            reason=reason,
            payload={"given_up": last.text, "leaves": tree_size()},
        )
        transaction.on_commit(keys.forget_last_signed)


# --- Keys


def _ring() -> Ring:
    """The keys to sign with. A first key is made only while none was ever used: a lost one is not replaced silently.

    Raises:
        KeyFault: the key is gone, or it is another one that no known key vouches for.
    """
    ring = keys.load()
    if ring is None:
        if AuditCheckpoint.objects.exists():
            raise KeyFault(
                f"the audit key {keys.folder() / keys.CURRENT} is gone: put it back from a backup, or begin with a new "
                "one: manage.py rotate_audit_key --old-key-is-lost --reason WHY"
            )
        ring = keys.make_first()
    if not _is_admitted(ring.current) and AuditCheckpoint.objects.exists() and not _vouches(ring):
        raise KeyFault(
            f"the audit key {ring.current.id} is not known and no known key vouches for it: give the old one as "
            "ESPER_AUDIT_KEY_PREVIOUS, or: manage.py rotate_audit_key --old-key-is-lost --reason WHY"
        )
    return ring


def _is_admitted(key: SigningKey) -> bool:
    return AuditKey.objects.filter(pk=key.id, verifier=str(key.verifier)).exists()


def _vouches(ring: Ring) -> bool:
    return ring.previous is not None and _is_admitted(ring.previous)


def _admit(ring: Ring) -> list[SigningKey]:
    """Who signs now: the current key, with the previous one beside it in the first checkpoint of the current one."""
    if _is_admitted(ring.current):
        if ring.previous is not None:
            transaction.on_commit(keys.forget_previous)
        return [ring.current]
    vouching = [ring.previous] if ring.previous is not None and _vouches(ring) else []
    _add_key(ring.current, admitted_by=vouching[0].id if vouching else "")
    transaction.on_commit(keys.forget_previous)
    return [ring.current, *vouching]


def _add_key(key: SigningKey, *, admitted_by: str) -> None:
    AuditKey.objects.create(pk=key.id, verifier=str(key.verifier), admitted_at=timezone.now(), admitted_by=admitted_by)


def rotate_key(*, actor: Actor, reason: str, old_key_is_lost: bool = False) -> str:
    """Sign with a new key from the next checkpoint on; the old one vouches for it there. Returns the new verifier.

    A key from the environment is changed there (the old one as ESPER_AUDIT_KEY_PREVIOUS); here it is only admitted when
    the old one is lost.

    Raises:
        Conflict: the old key is there although it is called lost, or the key is from the environment and it is not.
        KeyFault: the key folder cannot be read or written.
    """
    if old_key_is_lost:
        return _replace_lost_key(actor, reason)
    if keys.is_from_environment():
        raise Conflict(
            "the key is in the environment: set ESPER_AUDIT_KEY to the new one and ESPER_AUDIT_KEY_PREVIOUS to the old"
        )
    ring = keys.load()
    if ring is None and AuditCheckpoint.objects.exists():
        raise Conflict("the old key is gone: say so with --old-key-is-lost, or put it back from a backup")
    if ring is not None and ring.previous is not None and _is_admitted(ring.current):
        keys.forget_previous()  # an earlier rotation was done but for this
    with transaction.atomic():
        ring = keys.turn()  # if the commit fails, the next attempt finds it turned and records it
        audit.record(
            type="audit.key_rotated",
            subject=("key", ring.current.id),
            actor=actor,
            reason=reason,
            payload={
                "verifier": str(ring.current.verifier),
                "previous": str(ring.previous.verifier) if ring.previous else "",
            },
        )
    return str(ring.current.verifier)


def _replace_lost_key(actor: Actor, reason: str) -> str:
    ring = keys.load()
    if ring is not None and (_is_admitted(ring.current) or _vouches(ring)):
        raise Conflict(f"the old key {ring.current.id} is not lost: rotate without --old-key-is-lost")
    ring = ring or keys.make_first()
    with transaction.atomic():
        _add_key(ring.current, admitted_by="")
        audit.record(
            type="audit.key_replaced",
            subject=("key", ring.current.id),
            actor=actor,
            reason=reason,
            payload={"verifier": str(ring.current.verifier)},
        )
    return str(ring.current.verifier)


# --- Copies outside of the database


def copy_checkpoints() -> int:
    """Copy notes that have not reached the object storage yet, oldest first; returns how many were copied.

    A storage that is away is told in the log; the next call goes on where this one stopped.
    """
    storage = storages["default"]
    copied = 0
    for checkpoint in uncopied_checkpoints()[:COPIES_AT_ONCE]:
        name = copy_name(checkpoint.size)
        try:
            put_once(storage, name, checkpoint.note.encode())
        except FileExistsError as error:  # of a trail that was given up: it stays, and verify_audit names it
            log.error("audit_copy_taken", size=checkpoint.size, error=str(error))
            continue
        except STORAGE_FAULTS as error:
            log.warning("audit_copy_failed", size=checkpoint.size, error=str(error))
            break
        AuditCopy.objects.get_or_create(checkpoint=checkpoint, defaults={"name": name, "at": timezone.now()})
        copied += 1
    return copied


def copy_name(size: int) -> str:
    """Where the note of the checkpoint of ``size`` leaves lies: in folders, so that the newest is found quickly."""
    return f"{COPIES}/{size // COPIES_IN_A_FOLDER:010d}/{size:016d}.note"
