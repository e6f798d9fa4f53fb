"""What a run page polls: a stamp that changes when the page would, the new points, and the lanes of the seeds.

A rollback of the governor turns epochs back and their rows are measured anew, so after one the answer begins again at
the epochs that may have changed (``_rewritten_from``).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, Max, Min, Q
from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.dashboards.selectors import watch
from apps.morphogenesis import contracts
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action
from apps.morphogenesis.settings import RunSettings, SettingsError
from apps.observability.lifecycle import OPEN
from apps.training.lifecycle import FINAL_RUN_STATES, RunState
from apps.training.models import Decision, EpochMetric, RunKind, RunLease, SeedTransition, TrainingRun

MAX_POINTS = 1000
MAX_SNAPSHOTS = 500
TAKEN = (CheckpointState.COMMITTED, CheckpointState.EXPIRED)
MOVING = frozenset({RunState.QUEUED, RunState.RUNNING, RunState.RECOVERING})
CONTROL_PATIENCE = timedelta(minutes=10)

COLUMNS: dict[str, str] = {
    "epoch": "",
    "step": "steps",
    "train_loss": "nats",
    "validation_loss": "nats",
    "validation_accuracy": "share",
    "parameters": "count",
    "train_flops": "FLOP, cumulative",
    "learning_rate": "",
}
"""The measurements of an epoch, as columns, each with its unit."""

MARKS: dict[str, str] = {
    SeedState.GERMINATED: "germinate",
    SeedState.GRAFTING: "graft",
    SeedState.FOSSILIZED: "fossilise",
    SeedState.CULLED: "cull",
    SeedState.CANCELLED: "cull",
    SeedState.ROLLED_BACK: "rollback",
}
"""A seed's move -> the mark that it leaves on the events rail."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the page of a run depends on, cheaply: equal stamps, equal pages."""

    run: TrainingRun
    silent: bool
    metrics: int
    last_epoch: int
    last_at: datetime | None
    snapshots: int
    kept: int
    control: TrainingRun | None
    watch: tuple[tuple[str, int, datetime | None], ...] = ()
    """What alerts and anomalies it has: ``watch.summary``."""

    @property
    def etag(self) -> str:
        control = (self.control.pk, self.control.state, self.control.row_version) if self.control else None
        run = self.run
        parts = (
            run.pk, run.state, run.command, run.row_version, run.last_sequence, run.library is None, self.silent,
            self.metrics, self.last_epoch, self.last_at, self.snapshots, control, self.poll_after,
            self.watch,
        )  # fmt: skip
        return '"' + hashlib.sha256(repr(parts).encode()).hexdigest()[:32] + '"'

    @property
    def panels(self) -> str:
        """Changes when anything but the curves does: then the page fetches its panels again."""
        control = (self.control.state, self.control.row_version) if self.control else None
        run = self.run
        parts = (
            run.state, run.command, run.row_version, run.last_sequence, run.library is None, self.silent, control,
            self.watch,
        )  # fmt: skip
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def poll_after(self) -> int | None:
        """Milliseconds until the page should ask again; None when nothing can change any more."""
        run = self.run
        if run.state in MOVING:
            return 1000
        if run.state == RunState.PAUSED:
            return 2000
        if self.control is not None and self.control.state not in FINAL_RUN_STATES:
            return 2000
        expects_control = run.wants_control and self.control is None and run.state == RunState.COMPLETED
        if expects_control and run.ended_at and timezone.now() - run.ended_at < CONTROL_PATIENCE:
            return 2000
        return 10_000 if any(state in OPEN for state, _, _ in self.watch) else None


def stamp(run: TrainingRun) -> Stamp:
    """Five queries."""
    measured = run.metrics.aggregate(count=Count("id"), epoch=Max("epoch"), at=Max("at"))
    return Stamp(
        run=run,
        silent=is_silent(run),
        metrics=measured["count"],
        last_epoch=measured["epoch"] or 0,
        last_at=measured["at"],
        **Checkpoint.objects.filter(run_id=run.pk, state__in=TAKEN).aggregate(
            snapshots=Count("id"), kept=Count("id", filter=Q(state=CheckpointState.COMMITTED))
        ),
        control=run.controls.order_by("-id").first(),
        watch=watch.summary(run.pk),
    )


def is_silent(run: TrainingRun) -> bool:
    """Whether the worker that should be training the run has given no sign of life for longer than its lease."""
    if run.state != RunState.RUNNING:
        return False
    lease = RunLease.objects.filter(run=run).first()
    return lease is not None and lease.expires_at is not None and lease.expires_at < timezone.now()


