"""What a run tells of itself while it trains, and that telling changes nothing."""

import math

import pytest

from apps.morphogenesis.library import EventList
from apps.morphogenesis.monitors import CHECK_STEPS
from apps.morphogenesis.protocols import READINGS
from tests.unit.morphogenesis.runs import Run, finished, run_of
from tests.unit.morphogenesis.support import quick_settings


class Deaf(EventList):
    """A sink that keeps no readings."""

    def reading(self, name: str, value: float) -> None:
        pass


NAME = "widen mlp"


@pytest.fixture(scope="module")
def run() -> Run:
    return finished(NAME)[0]


def test_every_reading_that_is_declared_is_told_and_no_other(run: Run) -> None:
    assert set(run.events.readings) == set(READINGS)


def test_losses_and_gradients_are_told_at_each_check_and_the_rest_after_each_epoch(run: Run) -> None:
    steps = finished(NAME)[1].step

    told = {name: len(values) for name, values in run.events.readings.items()}
    assert {told[name] for name in READINGS[:3]} == {steps // CHECK_STEPS}
    assert {told[name] for name in READINGS[3:]} == {run.settings.epochs}


def test_readings_are_finite_and_time_is_positive(run: Run) -> None:
    readings = run.events.readings

    assert all(math.isfinite(value) for values in readings.values() for value in values)
    assert min(readings["samples_per_second"]) > 0
    assert min(readings["overhead_ratio"]) > 0


def test_a_run_that_does_not_grow_tells_no_cost_of_growing() -> None:
    run = Run(quick_settings(epochs=1, growth={"enabled": False}))

    run()

    assert "live_seeds" in run.events.readings
    assert "overhead_ratio" not in run.events.readings


def test_what_is_done_with_readings_changes_no_bit(run: Run) -> None:
    deaf = run_of(NAME)
    deaf.events = Deaf()

    deaf()

    assert deaf.trainer.weights_digest == run.trainer.weights_digest
