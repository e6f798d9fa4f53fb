"""The gates of a seed's life cycle, as data: each is a list of conditions on measured values.

A gate that could not measure does not pass: a missing or non-finite value fails its condition.
"""

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.morphogenesis.lifecycle import Gate


@dataclass(frozen=True, slots=True)
class Condition:
    """``measure`` must stand in this relation to ``threshold``. ``says`` names it to people."""

    measure: str
    relation: str
    threshold: str
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a gate found. ``failures`` are clauses for people, empty when it passed."""

    gate: Gate
    measured: Mapping[str, Any]
    thresholds: Mapping[str, Any]
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures


RELATIONS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "at least": (operator.ge, "is below"),
    "at most": (operator.le, "is above"),
    "above": (operator.gt, "is not above"),
    "is": (operator.is_, "is not"),
}

TRUE = "true"
"""The threshold of a flag."""

GATES: Mapping[Gate, tuple[Condition, ...]] = {
    Gate.G0: (
        Condition("kernel_intact", "is", TRUE, "the kernel is VALIDATED and its digest right"),
        Condition("contract_fits", "is", TRUE, "the kernel fits the site"),
        Condition("slot_free", "is", TRUE, "the slot is neither embargoed nor locked"),
        Condition("group_free", "is", TRUE, "no other seed is live in the attribution group"),
        Condition("parameters_after", "at most", "parameter_budget", "the grown net's parameters"),
        Condition("birth_difference", "at most", "identity_tolerance", "the output difference at birth"),
    ),
    Gate.G1: (Condition("at_epoch_boundary", "is", TRUE, "the epoch is over"),),
    Gate.G2: (
        Condition("epochs", "at least", "min_training_epochs", "the epochs in isolation"),
        Condition("gradients_finite", "is", TRUE, "the seed's gradients are finite"),
        Condition("gradient_ratio", "at least", "min_gradient_ratio", "the seed's share of the host's gradient"),
        Condition("gradient_peak", "at most", "max_gradient_ratio", "the largest seed/host gradient ratio"),
        Condition("shadow_gain", "above", "min_shadow_gain", "the held-out gain at full strength"),
    ),
    Gate.GW: (
        Condition("birth_difference", "at most", "identity_tolerance", "the output difference at birth"),
        Condition("parameters_after", "at most", "parameter_budget", "the grown net's parameters"),
    ),
    Gate.G3: (
        Condition("alpha_gap", "at most", "alpha_tolerance", "the distance of alpha from its target"),
        Condition("governor_suspicions", "at most", "max_suspicions", "the governor's suspicions in the epoch"),
    ),
    Gate.G4: (
        Condition("steps", "at least", "stabilize_steps", "the steps for normalisation statistics"),
        Condition("loss_slope", "at most", "max_loss_slope", "the rise of the training loss, in standard errors"),
    ),
    Gate.G5: (
        Condition("epochs", "at least", "min_eval_epochs", "the epochs under evaluation"),
        Condition("contribution_low", "above", "rent_due", "the lower bound of the seed's contribution"),
        Condition("loss_growth", "at most", "loss_tolerance", "the rise of held-out loss since germination"),
        Condition("healthy", "is", TRUE, "the seed's weights and gradients are finite"),
    ),
}

FIXED_THRESHOLDS: Mapping[str, Any] = {
    TRUE: True,
    "min_shadow_gain": 0.0,
    "alpha_tolerance": 1e-6,
    "max_suspicions": 0,
    "max_loss_slope": 2.0,
}
"""Thresholds that are not settings. The others are growth settings of the same name, or computed for the seed."""


def judge(gate: Gate, measured: Mapping[str, Any], thresholds: Mapping[str, Any]) -> Verdict:
    """Hold measured values against a gate's conditions; ``thresholds`` are the run's, by name."""
    known = {**FIXED_THRESHOLDS, **thresholds}
    conditions = GATES[gate]
    failures = [text for text in (_failure(condition, measured, known) for condition in conditions) if text]
    return Verdict(
        gate=gate,
        measured={name: value if _is_known(value) else None for name, value in measured.items()},
        thresholds={c.threshold: known[c.threshold] for c in conditions if c.threshold != TRUE},
        failures=tuple(failures),
    )


def _failure(condition: Condition, measured: Mapping[str, Any], thresholds: Mapping[str, Any]) -> str | None:
    value, threshold = measured.get(condition.measure), thresholds[condition.threshold]
    if not _is_known(value):
        return f"{condition.says}: not measured"
    holds, fails = RELATIONS[condition.relation]
    if holds(value, threshold):
        return None
    if condition.threshold == TRUE:
        return f"it does not hold that {condition.says}"
    return f"{condition.says} ({_show(value)}) {fails} {_show(threshold)}"


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
