"""Gates are data: each condition alone can close its gate, and what was not measured does not pass."""

import json
import math
from typing import Any

import pytest

from apps.morphogenesis.gates import FIXED_THRESHOLDS, GATES, TRUE, judge
from apps.morphogenesis.lifecycle import Gate
from apps.morphogenesis.settings import GrowthSettings

THRESHOLDS: dict[str, Any] = {name: getattr(GrowthSettings(), name) for name in GrowthSettings.__dataclass_fields__} | {
    "rent_due": 0.0005
}

PASSING: dict[Gate, dict[str, Any]] = {
    Gate.G0: {
        "kernel_intact": True,
        "contract_fits": True,
        "slot_free": True,
        "group_free": True,
        "parameters_after": 100,
        "birth_difference": 0.0,
    },
    Gate.G1: {"at_epoch_boundary": True},
    Gate.G2: {
        "epochs": 2,
        "gradients_finite": True,
        "gradient_ratio": 0.5,
        "gradient_peak": 2.0,
        "shadow_gain": 0.01,
    },
    Gate.GW: {"birth_difference": 0.0, "parameters_after": 100},
    Gate.G3: {"alpha_gap": 0.0, "governor_suspicions": 0},
    Gate.G4: {"steps": 100, "loss_slope": 0.3},
    Gate.G5: {"epochs": 2, "contribution_low": 0.01, "loss_growth": -0.2, "healthy": True},
}
FAILING: dict[str, Any] = {
    "kernel_intact": False,
    "contract_fits": False,
    "slot_free": False,
    "group_free": False,
    "parameters_after": 2_000_000,
    "birth_difference": 1e-3,
    "at_epoch_boundary": False,
    "epochs": 0,
    "gradients_finite": False,
    "gradient_ratio": 0.01,
    "gradient_peak": 1e4,
    "shadow_gain": 0.0,
    "alpha_gap": 0.1,
    "governor_suspicions": 1,
    "steps": 3,
    "loss_slope": 3.0,
    "contribution_low": 0.0005,
    "loss_growth": 0.5,
    "healthy": False,
}
CONDITIONS = [(gate, condition.measure) for gate, conditions in GATES.items() for condition in conditions]


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_opens_when_every_condition_holds(gate: Gate) -> None:
    verdict = judge(gate, PASSING[gate], THRESHOLDS)
    assert verdict.passed, verdict.failures


@pytest.mark.parametrize(("gate", "measure"), CONDITIONS)
def test_each_condition_alone_closes_its_gate_and_says_why(gate: Gate, measure: str) -> None:
    verdict = judge(gate, {**PASSING[gate], measure: FAILING[measure]}, THRESHOLDS)
    assert len(verdict.failures) == 1
    assert verdict.failures[0]


@pytest.mark.parametrize(("gate", "measure"), CONDITIONS)
@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
def test_what_was_not_measured_does_not_pass(gate: Gate, measure: str, nothing: float | None) -> None:
    verdict = judge(gate, {**PASSING[gate], measure: nothing}, THRESHOLDS)
    assert not verdict.passed
    assert "not measured" in verdict.failures[0]


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_without_any_measurement_does_not_pass(gate: Gate) -> None:
    assert not judge(gate, {}, THRESHOLDS).passed


@pytest.mark.parametrize("gate", GATES)
def test_a_verdict_is_json_whatever_was_measured(gate: Gate) -> None:
    verdict = judge(gate, dict.fromkeys(PASSING[gate], math.nan), THRESHOLDS)
    assert json.dumps([verdict.measured, verdict.thresholds], allow_nan=False)


def test_every_threshold_is_a_setting_or_fixed_or_the_seeds_own_rent() -> None:
    names = {condition.threshold for conditions in GATES.values() for condition in conditions}
    assert names <= set(THRESHOLDS) | set(FIXED_THRESHOLDS)
    assert set(FIXED_THRESHOLDS) - {TRUE} <= names


def test_every_gate_of_the_life_cycle_has_conditions() -> None:
    assert set(GATES) == set(Gate)
