"""What completed runs are worth, what became of seeds, and which runs have stopped improving: the source that
``apps.observability.performance`` asks."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from django.db.models import Count, F, Max, Q, QuerySet, Window

from apps.core.ids import first_id
from apps.morphogenesis.contracts import sites
from apps.morphogenesis.lifecycle import LIVE_STATES, SeedState
from apps.morphogenesis.settings import RunSettings, SettingsError
from apps.observability import performance
from apps.observability.intervals import mean, share, spread
from apps.observability.performance import Adaptation, AgainstControl, Efficiency, Fates, Plateau
from apps.observability.trends import trend
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, RunKind, Seed, SeedSlot, SeedTransition, TrainingRun

MOST_RUNS = 1_000
MOST_KEPT = 5_000
"""The newest of a window are looked at."""
MOST_RUNNING = 100
MOST_KERNELS = 20
EPOCHS = 30
LEAST_IMPROVEMENT = 0.01
"""Of the held-out loss, by its line through the last EPOCHS: a run that improves less is on a plateau."""
UNKNOWN = "not in the library"
"""The kernels that external runs bring along."""
ENDS = (SeedState.FOSSILIZED, SeedState.CULLED, SeedState.CANCELLED, SeedState.ROLLED_BACK)
RESULT = ("test_accuracy", "train_flops", "parameters", "parameters_start")

Numbers = dict[str, float]


class Runs:
    """The source. A fixed number of queries each."""

    def efficiency(self, since: datetime, until: datetime) -> Efficiency:
        """Three queries."""
        completed = TrainingRun.objects.filter(state=RunState.COMPLETED, ended_at__gte=since, ended_at__lt=until)
        results = _results(completed.exclude(kind=RunKind.CONTROL))
        grown = completed.filter(kind=RunKind.INTERNAL)
        pairs = _pairs(grown)
        return Efficiency(
            runs=completed.exclude(kind=RunKind.CONTROL).count(),
            test_accuracy=spread(result.get("test_accuracy") for result in results),
            accuracy_per_gflop=spread(
                _ratio(result, "test_accuracy", result, "train_flops", 1e9) for result in results
            ),
            parameters=spread(result.get("parameters") for result in results),
            growth=spread(_ratio(result, "parameters", result, "parameters_start") for result in results),
            against_control=AgainstControl(
                pairs=len(pairs),
                accuracy_gain=mean(grown["test_accuracy"] - control["test_accuracy"] for grown, control in pairs),
                compute_ratio=spread(_ratio(grown, "train_flops", control) for grown, control in pairs),
            ),
        )

    def adaptation(self, since: datetime, until: datetime) -> Adaptation:
        """Three queries."""
        moves = _moves(since, until)
        rows = list(
            moves.filter(target__in=ENDS)
            .order_by()
            .values_list("target", "seed__operator", "seed__kernel_id", "seed__kernel_name")
            .annotate(Count("pk"))
        )
        fates: Counter[str] = Counter()
        for target, _, _, _, seeds in rows:
            fates[target] += seeds
        ended = fates.total()
        kept = list(
            moves.filter(target=SeedState.FOSSILIZED)
            .order_by("-pk")
            .values_list("seed__outcome__contribution", "epoch", "seed__germinated_epoch", "at", "seed__created_at")[
                :MOST_KEPT
            ]
        )
        return Adaptation(
            germinated=moves.filter(target=SeedState.GERMINATED).count(),
            ended=ended,
            fossilised=fates[SeedState.FOSSILIZED],
            culled=fates[SeedState.CULLED],
            cancelled=fates[SeedState.CANCELLED],
            rolled_back=fates[SeedState.ROLLED_BACK],
            success=share(fates[SeedState.FOSSILIZED], ended),
            rollback=share(fates[SeedState.ROLLED_BACK], ended),
            gain=mean(_number(gain) for gain, *_ in kept),
            epochs_to_fossilise=spread(epoch - began for _, epoch, began, _, _ in kept),
            seconds_to_fossilise=spread((at - born).total_seconds() for *_, at, born in kept),
            operators=_grouped((operator, None, target, seeds) for target, operator, _, _, seeds in rows),
            kernels=_grouped((name or UNKNOWN, key, target, seeds) for target, _, key, name, seeds in rows)[
                :MOST_KERNELS
            ],
        )

    def plateaus(self) -> Sequence[Plateau]:
        """Of the newest running runs that may grow. Three queries."""
        running = list(
            TrainingRun.objects.filter(state=RunState.RUNNING, kind=RunKind.INTERNAL)
            .only("name", "settings", "epochs")
            .order_by("-pk")[:MOST_RUNNING]
        )
        losses, seeds = _losses(running), _seeds(running)
        found = (_plateau(run, losses.get(run.pk, []), seeds.get(run.pk, Counter())) for run in running)
        return [plateau for plateau in found if plateau is not None]


performance.register(Runs())


def _results(runs: QuerySet[TrainingRun]) -> list[Numbers]:
    columns = [f"result__{name}" for name in RESULT]
    rows = runs.order_by("-pk").values_list(*columns)[:MOST_RUNS]
    return [_known(dict(zip(RESULT, row, strict=True))) for row in rows]


def _pairs(grown: QuerySet[TrainingRun]) -> list[tuple[Numbers, Numbers]]:
    """Results of runs and of their newest completed control, where both were tested."""
    columns = [f"{prefix}result__{name}" for prefix in ("control_of__", "") for name in RESULT]
    rows = (
        TrainingRun.objects.filter(kind=RunKind.CONTROL, state=RunState.COMPLETED, control_of__in=grown)
        .order_by("-pk")
        .values_list("control_of_id", *columns)[:MOST_RUNS]
    )
    newest: dict[UUID, tuple[Numbers, Numbers]] = {}
    for run_id, *values in rows:
        halves = values[: len(RESULT)], values[len(RESULT) :]
        results = tuple(_known(dict(zip(RESULT, half, strict=True))) for half in halves)
        newest.setdefault(run_id, (results[0], results[1]))
    return [pair for pair in newest.values() if all("test_accuracy" in result for result in pair)]


def _known(values: dict[str, Any]) -> Numbers:
    """Those that are finite numbers: a client's run says of itself what it likes."""
    numbers = {name: _number(value) for name, value in values.items()}
    return {name: value for name, value in numbers.items() if value is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _ratio(above: Numbers, name: str, below: Numbers, other: str = "", unit: float = 1.0) -> float | None:
    """``name`` of the one per ``other`` (by default the same) of the other; None where one is not known."""
    divisor = below.get(other or name, 0.0) / unit
    return above[name] / divisor if name in above and divisor > 0 else None


def _moves(since: datetime, until: datetime) -> QuerySet[SeedTransition]:
    """Ids have the index that times lack; an id is made a moment before its row's time."""
    return SeedTransition.objects.filter(pk__gte=first_id(since - timedelta(minutes=5)), at__gte=since, at__lt=until)


def _grouped(rows: Iterable[tuple[str, UUID | None, str, int]]) -> list[Fates]:
    """By name, those with the most ends first."""
    groups: dict[tuple[str, UUID | None], Counter[str]] = {}
    for name, key, target, seeds in rows:
        groups.setdefault((name, key), Counter())[target] += seeds
    ordered = sorted(groups.items(), key=lambda group: (-group[1].total(), group[0][0]))
    return [
        Fates(
            name=name,
            kernel_id=key,
            ended=fates.total(),
            kept=share(fates[SeedState.FOSSILIZED], fates.total()),
            rolled_back=share(fates[SeedState.ROLLED_BACK], fates.total()),
        )
        for (name, key), fates in ordered
    ]


def _losses(runs: Sequence[TrainingRun]) -> dict[UUID, list[tuple[int, float]]]:
    """(epoch, held-out loss) of the last EPOCHS of each run."""
    rows = (
        EpochMetric.objects.filter(run__in=runs)
        .annotate(newest=Window(Max("epoch"), partition_by="run_id"))
        .filter(epoch__gt=F("newest") - EPOCHS)
        .order_by("run_id", "epoch")
        .values_list("run_id", "epoch", "validation_loss")
    )
    losses: dict[UUID, list[tuple[int, float]]] = {}
    for run_id, epoch, loss in rows:
        if loss is not None:
            losses.setdefault(run_id, []).append((epoch, loss))
    return losses


def _seeds(runs: Sequence[TrainingRun]) -> dict[UUID, Counter[str]]:
    """Run -> how many of its slots cannot be used, how many seeds it has had, and how many of them live."""
    used = (
        Q(locked=True)
        | Q(embargoed_until_epoch__isnull=False)
        | Q(seeds__state__in=(*LIVE_STATES, SeedState.FOSSILIZED))
    )
    slots = (
        SeedSlot.objects.filter(used, run__in=runs)
        .order_by()
        .values_list("run_id")
        .annotate(Count("pk", distinct=True))
    )
    seeds = Seed.objects.filter(run__in=runs).order_by().values_list("run_id")
    counts: dict[UUID, Counter[str]] = {run_id: Counter(used=number) for run_id, number in slots}
    for run_id, had, live in seeds.annotate(had=Count("pk"), live=Count("pk", filter=Q(state__in=LIVE_STATES))):
        counts.setdefault(run_id, Counter()).update(had=had, live=live)
    return counts


def _plateau(run: TrainingRun, losses: Sequence[tuple[int, float]], seeds: Counter[str]) -> Plateau | None:
    """None: the run improves, or grows, or cannot be judged yet, or has no place to grow in."""
    if len(losses) < EPOCHS or seeds["live"]:
        return None
    try:
        settings = RunSettings.from_mapping(run.settings)
    except SettingsError:
        return None
    free = len(sites(settings)) - seeds["used"]
    epochs, values = np.array(losses, dtype=float).T
    found = trend(epochs, values)
    if found is None or free <= 0 or not settings.growth.enabled:
        return None
    if -found.slope * EPOCHS >= LEAST_IMPROVEMENT * abs(found.level):
        return None
    return Plateau(
        run_id=run.pk,
        name=run.name,
        epochs=found.points,
        slope=found.slope,
        low=found.low,
        high=found.high,
        p=found.p,
        free_slots=free,
        obstacle=_obstacle(settings, int(losses[-1][0]), seeds["had"]),
    )


def _obstacle(settings: RunSettings, epoch: int, germinated: int) -> str:
    if germinated >= settings.growth.max_seeds:
        return "growth.max_seeds"
    if epoch > settings.growth.deadline * settings.epochs:
        return "growth.deadline"
    return ""
