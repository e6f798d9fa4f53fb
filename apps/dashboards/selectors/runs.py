"""The list of runs: one page of rows with all that its cells show, in a fixed number of queries."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Avg, Count, F, FloatField, Q, QuerySet, Value
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce

from apps.core.ids import parse_id
from apps.dashboards.selectors.paging import newest, ranked
from apps.morphogenesis.catalogue import HOSTS, TASKS
from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert
from apps.training import selectors as training
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, RunKind, Seed, TrainingRun

PAGE_SIZE = 25
SPARK_POINTS = 32
CHOICES: dict[str, tuple[str, ...]] = {"state": tuple(RunState), "task": tuple(TASKS), "host": tuple(HOSTS)}
"""What a chip can select; any other value in a query string is ignored."""
ORDERS = ("newest", "accuracy", "parameters", "growth", "name")
"""What the list can be ordered by; the first is how it comes."""
HEAVY = ("settings", "library", "environment", "failure")


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What the query string asks for. ``chosen`` has one value a name at most; ``after`` ends the page before."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    mine: bool = False
    controls: bool = False
    text: str = ""
    order: str = ORDERS[0]
    after: UUID | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "RunFilter":
        return cls(
            chosen={name: query[name] for name, known in CHOICES.items() if query.get(name) in known},
            mine=query.get("mine") == "1",
            controls=query.get("controls") == "1",
            text=clean_text(query.get("q", "")),
            order=query["order"] if query.get("order") in ORDERS else ORDERS[0],
            after=parse_id(query.get("after", "")),
        )

    @property
    def narrows(self) -> bool:
        return bool(self.chosen or self.mine or self.text)


def clean_text(text: str) -> str:
    """Text that PostgreSQL can compare: no NUL, not endless."""
    return text.replace("\0", "").strip()[:200]


@dataclass(frozen=True, slots=True)
class SeedMark:
    number: int
    site: str
    state: str


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run with what its row shows. ``accuracy`` is the test accuracy once there is one, else validation's."""

    run: TrainingRun
    accuracy: float | None
    is_test: bool
    parameters: int | None
    grown: int | None
    seeds: Sequence[SeedMark]
    spark: Sequence[float | None]
    control: TrainingRun | None
    alerts: int
    """How many alerts about it fire."""


@dataclass(frozen=True, slots=True)
class RunPage:
    rows: Sequence[RunRow]
    next_after: UUID | None
    is_empty: bool
    """There is no run at all, whatever the filter."""


def page(wanted: RunFilter, *, viewer_id: UUID) -> RunPage:
    """The runs that fit, keyset-paged: the newest first, or in the order that was asked for."""
    fitting = _fitting(wanted, viewer_id).defer(*HEAVY)
    if wanted.order == ORDERS[0]:
        found = newest(fitting, after=wanted.after, shown=PAGE_SIZE)
    else:
        found = ranked(_with_ranks(fitting), **RANKS[wanted.order], after=wanted.after, shown=PAGE_SIZE)
    rows = rows_of(found.rows)
    return RunPage(
        rows=rows,
        next_after=found.next_after,
        is_empty=not rows and not TrainingRun.objects.exists(),
    )


RANKS: dict[str, dict[str, Any]] = {
    "accuracy": {"by": "rank_accuracy", "falls": True},
    "parameters": {"by": "rank_parameters", "falls": False},
    "growth": {"by": "rank_growth", "falls": True},
    "name": {"by": "name", "falls": False},
}


def _with_ranks(runs: QuerySet[TrainingRun]) -> QuerySet[TrainingRun]:
    """What the rows show, as numbers to order by; a run without measurements comes last in each order."""
    tested = Cast(KT("result__test_accuracy"), FloatField())
    start = Coalesce(
        Cast(KT("result__parameters_start"), FloatField()), F("first_parameters"), output_field=FloatField()
    )
    return runs.annotate(
        rank_accuracy=Coalesce(tested, F("last_accuracy"), Value(-1.0)),
        rank_parameters=Coalesce(F("last_parameters"), Value(2**62)),
        rank_growth=Coalesce(F("last_parameters") - start, Value(-(2.0**62)), output_field=FloatField()),
    )


