"""Several runs beside each other: which ones, in which settings they differ, and what each came to."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db.models import OuterRef, Subquery
from django.http import QueryDict

from apps.core.ids import parse_id
from apps.dashboards.charts import MARKERS
from apps.dashboards.numbers import percent
from apps.dashboards.selectors import runs as listed
from apps.dashboards.selectors.runs import RunRow
from apps.morphogenesis.lifecycle import SeedState
from apps.observability.intervals import Mean, mean
from apps.training import selectors as training
from apps.training.models import EpochMetric, RunKind, TrainingRun

FEWEST, MOST = 2, 8
CHOICES = 50
"""How many runs, the newest, are offered to be added."""
CONTROLS_UP_TO = 4
"""So many runs are drawn with their static controls unless the address says otherwise: at most eight lines."""
AXES: dict[str, str] = {"epoch": "epoch", "step": "step", "time": "minutes since the start", "flops": "training GFLOP"}
"""What the curves can be laid over, each with the title of its axis."""
OF_A_RUN = ("task", "host", "seed", "epochs", "library_source", "kind")
"""What decides a run besides its settings."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the query string asks for: ``run`` once a run, in the order of the curves' colours."""

    ids: Sequence[UUID] = ()
    unreadable: Sequence[str] = ()
    left_out: int = 0
    """How many ids beyond ``MOST`` were given."""
    axis: str = "epoch"
    controls: bool | None = None

    @classmethod
    def parse(cls, query: QueryDict) -> "Choice":
        given = dict.fromkeys(text.strip()[:100] for text in query.getlist("run")[:200] if text.strip())
        ids = list(dict.fromkeys(key for key in map(parse_id, given) if key))
        return cls(
            ids=ids[:MOST],
            unreadable=[text.replace("\0", "") for text in given if parse_id(text) is None][:MOST],
            left_out=max(0, len(ids) - MOST),
            axis=next((axis for axis in AXES if axis == query.get("x")), "epoch"),
            controls={"1": True, "0": False}.get(query.get("controls", "")),
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """A grown run with its static control, both tested: ``gain`` is grown less static, as a share."""

    row: RunRow
    gain: float


@dataclass(frozen=True, slots=True)
class Beside:
    """One run with what its column and its line need."""

    row: RunRow
    number: int
    """1 to ``MOST``: its colour and its marker."""
    validation: float | None
    loss: float | None
    gain: float | None
    flops: int | float | None
    start: int | None
    germinated: int
    kept: int

    @property
    def run(self) -> TrainingRun:
        return self.row.run

    @property
    def marker(self) -> str:
        return MARKERS[self.number - 1]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in which the runs differ, with what each has; None: it has no such setting."""

    name: str
    values: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``unknown`` are ids that no run has."""

    choice: Choice
    columns: Sequence[Beside]
    unknown: Sequence[UUID]
    settings: Sequence[Setting]

    @property
    def is_one(self) -> bool:
        """Whether there is something to compare."""
        return len(self.columns) >= FEWEST

    @property
    def with_controls(self) -> bool:
        if self.choice.controls is not None:
            return self.choice.controls
        return len(self.columns) <= CONTROLS_UP_TO

    @property
    def has_controls(self) -> bool:
        return any(column.row.control for column in self.columns)


def comparison(choice: Choice) -> Comparison:
    """The chosen runs, those that there are. A fixed number of queries."""
    newest = EpochMetric.objects.filter(run=OuterRef("pk")).order_by("-epoch")
    chosen = training.runs().filter(pk__in=choice.ids).defer("library", "environment")
    found = {run.pk: run for run in chosen.annotate(last_flops=Subquery(newest.values("train_flops")[:1]))}
    rows = listed.rows_of([found[key] for key in choice.ids if key in found])
    columns = [_beside(row, number) for number, row in enumerate(rows, 1)]
    return Comparison(
        choice=choice,
        columns=columns,
        unknown=[key for key in choice.ids if key not in found],
        settings=differing([row.run for row in rows]),
    )


def _beside(row: RunRow, number: int) -> Beside:
    measured: Any = row.run  # annotated by training.selectors.runs
    result = row.run.result
    fates = Counter(seed.state for seed in row.seeds)
    tested, control = result.get("test_accuracy"), row.control.result.get("test_accuracy") if row.control else None
    return Beside(
        row=row,
        number=number,
        validation=measured.last_accuracy,
        loss=measured.last_loss,
        gain=None if tested is None or control is None else tested - control,
        flops=result.get("train_flops", measured.last_flops),
        start=result.get("parameters_start", measured.first_parameters),
        germinated=len(row.seeds),
        kept=fates[SeedState.FOSSILIZED],
    )


def differing(runs: Sequence[TrainingRun]) -> list[Setting]:
    """The settings in which the runs are not all alike, in the order of the first run that has each."""
    flat = [dict(_flat(_settings_of(run))) for run in runs]
    names = dict.fromkeys(name for values in flat for name in values)
    rows = [Setting(name=name, values=[values.get(name) for values in flat]) for name in names]
    return [row for row in rows if len({json.dumps(value, sort_keys=True) for value in row.values}) > 1]


def _settings_of(run: TrainingRun) -> dict[str, Any]:
    own = {name.replace("_", " "): getattr(run, name) for name in OF_A_RUN}
    settings = run.settings if isinstance(run.settings, dict) else {}
    return own | {name: value for name, value in settings.items() if name not in own}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{before}{str(key).replace('_', ' ')}"
        if members := _members(value):
            yield from _flat(members, f"{name} \u203a ")
        else:
            yield name, value


def _members(value: Any) -> Mapping[str, Any]:
    """What an object holds, or a list of objects, counted from 1; nothing: it is a plain value, or empty."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
        return {str(place): entry for place, entry in enumerate(value, start=1)}
    return {}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the pairs of grown run and static control say together: mean gain in percentage points, 95 % interval."""

    pairs: int
    gain: Mean

    @property
    def sentence(self) -> str:
        if self.pairs == 0:
            return "None of them has a tested static control, so nothing here says whether growing was worth it."
        points = f"{self.gain.value:+.1f}\u00a0pp".replace("-", "\u2212")
        if self.gain.low is None or self.gain.high is None:
            return f"One pair of grown and static net: {points} on the test set. A single pair has no interval."
        low, high = (f"{bound:+.1f}".replace("-", "\u2212") for bound in (self.gain.low, self.gain.high))
        told = (
            f"Over {self.pairs} pairs of grown and static net: {points} on the test set, 95 % interval {low} to {high}"
        )
        if self.gain.low > 0:
            return f"{told}: grown is better."
        return f"{told}: {'static is better' if self.gain.high < 0 else 'they do not tell the two apart'}."


def verdicts(columns: Sequence[Beside]) -> list[tuple[str, Verdict]]:
    """One for each kind of problem (task on host) among the grown runs: gains of different ones are not averaged."""
    grown = [column for column in columns if column.run.kind != RunKind.CONTROL]
    groups: dict[str, list[float]] = {}
    for column in grown:
        gains = groups.setdefault(f"{column.run.task}, {column.run.host}", [])
        if column.gain is not None:
            gains.append(column.gain * 100)
    return [(name, Verdict(pairs=len(gains), gain=mean(gains))) for name, gains in groups.items()]


def leaders(columns: Sequence[Beside]) -> str:
    """Which run is most accurate, smallest and cheapest, where the runs can be compared in that; else why not."""
    if len({column.run.task for column in columns}) > 1:
        return "They train on different tasks: accuracies and losses of different tasks do not compare."
    tested = all(column.row.is_test for column in columns)
    accuracies = [(column.row.accuracy if tested else column.validation, column.run.name) for column in columns]
    known = [(accuracy, name) for accuracy, name in accuracies if accuracy is not None]
    sizes = [(column.row.parameters, column.run.name) for column in columns if column.row.parameters is not None]
    if len(known) < FEWEST:
        return "Fewer than two of them have measured anything yet."
    (accuracy, best), (parameters, smallest) = max(known, key=itemgetter(0)), min(sizes, key=itemgetter(0))
    size = f"Smallest: {smallest}, {parameters:,} parameters."
    if len({found for found, _ in sizes}) == 1:
        size = f"All have {parameters:,} parameters."
    split = "on the test set" if tested else "on validation data so far"
    return f"Most accurate {split}: {best}, {percent(accuracy)}. {size}"


def to_add(chosen: Iterable[UUID]) -> list[TrainingRun]:
    """The newest runs that are not chosen yet; controls come with their runs."""
    others = TrainingRun.objects.exclude(pk__in=list(chosen)).exclude(kind=RunKind.CONTROL)
    return list(others.only("id", "name", "state").order_by("-id")[:CHOICES])
