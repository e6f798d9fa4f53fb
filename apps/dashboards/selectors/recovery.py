"""Recoveries as people look at them: what was lost, from where it went on, and where the seconds went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count

from apps.dashboards import recovery_drawing
from apps.dashboards.recovery_drawing import TARGET_SECONDS, Stack
from apps.dashboards.selectors.checkpoints import Seconds, percentiles
from apps.dashboards.selectors.paging import newest
from apps.training.lifecycle import RecoveryState
from apps.training.models import RecoveryCause, RecoveryEvent, TrainingRun

PAGE_SIZE = 30
MEASURED = 1000
"""The newest recoveries, of which the percentiles are."""
STAGES = ("detect", "load", "restore", "validate", "resume")
MEANINGS: dict[str, str] = {
    "detect": "from the last sign of life until the loss was noticed",
    "load": "the bytes of the checkpoint were read and verified",
    "restore": "they were put into the network, the optimizer, the seeds",
    "validate": "one forward pass was compared with the one recorded",
    "resume": "until the first step after it was done",
}
CAUSES: dict[str, str] = {
    RecoveryCause.LEASE: "its worker was silent",
    RecoveryCause.FAULT: "a database or a storage was away",
    RecoveryCause.RESTORE: "set back by somebody",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One recovery. ``seconds`` by stage, None: not reached or not measured."""

    event: RecoveryEvent
    cause: str
    seconds: Mapping[str, float | None]
    stack: Stack
    skipped: Sequence[Mapping[str, Any]]

    @property
    def total(self) -> float | None:
        """None: no stage was measured."""
        return sum(took for _, took in self.known) if self.known else None

    @property
    def known(self) -> list[tuple[str, float]]:
        """The stages that were measured."""
        return [(stage, took) for stage, took in self.seconds.items() if took is not None]

    @property
    def is_late(self) -> bool:
        return self.total is not None and self.total > TARGET_SECONDS

    @property
    def bits(self) -> str:
        """What comparing the forward passes said, in words; empty: nothing was compared."""
        is_same = {"same": True, "different": False}.get(str(self.event.report.get("fingerprint")))
        if is_same is None:
            return ""
        if is_same:
            return "computes as before, bit for bit"
        if self.event.report.get("environment") == "same":
            return "does not compute as before"
        return "differs in its last digits: it is another machine or other versions"


@dataclass(frozen=True, slots=True)
class RecoveryPage:
    lines: Sequence[Line]
    next_after: UUID | None


@dataclass(frozen=True, slots=True)
class Totals:
    """``late`` of those measured took longer than TARGET_SECONDS. ``stages``: the median of each."""

    states: Mapping[str, int]
    causes: Sequence[tuple[str, int]]
    seconds: Seconds
    measured: int
    late: int
    stages: Sequence[tuple[str, str, float | None]]

    @property
    def count(self) -> int:
        return sum(self.states.values())


def page(*, run_id: UUID | None, after: UUID | None) -> RecoveryPage:
    """The newest. One query."""
    rows = RecoveryEvent.objects.select_related("run", "checkpoint")
    found = newest(rows.filter(run_id=run_id) if run_id else rows, after=after, shown=PAGE_SIZE)
    longest = max([sum(took or 0.0 for took in seconds_of(row).values()) for row in found.rows] + [0.0])
    return RecoveryPage(lines=[_line(row, longest) for row in found.rows], next_after=found.next_after)


def _line(event: RecoveryEvent, longest: float) -> Line:
    seconds = seconds_of(event)
    return Line(
        event=event,
        cause=CAUSES.get(event.cause, event.cause),
        seconds=seconds,
        stack=recovery_drawing.stack(seconds, longest=longest),
        skipped=[skipped for skipped in event.skipped if isinstance(skipped, Mapping)],
    )


def seconds_of(event: RecoveryEvent) -> dict[str, float | None]:
    return {stage: getattr(event, f"{stage}_seconds") for stage in STAGES}


def totals(run_id: UUID | None = None) -> Totals:
    """Of all runs, or of one. Two queries."""
    rows = RecoveryEvent.objects.filter(run_id=run_id) if run_id else RecoveryEvent.objects.all()
    states: dict[str, int] = {}
    causes: dict[str, int] = {}
    for state, cause, count in rows.values_list("state", "cause").annotate(Count("pk")).order_by():
        states[state] = states.get(state, 0) + count
        causes[cause] = causes.get(cause, 0) + count
    resumed = list(
        rows.filter(state=RecoveryState.RESUMED)
        .order_by("-id")
        .values_list(*(f"{s}_seconds" for s in STAGES))[:MEASURED]
    )
    sums = [sum(took or 0.0 for took in row) for row in resumed if any(took is not None for took in row)]
    return Totals(
        states=states,
        causes=[(words, causes[cause]) for cause, words in CAUSES.items() if cause in causes],
        seconds=percentiles(sums),
        measured=len(sums),
        late=sum(total > TARGET_SECONDS for total in sums),
        stages=[
            (stage, MEANINGS[stage], percentiles([row[place] for row in resumed]).p50)
            for place, stage in enumerate(STAGES)
        ],
    )


def recoveries_of(run: TrainingRun) -> list[RecoveryEvent]:
    """The newest of a run. One query."""
    return list(run.recoveries.select_related("checkpoint").order_by("-id")[:PAGE_SIZE])


def run_of(run_id: UUID) -> TrainingRun | None:
    return TrainingRun.objects.only("name").filter(pk=run_id).first()
