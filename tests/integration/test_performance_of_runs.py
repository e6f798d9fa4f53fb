"""What completed runs are worth, what became of seeds, and which runs stand still: by the rows of runs."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.kernels.cache import stats
from apps.kernels.cache.segments import TierName
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.settings import RunSettings
from apps.observability.performance import source
from apps.observability.selectors.performance import cache_window, performance
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, RunKind, SeedTransition, TrainingRun
from tests.support.factories import RunFactory, SeedFactory, SeedTransitionFactory
from tests.support.measured import lately

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


def window() -> tuple[datetime, datetime]:
    now = timezone.now()
    return now - DAY, now + timedelta(seconds=1)


def completed(accuracy: float = 0.9, flops: int = 2 * 10**9, parameters: int = 2_000, **fields: Any) -> Any:
    result = {"test_accuracy": accuracy, "train_flops": flops, "parameters": parameters, "parameters_start": 1_000}
    fields = {"ended_at": timezone.now() - timedelta(hours=1), "result": result, **fields}
    return RunFactory(state=RunState.COMPLETED, **fields)


def control(run: Any, **fields: Any) -> Any:
    return completed(kind=RunKind.CONTROL, control_of=run, **fields)


def ended(state: SeedState, *, at: datetime | None = None, epoch: int = 5, **fields: Any) -> Any:
    seed = SeedFactory(state=state, **fields)
    move: Any = SeedTransitionFactory(seed=seed, source=SeedState.EVALUATING, target=state, epoch=epoch)
    if at is not None:
        SeedTransition.objects.filter(pk=move.pk).update(at=at)
    return seed


# --- Efficiency


def test_completed_runs_of_the_window_are_summed_up() -> None:
    completed(0.8, 2 * 10**9, 2_000)
    completed(0.9, 3 * 10**9, 4_000)
    completed(0.1, ended_at=timezone.now() - 2 * DAY)
    RunFactory(state=RunState.FAILED)

    found = source().efficiency(*window())

    assert found.runs == found.test_accuracy.n == 2
    assert found.test_accuracy.value == pytest.approx(0.85)
    assert found.accuracy_per_gflop.value == pytest.approx((0.4 + 0.3) / 2)
    assert found.parameters.value == 3_000
    assert found.growth.value == 3.0


def test_grown_runs_are_compared_with_their_static_controls() -> None:
    for gain in (0.01, 0.02, 0.03):
        run = completed(0.9 + gain, 10**9)
        control(run, accuracy=0.5)
        control(run, accuracy=0.9, flops=2 * 10**9)  # the newest counts
    completed(0.99)

    found = source().efficiency(*window())

    assert found.runs == 4, "controls do not count as runs"
    against = found.against_control
    assert (against.pairs, against.accuracy_gain.n) == (3, 3)
    assert against.accuracy_gain.value == pytest.approx(0.02)
    assert against.accuracy_gain.low < 0.02 < against.accuracy_gain.high
    assert against.compute_ratio.value == 0.5


@pytest.mark.parametrize("result", [{}, {"test_accuracy": "good"}, {"test_accuracy": True}, {"test_accuracy": None}])
def test_a_result_that_says_nothing_is_no_number(result: dict[str, Any]) -> None:
    RunFactory(state=RunState.COMPLETED, result=result, ended_at=timezone.now() - timedelta(hours=1))

    found = source().efficiency(*window())

    assert (found.runs, found.test_accuracy.n, found.accuracy_per_gflop.n) == (1, 0, 0)


# --- Adaptation


def test_what_became_of_seeds_is_counted_with_intervals() -> None:
    SeedTransitionFactory()
    for state, number in ((SeedState.FOSSILIZED, 3), (SeedState.CULLED, 4), (SeedState.ROLLED_BACK, 1)):
        for _ in range(number):
            ended(state)
    ended(SeedState.CANCELLED, at=timezone.now() - 2 * DAY)

    found = source().adaptation(*window())

    assert (found.germinated, found.ended) == (1, 8)
    assert (found.fossilised, found.culled, found.cancelled, found.rolled_back) == (3, 4, 0, 1)
    assert (found.success.value, found.rollback.value) == (3 / 8, 1 / 8)
    assert found.rollback.low < 1 / 8 < found.rollback.high


def test_kept_grafts_tell_their_gain_and_how_long_they_took() -> None:
    for gain, epoch in ((0.1, 5), (0.3, 9)):
        ended(SeedState.FOSSILIZED, outcome={"contribution": gain}, epoch=epoch)
    ended(SeedState.FOSSILIZED, outcome={"contribution": None}, epoch=13)
    ended(SeedState.CULLED, outcome={"contribution": -5.0})

    found = source().adaptation(*window())

    assert (found.gain.n, found.gain.value) == (2, pytest.approx(0.2))
    assert (found.epochs_to_fossilise.n, found.epochs_to_fossilise.value) == (3, 8.0)
    assert found.seconds_to_fossilise.value < 60


def test_fates_are_told_by_operator_and_by_kernel() -> None:
    for _ in range(3):
        ended(SeedState.ROLLED_BACK, operator="widen", kernel_name="widen-v1")
    ended(SeedState.FOSSILIZED, kernel_name="mlp-v1")

    found = source().adaptation(*window())

    assert [(fates.name, fates.ended, fates.rolled_back.value) for fates in found.operators] == [
        ("widen", 3, 1.0),
        ("residual", 1, 0.0),
    ]
    assert [(fates.name, fates.kept.value) for fates in found.kernels] == [("widen-v1", 0.0), ("mlp-v1", 1.0)]


# --- Plateaus


def training(losses: list[float], *, epochs: int = 400, **growth: Any) -> Any:
    settings = RunSettings.from_mapping({"epochs": epochs, "growth": growth}).to_dict()
    run: Any = RunFactory(state=RunState.RUNNING, epochs=epochs, settings=settings)
    EpochMetric.objects.bulk_create(
        EpochMetric(run=run, epoch=epoch, step=40 * epoch, validation_loss=loss, parameters=1, train_flops=1)
        for epoch, loss in enumerate(losses, start=1)
    )
    return run


FLAT = [0.5 + 0.001 * (-1) ** n for n in range(40)]
FALLING = [1 / (n + 1) for n in range(40)]


def test_a_run_that_neither_improves_nor_grows_is_on_a_plateau() -> None:
    run = training(FALLING + FLAT)

    (found,) = source().plateaus()

    assert (found.run_id, found.epochs, found.obstacle) == (run.pk, 30, "")
    assert found.low <= 0 <= found.high
    assert found.free_slots > 0


@pytest.mark.parametrize(
    ("growth", "obstacle"), [({"max_seeds": 0}, "growth.max_seeds"), ({"deadline": 0.25}, "growth.deadline")]
)
def test_a_plateau_names_the_setting_that_keeps_it_from_growing(growth: dict[str, Any], obstacle: str) -> None:
    training(FLAT, epochs=40, **growth)

    assert [found.obstacle for found in source().plateaus()] == [obstacle]


@pytest.mark.parametrize("losses", [FALLING, FLAT[:29]])
def test_a_run_that_improves_or_has_just_begun_is_on_none(losses: list[float]) -> None:
    training(losses)

    assert source().plateaus() == []


def test_a_run_that_grows_or_may_not_grow_is_on_none() -> None:
    growing = training(FLAT)
    SeedFactory(run=growing, state=SeedState.TRAINING)
    training(FLAT, enabled=False)
    TrainingRun.objects.filter(pk=training(FLAT).pk).update(state=RunState.PAUSED)

    assert source().plateaus() == []


# --- All of it


def test_the_window_and_what_it_takes_are_told() -> None:
    lately("esper_host_cpu_ratio", [0.2, 0.4] * 20, host="a")
    lately("esper_database_bytes", [1e9 + 1e6 * n for n in range(40)])
    lately("esper_run_samples_per_second", [100.0, 300.0], run="1")
    lately("esper_run_samples_per_second", [400.0], run="2")
    lately("esper_run_overhead_ratio", [0.02, 0.04], run="2")
    stats.count(TierName.L1, "misses", size=10)

    found = performance(hours=24)

    assert found.until - found.since == DAY
    assert [(seen.series.name, seen.found is None) for seen in found.resources] == [
        ("esper_host_cpu_ratio", True),
        ("esper_database_bytes", True),
    ]
    assert (found.samples_per_second.n, found.samples_per_second.value) == (2, 300.0)
    assert (found.overhead.n, found.overhead.value) == (1, pytest.approx(0.03))
    assert [tier.name for tier in found.cache.tiers] == [str(name) for name in TierName]
    assert found.cache.problem == ""


@pytest.mark.parametrize(("hours", "window"), [(1, "1h"), (2, "24h"), (24, "24h"), (25, "7d"), (8_000, "7d")])
def test_the_cache_answers_for_the_shortest_window_that_has_them_all(hours: int, window: str) -> None:
    assert cache_window(hours) == window


def test_many_rows_take_as_many_queries_as_few() -> None:
    counts = []
    for number in (1, 10):
        for place in range(number):
            control(completed())
            ended(SeedState.FOSSILIZED, kernel_name=f"kernel {place}")
            lately("esper_host_cpu_ratio", [0.5], host=str(place))
            lately("esper_run_samples_per_second", [1.0], run=str(place))
        performance(hours=24)
        with CaptureQueriesContext(connection) as queries:
            performance(hours=24)
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 26