def payload(found: Stamp, *, since: int, is_first_page: bool = True) -> dict[str, Any]:
    """The answer to a poll: points after epoch ``since`` (at most ``MAX_POINTS``; ``more`` says there are others)."""
    run = found.run
    rewritten = _rewritten_from(run) if is_first_page else None
    start = since if rewritten is None else min(since, rewritten)
    rows = list(
        EpochMetric.objects.filter(run=run, epoch__gt=start).order_by("epoch").values_list(*COLUMNS)[: MAX_POINTS + 1]
    )
    shown = rows[:MAX_POINTS]
    return {
        "state": run.state,
        "is_final": run.state in FINAL_RUN_STATES,
        "is_silent": found.silent,
        "epochs": run.epochs,
        "from": start,
        "points": {name: [row[index] for row in shown] for index, name in enumerate(COLUMNS)},
        "more": len(rows) > MAX_POINTS,
        "last_epoch": found.last_epoch,
        "last_at": found.last_at,
        "now": timezone.now(),
        "panels": found.panels,
        "poll_after": found.poll_after,
        "control": str(found.control.pk) if found.control else None,
        **lanes(run, watch.watched(run).marks() if found.watch else []),
    }


def _rewritten_from(run: TrainingRun) -> int | None:
    """The epoch after which rows may have been measured anew because a rollback turned the run back, or None."""
    earliest = Decision.objects.filter(run=run, action=Action.ROLLBACK).aggregate(epoch=Min("epoch"))["epoch"]
    if earliest is None:
        return None
    distance = run.settings.get("snapshot_epochs", 1) if isinstance(run.settings, dict) else 1
    return max(0, earliest - 1 - (distance if isinstance(distance, int) else 1))


def lanes(run: TrainingRun, marks: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """``sites`` in drawing order, ``spans`` (what a seed was, from when to when) and ``events`` for the rail, ``marks``
    among them.

    Times are (epoch, step): the page puts them on its epoch axis by the steps.
    """
    moves = list(SeedTransition.objects.filter(run=run).select_related("seed__slot").order_by("sequence")[:MAX_POINTS])
    sites = dict.fromkeys([*sites_of(run), *(move.seed.slot.site for move in moves)])
    return {"sites": list(sites), "spans": _spans(moves), "events": [*_marks(moves), *_snapshots(run.pk), *marks]}


def sites_of(run: TrainingRun) -> list[str]:
    """The sites of the host as it starts; an external run shows only those that it has used."""
    if run.kind == RunKind.EXTERNAL:
        return []
    try:
        settings = RunSettings.from_mapping(run.settings)
        return [site.name for site in contracts.sites(settings)] if settings.growth.enabled else []
    except SettingsError:
        return []


def _spans(moves: Sequence[SeedTransition]) -> list[dict[str, Any]]:
    spans: list[dict[str, Any]] = []
    open_span: dict[UUID, dict[str, Any]] = {}
    for move in moves:
        at = (move.epoch, move.step)
        if move.seed_id in open_span:
            open_span.pop(move.seed_id)["until"] = at
        if move.target == SeedState.DORMANT:
            continue
        span = {
            "seed": move.seed.number,
            "site": move.seed.slot.site,
            "operator": move.seed.operator,
            "state": move.target,
            "from": at,
            "until": None,
        }
        open_span[move.seed_id] = span
        spans.append(span)
    return spans


def _marks(moves: Sequence[SeedTransition]) -> list[dict[str, Any]]:
    return [
        {
            "kind": _mark(move),
            "at": (move.epoch, move.step),
            "seed": move.seed.number,
            "text": f"seed {move.seed.number} at {move.seed.slot.site}: {move.reason}",
        }
        for move in moves
        if _mark(move)
    ]


def _mark(move: SeedTransition) -> str:
    return MARKS.get(move.target, "")


def _snapshots(run_id: UUID) -> list[dict[str, Any]]:
    rows = (
        Checkpoint.objects.filter(run_id=run_id, state__in=TAKEN)
        .order_by("-step")
        .values_list("epoch", "step")[:MAX_SNAPSHOTS]
    )
    return [
        {"kind": "snapshot", "at": (epoch, step), "seed": None, "text": f"snapshot after epoch {epoch}"}
        for epoch, step in rows
    ]
