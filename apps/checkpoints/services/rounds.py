"""What beat does with checkpoints by itself: copies, moves to the archive, brings back, and verifies in turn.

A storage that is away ends the round: the next one goes on. Trouble is logged, and put into the trail once in a while.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.models import AuditEvent
from apps.checkpoints import places
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy, Location, Pack
from apps.checkpoints.selectors import runs_under
from apps.checkpoints.services import loading
from apps.checkpoints.services.archiving import archive, copy, fetch_pack, free, told
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Unavailable

log = structlog.get_logger(__name__)

AT_A_TIME = 20
"""Checkpoints that one round copies or moves at most."""
QUIET = timedelta(hours=6)
"""For how long the same trouble with the same checkpoint is not put into the trail again."""
SCRUB_BYTES = 4 * 1024**3
"""What one round of verifying reads at most."""
SCRUB_EVERY = timedelta(days=7)
SCRUB_ARCHIVED_EVERY = timedelta(days=30)
"""What is only in the object storage has to be transferred to be read."""


# --- The archive


def copy_due() -> int:
    """Copy what is not in the object storage yet, the newest first, where copies are wanted; how many were."""
    if not settings.CHECKPOINT_COPIES:
        return 0
    due = _committed_here().filter(copied_at__isnull=True).order_by("-id")[:AT_A_TIME]
    return _each(due, lambda checkpoint: copy(checkpoint=checkpoint), "copied")


def archive_due() -> int:
    """Move to the object storage what policies let leave the folder, and what was on its way; how many were.

    The newest of each run stays in the folder: the run goes on from it, and shares its objects.
    """
    begun = list(_committed_here().filter(location=Location.UPLOADING).order_by("id")[:AT_A_TIME])
    due = [*begun, *_old_enough()][:AT_A_TIME]
    return _each(due, lambda checkpoint: archive(checkpoint=checkpoint, actor=SYSTEM, reason="its policy"), "archived")


def _old_enough() -> list[Checkpoint]:
    newer = Checkpoint.objects.filter(
        Q(step__gt=OuterRef("step")) | Q(step=OuterRef("step"), pk__gt=OuterRef("pk")),
        run_id=OuterRef("run_id"),
        state=CheckpointState.COMMITTED,
    )
    found: list[Checkpoint] = []
    for policy in CheckpointPolicy.objects.filter(archive_after_hours__isnull=False).order_by("id"):
        old = Q(created_at__lt=timezone.now() - timedelta(hours=policy.archive_after_hours or 0))
        rows = _committed_here().filter(old, Exists(newer), location=Location.LOCAL, run_id__in=runs_under(policy))
        found += rows.order_by("id")[:AT_A_TIME]
    return found


def free_archived() -> int:
    """Packs that lie in the folder though only checkpoints in the object storage need them: out of it; how many were.

    A crash in the middle of a move leaves such packs, and a LOCAL checkpoint that expires and shared its objects.
    """
    with told("be asked what it holds"):
        lying = places.folder().packs()
    of_pack = Checkpoint.objects.filter(references__object__pack=OuterRef("pk"))
    archived = Pack.objects.filter(Exists(of_pack), ~Exists(of_pack.exclude(location=Location.ARCHIVED)))
    number = 0
    for pack_id in archived.filter(pk__in=lying, copied_at__isnull=False).order_by("pk").values_list("pk", flat=True):
        with suppress(Conflict), told("free the checkpoint folder"):
            number += free(pack_id)
    return number


def bring_back_needed() -> int:
    """Packs that a LOCAL checkpoint needs again after they had left the folder: into the folder; how many were."""
    needing = Checkpoint.objects.filter(
        references__object__pack=OuterRef("pk"), location=Location.LOCAL, state=CheckpointState.COMMITTED
    )
    number = 0
    for pack in Pack.objects.filter(Exists(needing), in_folder=False).order_by("pk")[:AT_A_TIME]:
        try:
            with told("bring back a pack"):
                fetch_pack(pack)
            number += 1
        except (Unavailable, Conflict, CorruptCheckpoint) as error:
            log.warning("checkpoint_pack_not_brought_back", pack=str(pack.pk), error=str(error))
    return number


def _committed_here() -> QuerySet[Checkpoint]:
    """Raises Unavailable: the folder does not answer."""
    with told("be asked which it is"):
        here = places.folder().identity
    return Checkpoint.objects.filter(store_id=here, state=CheckpointState.COMMITTED)


def _each(checkpoints: Iterable[Checkpoint], do: Callable[[Checkpoint], object], done: str) -> int:
    number = 0
    for checkpoint in checkpoints:
        try:
            do(checkpoint)
            number += 1
        except Conflict as error:
            log.info("checkpoint_passed_over", checkpoint=checkpoint.name, reason=error.detail)
        except CorruptCheckpoint as error:
            _tell(checkpoint, f"not {done}: {error}")
        except Unavailable as error:
            _tell(checkpoint, f"not {done}: {error.detail}")
            break
    return number


def _tell(checkpoint: Checkpoint, problem: str) -> None:
    log.warning("checkpoint_not_moved", checkpoint=checkpoint.name, problem=problem)
    told_of = AuditEvent.objects.filter(
        subject_type="checkpoint", subject_id=str(checkpoint.pk), type="checkpoint.moved", outcome="failure"
    )
    if told_of.filter(at__gt=timezone.now() - QUIET).exists():
        return
    with transaction.atomic():
        audit.record(type="checkpoint.moved", subject=checkpoint, actor=SYSTEM, reason=problem, outcome="failure")


# --- Verifying in turn


@dataclass(slots=True)
class Scrubbed:
    """Checkpoints of which every byte was read, raw bytes, and those that were found broken and set aside."""

    checkpoints: int = 0
    bytes: int = 0
    broken: int = 0


def scrub(*, most_bytes: int = SCRUB_BYTES) -> Scrubbed:
    """Verify what was not looked at for longest (what never was, the newest first), up to about ``most_bytes``.

    Raises:
        Unavailable: a storage does not answer; what was verified until then stays so.
    """
    scrubbed = Scrubbed()
    for checkpoint_id in _to_scrub():
        if scrubbed.bytes >= most_bytes:
            break
        checkpoint = Checkpoint.objects.get(pk=checkpoint_id)
        try:
            scrubbed.bytes += loading.verify(checkpoint=checkpoint, actor=SYSTEM).bytes
            scrubbed.checkpoints += 1
        except CorruptCheckpoint:  # it is set aside, and the trail tells of it
            scrubbed.broken += 1
        except Conflict:
            continue  # it has expired meanwhile
        except Unavailable as error:
            if error.code != loading.BAD_SECTOR:
                raise
            scrubbed.broken += 1  # those behind it are to be looked at all the same
            log.warning("checkpoint_unreadable", checkpoint=checkpoint.name, error=error.detail)
    return scrubbed


def _to_scrub() -> list[UUID]:
    now = timezone.now()
    with told("be asked which it is"):
        here = places.folder().identity
    in_reach = Q(store_id=here) | Q(copied_at__isnull=False)
    due = (
        Q(verified_at__isnull=True)
        | Q(verified_at__lt=now - SCRUB_ARCHIVED_EVERY)
        | Q(verified_at__lt=now - SCRUB_EVERY) & ~Q(location=Location.ARCHIVED)
    )
    rows = Checkpoint.objects.filter(in_reach, due, state=CheckpointState.COMMITTED)
    return list(rows.order_by(F("verified_at").asc(nulls_first=True), "-id").values_list("pk", flat=True))
