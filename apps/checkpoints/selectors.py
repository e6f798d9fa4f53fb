"""Reading checkpoints: the newest, the policy of a run, what its policy lets go and when, and what all of it takes."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum
from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy, Location, Pack, StoredObject
from apps.checkpoints.needs import needed
from apps.checkpoints.retention import JUDGED, Verdict, verdicts


def checkpoints_of(run_id: UUID) -> QuerySet[Checkpoint]:
    """Newest first."""
    return Checkpoint.objects.filter(run_id=run_id).order_by("-id")


def latest_id(run_id: UUID) -> UUID | None:
    """The run's newest committed checkpoint."""
    return _committed(run_id).values_list("pk", flat=True).first()


def _committed(run_id: UUID) -> QuerySet[Checkpoint]:
    """The latest first."""
    return Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).order_by("-step", "-id")


# --- Retention


@dataclass(frozen=True, slots=True)
class Judged:
    """A checkpoint, and what becomes of it."""

    checkpoint: Checkpoint
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Preview:
    """What ``policy`` makes of the checkpoints of one run, newest first."""

    policy: CheckpointPolicy
    judged: list[Judged]

    @property
    def going(self) -> list[Judged]:
        """What would go now."""
        return [item for item in self.judged if not item.verdict.keep]

    @property
    def frees(self) -> int:
        """Bytes of objects that nothing needs any more once those have gone."""
        return sum(item.verdict.frees for item in self.going)

    @property
    def next_goes_at(self) -> datetime | None:
        """When the next one goes by itself, of those that stay for now."""
        return min((item.verdict.goes_at for item in self.judged if item.verdict.goes_at), default=None)


def policy_of(*, run_id: UUID, workspace_id: UUID | None) -> CheckpointPolicy:
    """The run's own policy, else that of all runs of its workspace, else an unsaved one with the defaults."""
    policies = CheckpointPolicy.objects.filter(Q(run_id=run_id) | Q(run_id=None), workspace=workspace_id)
    found = policies.order_by(F("run_id").asc(nulls_last=True)).first()
    return found or CheckpointPolicy(workspace_id=workspace_id)


def preview(*, run_id: UUID, policy: CheckpointPolicy | None = None, now: datetime | None = None) -> Preview:
    """What stays of a run, why, and what goes when, with the bytes that this frees. Nothing is touched.

    ``policy``: one to try instead of the run's own, saved or not.
    """
    checkpoints = list(Checkpoint.objects.filter(run_id=run_id, state__in=JUDGED))
    if policy is None:
        workspace_id = checkpoints[0].workspace_id if checkpoints else default_workspace_id()
        policy = policy_of(run_id=run_id, workspace_id=workspace_id)
    found = verdicts(checkpoints, policy, now or timezone.now(), needed(run_id))
    bytes_of = _frees(found)
    by_id = {row.pk: row for row in checkpoints}
    judged = [Judged(by_id[key], replace(verdict, frees=bytes_of.get(key, 0))) for key, verdict in found.items()]
    return Preview(policy, judged)


def runs_under(policy: CheckpointPolicy) -> list[UUID]:
    """The runs whose checkpoints ``policy`` decides on, newest first: those that have any."""
    rows = Checkpoint.objects.filter(workspace=policy.workspace_id, state__in=JUDGED)
    if policy.run_id:
        rows = rows.filter(run_id=policy.run_id)
    else:
        own = CheckpointPolicy.objects.filter(workspace=policy.workspace_id, run_id=OuterRef("run_id"))
        rows = rows.filter(~Exists(own))
    return list(rows.order_by("-run_id").values_list("run_id", flat=True).distinct())


