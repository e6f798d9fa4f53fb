"""Evidence that a seed earns its keep: a paired ablation on held-out samples, with and without it.

The contribution is the mean paired difference of per-sample loss, with a percentile bootstrap interval (Efron, 1979).
The accuracy difference is given with McNemar's exact test (1947) and gates nothing: on a few hundred samples it would
miss a true gain of two points in two cases of three.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES_AT_ONCE = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A held-out pass: per-sample loss in nats, and whether the prediction was right."""

    losses: NDArray[np.float64]
    correct: NDArray[np.bool_]

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.losses).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a seed is worth: ``contribution`` in nats per held-out sample, with its interval."""

    contribution: float
    low: float
    high: float
    accuracy_difference: float
    mcnemar_p: float
    samples: int


def paired_ablation(
    with_seed: Judged, without_seed: Judged, *, confidence: float, resamples: int, seed: tuple[int, ...]
) -> Evidence | None:
    """Compare the same samples with and without the seed; None when a loss is not finite: nothing was measured.

    ``seed`` decides the bootstrap's resamples.
    """
    if not (with_seed.finite and without_seed.finite):
        return None
    differences = without_seed.losses - with_seed.losses
    low, high = bootstrap_interval(differences, confidence=confidence, resamples=resamples, seed=seed)
    return Evidence(
        contribution=float(differences.mean()),
        low=low,
        high=high,
        accuracy_difference=with_seed.accuracy - without_seed.accuracy,
        mcnemar_p=mcnemar(with_seed.correct, without_seed.correct),
        samples=len(differences),
    )


def bootstrap_interval(
    values: NDArray[np.float64], *, confidence: float, resamples: int, seed: tuple[int, ...]
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` [N], two-sided."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    means = np.concatenate(
        [
            values[generator.integers(len(values), size=(min(RESAMPLES_AT_ONCE, resamples - done), len(values)))].mean(
                1
            )
            for done in range(0, resamples, RESAMPLES_AT_ONCE)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mcnemar(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    """Two-sided p of McNemar's exact test that two classifiers are right equally often, on paired samples."""
    only_left, only_right = int((left & ~right).sum()), int((right & ~left).sum())
    discordant = only_left + only_right
    tail = sum(math.comb(discordant, k) for k in range(min(only_left, only_right) + 1))
    return float(min(1.0, 2 * tail / 2**discordant))