def _fitting(wanted: RunFilter, viewer_id: UUID) -> QuerySet[TrainingRun]:
    runs = training.runs().select_related(None).select_related("owner").filter(**wanted.chosen)
    if not wanted.controls:
        runs = runs.exclude(kind=RunKind.CONTROL)
    if wanted.mine:
        runs = runs.filter(owner_id=viewer_id)
    if wanted.text:
        runs = runs.filter(text_matches(wanted.text))
    return runs


def text_matches(text: str) -> Q:
    """Runs that ``text`` finds: part of a name, or a whole id."""
    key = parse_id(text)
    return Q(name__icontains=text) | (Q(pk=key) if key else Q(pk__in=[]))


def rows_of(runs: Sequence[TrainingRun]) -> list[RunRow]:
    """Four queries, however many runs."""
    ids = [run.pk for run in runs]
    sparks, seeds, controls, alerts = _sparks(ids), _seeds(ids), _controls(ids), _alerts(ids)
    return [
        _row(
            run,
            spark=sparks.get(run.pk, []),
            seeds=seeds.get(run.pk, []),
            control=controls.get(run.pk),
            alerts=alerts.get(run.pk, 0),
        )
        for run in runs
    ]


def _row(run: TrainingRun, **beside: Any) -> RunRow:
    measured: Any = run  # annotated by training.selectors.runs
    tested = run.result.get("test_accuracy")
    now, first = measured.last_parameters, measured.first_parameters
    start = run.result.get("parameters_start", first)
    return RunRow(
        run=run,
        accuracy=measured.last_accuracy if tested is None else tested,
        is_test=tested is not None,
        parameters=now,
        grown=None if now is None or start is None else now - start,
        **beside,
    )


def _sparks(ids: Sequence[UUID]) -> dict[UUID, list[float | None]]:
    """Mean validation accuracy in up to ``SPARK_POINTS`` equal parts of the epochs so far; None: no row."""
    rows = (
        EpochMetric.objects.filter(run__in=ids)
        .values("run_id", part=F("epoch") * SPARK_POINTS / F("run__epochs"))
        .annotate(accuracy=Avg("validation_accuracy"))
        .values_list("run_id", "run__epochs", "part", "accuracy")
    )
    parts: dict[UUID, dict[int, float | None]] = {}
    for run_id, epochs, part, accuracy in rows:
        every = max(1, SPARK_POINTS // epochs)  # a short run fills only every so many of the parts
        parts.setdefault(run_id, {})[part // every] = accuracy
    return {run_id: [found.get(part) for part in range(min(found), max(found) + 1)] for run_id, found in parts.items()}


def _seeds(ids: Sequence[UUID]) -> dict[UUID, list[SeedMark]]:
    """Each seed with what became of it: its fate outlives what its slot does later."""
    marks: dict[UUID, list[SeedMark]] = {}
    for seed in Seed.objects.filter(run__in=ids).select_related("slot").order_by("number"):
        mark = SeedMark(number=seed.number, site=seed.slot.site, state=seed.standing)
        marks.setdefault(seed.run_id, []).append(mark)
    return marks


def _controls(ids: Iterable[UUID]) -> dict[UUID, TrainingRun]:
    controls = TrainingRun.objects.filter(control_of__in=ids).defer(*HEAVY).order_by("id")
    return {control.control_of_id: control for control in controls if control.control_of_id}


def _alerts(ids: Iterable[UUID]) -> dict[UUID, int]:
    firing = Alert.objects.filter(run_id__in=ids, state=AlertState.FIRING)
    return dict(firing.values_list("run_id").annotate(count=Count("id")).order_by())