_FREED_IN_ORDER = """
    WITH place AS (SELECT * FROM unnest(%s::uuid[]) WITH ORDINALITY AS place (checkpoint_id, position)),
    needed AS (
        SELECT object_id, max(position) AS position, count(*) AS times
        FROM checkpoints_objectreference JOIN place USING (checkpoint_id) GROUP BY object_id
    )
    SELECT place.checkpoint_id, sum(object.stored_size)::bigint
    FROM needed JOIN place USING (position) JOIN checkpoints_storedobject AS object ON object.id = needed.object_id
    WHERE needed.times = (SELECT count(*) FROM checkpoints_objectreference AS each WHERE each.object_id = object.id)
    GROUP BY place.checkpoint_id
"""
_FREED_ALONE = """
    SELECT mine.checkpoint_id, sum(object.stored_size)::bigint
    FROM checkpoints_objectreference AS mine JOIN checkpoints_storedobject AS object ON object.id = mine.object_id
    WHERE mine.checkpoint_id = ANY(%s) AND NOT EXISTS (
        SELECT FROM checkpoints_objectreference AS other
        WHERE other.object_id = mine.object_id AND other.checkpoint_id <> mine.checkpoint_id
    )
    GROUP BY mine.checkpoint_id
"""


def _frees(found: dict[UUID, Verdict]) -> dict[UUID, int]:
    """Bytes that each one frees. Those that go by themselves go one after another, and the last one that needs an
    object frees it, so that they add up; one that stays is looked at alone."""
    oldest_first = list(reversed(found.items()))
    dated = [(verdict.goes_at, key) for key, verdict in oldest_first if verdict.goes_at]
    in_order = [key for _, key in sorted(dated, key=lambda pair: pair[0])]
    alone = [key for key, verdict in oldest_first if verdict.goes_at is None]
    return _sums(_FREED_IN_ORDER, in_order) | _sums(_FREED_ALONE, alone)


def _sums(query: str, checkpoints: Iterable[UUID]) -> dict[UUID, int]:
    with connection.cursor() as cursor:
        cursor.execute(query, [list(checkpoints)])
        return dict(cursor.fetchall())


# --- What it takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of all checkpoints, or of those of one run. Bytes."""

    states: dict[str, int]
    """State -> number of checkpoints."""
    archived: int
    """Checkpoints that lie in the object storage only."""
    raw_bytes: int
    """What the states measure in memory, each counted whole."""
    stored_bytes: int
    """What their objects take in the storage, each counted once."""
    objects: int
    garbage_bytes: int
    """Of objects that nothing needs and that are not swept yet."""
    folder_bytes: int
    """Of the packs in the checkpoint folder; for one run, of those that it needs."""


def totals(*, run_id: UUID | None = None) -> Totals:
    """How many checkpoints there are, and what they take: ``raw_bytes / stored_bytes`` is what sharing and encoding
    save."""
    checkpoints, objects, packs = Checkpoint.objects.all(), StoredObject.objects.all(), Pack.objects.all()
    if run_id is not None:
        checkpoints = checkpoints.filter(run_id=run_id)
        objects = objects.filter(pk__in=StoredObject.objects.filter(references__checkpoint__run_id=run_id))
        packs = packs.filter(pk__in=objects.values("pack_id"))
    judged = checkpoints.filter(state__in=JUDGED).aggregate(
        raw=Sum("size"), archived=Count("pk", filter=Q(location=Location.ARCHIVED))
    )
    is_needed = Q(unreferenced_at__isnull=True)
    stored = objects.aggregate(
        bytes=Sum("stored_size", filter=is_needed),
        number=Count("pk", filter=is_needed),
        garbage=Sum("stored_size", filter=~is_needed),
    )
    states = checkpoints.order_by("state").values_list("state").annotate(number=Count("pk"))
    return Totals(
        states={str(state): number for state, number in states},
        archived=judged["archived"],
        raw_bytes=judged["raw"] or 0,
        stored_bytes=stored["bytes"] or 0,
        objects=stored["number"],
        garbage_bytes=stored["garbage"] or 0,
        folder_bytes=packs.filter(in_folder=True).aggregate(bytes=Sum("size"))["bytes"] or 0,
    )
