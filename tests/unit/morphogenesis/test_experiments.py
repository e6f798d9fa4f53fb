"""Experiments: paired, on seeds that nothing was tuned on, with the intervals they claim."""

from dataclasses import replace

import pytest

from apps.blueprints.starter import core_library
from apps.morphogenesis.experiments import (
    ARMS,
    REPORT_SEEDS,
    T_95,
    TUNING_SEEDS_FROM,
    Row,
    compare,
    differences,
    summarise,
    t_interval,
)
from benchmarks.growth import FULL, FULL_SEEDS, QUICK, QUICK_SEEDS, table

ROW = Row(
    task="digits",
    host="mlp",
    arm="grown",
    seed=0,
    test_accuracy=0.9,
    test_loss=0.3,
    parameters=100,
    train_flops=1000,
    fossilized=1,
    culled=0,
)
ACCURACIES = {"no_growth": (0.80, 0.82, 0.84), "grown": (0.90, 0.91, 0.95), "static_final": (0.91, 0.91, 0.93)}


@pytest.fixture
def rows() -> list[Row]:
    return [
        replace(ROW, arm=arm, seed=seed, test_accuracy=accuracy, train_flops=800 if arm == "grown" else 1000)
        for arm, accuracies in ACCURACIES.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def test_reporting_seeds_are_not_tuning_seeds() -> None:
    assert max(REPORT_SEEDS) < TUNING_SEEDS_FROM
    assert QUICK_SEEDS <= FULL_SEEDS <= len(REPORT_SEEDS) <= len(T_95) + 1


def test_the_quick_cases_are_part_of_the_full_ones() -> None:
    assert set(QUICK) <= set(FULL)


def test_the_interval_is_students() -> None:
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - 4.303 / 3**0.5, 2.0 + 4.303 / 3**0.5))


@pytest.mark.parametrize("count", [0, 1, 17])
def test_an_interval_that_the_table_does_not_hold_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="needs 2 to 16 values"):
        t_interval([1.0] * count)


def test_differences_are_paired_by_seed(rows: list[Row]) -> None:
    expected = differences(rows)
    assert differences(rows[::-1]) == expected
    assert [(d.left, d.right) for d in expected] == [("grown", "no_growth"), ("grown", "static_final")]
    assert expected[0].points == pytest.approx(10.0)
    assert expected[0].flops_share == pytest.approx(0.8)


def test_the_table_says_better_only_when_the_interval_clears_zero(rows: list[Row]) -> None:
    text = table({"cases": [summarise(rows)]})
    first, second = (line for line in text.splitlines() if "grown -" in line)
    assert first.endswith(": better")
    assert second.endswith(": no clear difference")


def test_the_table_says_so_where_growth_loses(rows: list[Row]) -> None:
    worse = [replace(row, test_accuracy=1.0) if row.arm == "static_final" else row for row in rows]
    worse = [replace(row, test_accuracy=0.9 + row.seed / 1000) if row.arm == "grown" else row for row in worse]
    text = table({"cases": [summarise(worse)]})
    line = next(line for line in text.splitlines() if "grown - static_final" in line)
    assert line.endswith(": worse")


def test_a_comparison_runs_each_arm_on_each_seed_and_gives_the_control_the_grown_shape() -> None:
    found = compare(
        "spirals",
        "mlp",
        core_library().values(),
        seeds=(2000, 2001),
        overrides={"epochs": 6, "growth": {"window_start": 0.0, "forced_at": 0.1, "deadline": 0.5}},
    )
    assert [(row.seed, row.arm) for row in found] == [(seed, arm) for seed in (2000, 2001) for arm in ARMS]
    by_arm = {(row.seed, row.arm): row for row in found}
    for seed in (2000, 2001):
        assert by_arm[seed, "static_final"].parameters == by_arm[seed, "grown"].parameters
