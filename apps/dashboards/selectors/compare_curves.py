"""The curves of compared runs: each thinned to a bounded number of points, laid over one axis that they share."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Avg, Case, Count, F, IntegerField, Max, Min, Value, When
from django.utils import timezone

from apps.dashboards.charts import MARKERS
from apps.dashboards.selectors.compare import Comparison
from apps.dashboards.selectors.live import MOVING
from apps.training.models import EpochMetric, TrainingRun

POINTS = 400
"""Of one curve, at most about twice as many; a longer run is drawn by means over some epochs."""
COLUMNS = ("validation_accuracy", "validation_loss", "parameters", "train_flops")
POLL = 3000


@dataclass(frozen=True, slots=True)
class Line:
    """One run to draw: a chosen one, or the static control of one, with what it has measured so far."""

    run: TrainingRun
    number: int
    is_control: bool
    measured: int = 0
    last_epoch: int = 0
    last_at: datetime | None = None
    first_at: datetime | None = None

    @property
    def marker(self) -> str:
        return MARKERS[self.number - 1]

    @property
    def stride(self) -> int:
        """How many epochs one point stands for."""
        return max(1, self.last_epoch // POINTS)

    @property
    def since(self) -> datetime | None:
        """When its time began. A run that began anew keeps its first measurements: they are earlier then."""
        known = [moment for moment in (self.run.started_at, self.first_at) if moment]
        return min(known) if known else None


def lines(found: Comparison) -> list[Line]:
    """One query."""
    chosen = [(column.run, column.number, False) for column in found.columns]
    known = {run.pk for run, _, _ in chosen}
    chosen += [
        (column.row.control, column.number, True)
        for column in found.columns
        if column.row.control and column.row.control.pk not in known
    ]
    rows = EpochMetric.objects.filter(run__in=[run.pk for run, _, _ in chosen]).order_by()
    measured: dict[UUID, dict[str, Any]] = {
        row["run_id"]: {name: value for name, value in row.items() if name != "run_id"}
        for row in rows.values("run_id").annotate(
            measured=Count("id"), last_epoch=Max("epoch"), last_at=Max("at"), first_at=Min("at")
        )
    }
    return [
        Line(run=run, number=number, is_control=is_control, **measured.get(run.pk, {}))
        for run, number, is_control in chosen
    ]


def etag(found: Comparison, drawn: Sequence[Line]) -> str:
    parts: list[Any] = [found.choice.axis]
    parts += [
        (line.run.pk, line.run.state, line.run.row_version, line.measured, line.last_epoch, line.last_at)
        for line in drawn
    ]
    return '"' + hashlib.sha256(repr(parts).encode()).hexdigest()[:32] + '"'


def panels(drawn: Sequence[Line]) -> str:
    """Changes when the tables of the page do, but for the newest measurements."""
    parts = [(line.run.pk, line.run.state, line.is_control) for line in drawn]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def payload(found: Comparison, drawn: Sequence[Line]) -> dict[str, Any]:
    """Each line with ``x`` in the units of the axis and one list a column; a gap is a point of nulls."""
    points = _points(drawn)
    return {
        "axis": found.choice.axis,
        "lines": [
            {
                "run": str(line.run.pk),
                "number": line.number,
                "is_control": line.is_control,
                "stride": line.stride,
                **_columns(line, found.choice.axis, points.get(line.run.pk, [])),
            }
            for line in drawn
        ],
        "last_at": max((line.last_at for line in drawn if line.last_at), default=None),
        "now": timezone.now(),
        "panels": panels(drawn),
        "poll_after": POLL if any(line.run.state in MOVING for line in drawn) else None,
    }


def _points(drawn: Sequence[Line]) -> Mapping[UUID, list[dict[str, Any]]]:
    """The measurements by parts of ``stride`` epochs: means, and the last of what only grows. One query."""
    if not drawn:
        return {}
    stride = Case(*(When(run=line.run.pk, then=Value(line.stride)) for line in drawn), output_field=IntegerField())
    rows = (
        EpochMetric.objects.filter(run__in=[line.run.pk for line in drawn])
        .values("run_id", part=(F("epoch") - 1) / stride)
        .annotate(
            last=Max("epoch"),
            steps=Max("step"),
            moment=Max("at"),
            accuracy=Avg("validation_accuracy"),
            loss=Avg("validation_loss"),
            size=Max("parameters"),
            flops=Max("train_flops"),
        )
        .order_by("run_id", "part")
    )
    points: dict[UUID, list[dict[str, Any]]] = {}
    for row in rows:
        points.setdefault(row["run_id"], []).append(dict(row))
    return points


def _columns(line: Line, axis: str, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"x": [], **{name: [] for name in COLUMNS}}
    before: dict[str, Any] | None = None
    for row in rows:
        here = position(line, axis, row["last"], row["steps"], row["moment"], row["flops"])
        if columns["x"] and here <= columns["x"][-1]:
            continue  # measured anew after a rollback: time has gone on, what was counted has not
        if before is not None and row["part"] > before["part"] + 1:
            columns["x"].append((columns["x"][-1] + here) / 2)
            for name in COLUMNS:
                columns[name].append(None)
        columns["x"].append(here)
        for name, value in zip(COLUMNS, (row["accuracy"], row["loss"], row["size"], row["flops"]), strict=True):
            columns[name].append(value)
        before = row
    return columns


def position(line: Line, axis: str, epoch: int, step: int, at: datetime, flops: int) -> float:
    """Where a measurement lies on the axis, in its units: epochs, steps, minutes or GFLOP."""
    if axis == "step":
        return step
    if axis == "flops":
        return flops / 1e9
    if axis == "time":
        return round((at - (line.since or at)).total_seconds() / 60, 4)
    return epoch


def table(drawn: Sequence[Line], column: str, *, before: int, most: int) -> tuple[list[tuple[int, list[Any]]], int]:
    """Rows of (epoch, one value a line), the newest first, of the ``most`` epochs before ``before`` (0: the last ones);
    and the epoch before which there are others, or 0. One query."""
    top = max((line.last_epoch for line in drawn), default=0)
    top = min(top, before - 1) if before else top
    bottom = max(0, top - most)
    found: dict[int, dict[UUID, Any]] = {}
    rows = EpochMetric.objects.filter(run__in=[line.run.pk for line in drawn], epoch__gt=bottom, epoch__lte=top)
    for run_id, epoch, value in rows.values_list("run_id", "epoch", column):
        found.setdefault(epoch, {})[run_id] = value
    ordered = sorted(found.items(), reverse=True)
    return [(epoch, [values.get(line.run.pk) for line in drawn]) for epoch, values in ordered], bottom and bottom + 1


FILE = ("epoch", "step", "at", "train_loss", "validation_loss", "validation_accuracy", "parameters", "train_flops")
TITLES = ("run", "name", "kind", "epoch", "step", "seconds", *FILE[3:])


def file_rows(drawn: Sequence[Line]) -> Iterator[tuple[Any, ...]]:
    """Every measurement of the lines, run after run in the order of the page, in the units of storage."""
    for line in drawn:
        rows = EpochMetric.objects.filter(run=line.run).order_by("epoch").values_list(*FILE)
        for epoch, step, at, *rest in rows.iterator(chunk_size=2000):
            seconds = round((at - (line.since or at)).total_seconds(), 3)
            yield (str(line.run.pk), line.run.name, line.run.kind, epoch, step, seconds, *rest)
