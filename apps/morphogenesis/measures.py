"""What each gate looks at: one function per gate that measures a live seed at the end of an epoch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from apps.morphogenesis.evidence import Judged, paired_ablation
from apps.morphogenesis.governor import Governor
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.lifecycle import Gate
from apps.morphogenesis.planting import best_scale, logits_at, without
from apps.morphogenesis.seeds import Seed
from apps.morphogenesis.settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What can be looked at: the seed, the network, and ``held``, the epoch's held-out pass as the seed runs now."""

    seed: Seed
    learner: Learner
    governor: Governor
    settings: RunSettings
    held: Judged
    step: int

    @property
    def epochs(self) -> int:
        """Whole epochs that the seed has been in its state."""
        return (self.step - self.seed.state_step) // self.learner.steps_per_epoch

    @property
    def rent(self) -> float:
        """Nats per held-out sample that the seed must earn."""
        return self.settings.growth.rent * self.seed.parameters / 1000


def measure_boundary(observed: Observed) -> dict[str, Any]:
    """G1: gates are measured at the end of an epoch, and nowhere else."""
    return {"at_epoch_boundary": True}


def measure_shadow(observed: Observed) -> dict[str, Any]:
    """G2: gradients since the seed began to train, and the held-out gain were it grafted."""
    seed, learner, split = observed.seed, observed.learner, observed.learner.data.validation
    gradients, scale = seed.gradients, best_scale(learner, seed)
    grafted = learner.judge_logits(logits_at(learner, seed, split, scale), split)
    return {
        "epochs": observed.epochs,
        "gradient_readings": gradients.readings,
        "gradients_finite": gradients.finite if gradients.readings else None,
        "gradient_ratio": gradients.ratio,
        "gradient_peak": gradients.peak,
        "output_share": gradients.share,
        "scale": scale,
        "shadow_gain": observed.held.loss - grafted.loss,
    }


def measure_ramp(observed: Observed) -> dict[str, Any]:
    """G3: where alpha stands, and whether the governor noticed anything."""
    ramp = observed.seed.ramp
    return {
        "alpha": observed.seed.alpha,
        "alpha_gap": abs(ramp.target - ramp.value) if ramp else None,
        "governor_suspicions": observed.governor.suspicions,
    }


def measure_stability(observed: Observed) -> dict[str, Any]:
    """G4: steps at full strength, and the trend of the training loss over them."""
    return {
        "steps": observed.step - observed.seed.state_step,
        "loss_slope": slope_in_errors(observed.seed.losses),
    }


def measure_worth(observed: Observed) -> dict[str, Any]:
    """G5: the paired ablation. Leaves its evidence with the seed."""
    seed, learner, growth = observed.seed, observed.learner, observed.settings.growth
    with without(learner, seed):
        ablated = learner.judge(learner.data.validation)
    seed.evidence = paired_ablation(
        observed.held,
        ablated,
        confidence=growth.confidence,
        resamples=growth.bootstrap_samples,
        seed=(observed.settings.seed, seed.number, observed.step),
    )
    evidence = seed.evidence
    return {
        "epochs": observed.epochs,
        "contribution": evidence.contribution if evidence else None,
        "contribution_low": evidence.low if evidence else None,
        "contribution_high": evidence.high if evidence else None,
        "accuracy_difference": evidence.accuracy_difference if evidence else None,
        "mcnemar_p": evidence.mcnemar_p if evidence else None,
        "samples": evidence.samples if evidence else 0,
        "loss_growth": observed.held.loss - seed.loss_before,
        "healthy": seed.gradients.finite and _weights_finite(learner),
    }


MEASURES: Mapping[Gate, Callable[[Observed], dict[str, Any]]] = {
    Gate.G1: measure_boundary,
    Gate.G2: measure_shadow,
    Gate.G3: measure_ramp,
    Gate.G4: measure_stability,
    Gate.G5: measure_worth,
}
"""G0 and GW are measured where a seed germinates."""


def slope_in_errors(losses: Sequence[float]) -> float | None:
    """Least-squares slope of the losses in its standard errors: above 2 they rise for certain. None below 3 losses."""
    count = len(losses)
    if count < 3 or not all(map(math.isfinite, losses)):
        return None
    x = np.arange(count) - (count - 1) / 2
    y = np.asarray(losses) - np.mean(losses)
    spread = float(x @ x)
    slope = float(x @ y) / spread
    residual = float(((y - slope * x) ** 2).sum())
    error = math.sqrt(residual / (count - 2) / spread)
    return slope / error if error > 0 else 0.0


def _weights_finite(learner: Learner) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in learner.host.parameters())
