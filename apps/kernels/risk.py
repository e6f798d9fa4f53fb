"""The risk of a kernel: the probability that its next graft is not kept, learned from outcomes. Pure.

Each kernel has an unknown failure rate, drawn around a rate that the kernels of one blueprint share. Both levels are
unknown, so both are learned: the hierarchical Beta-binomial model (Gelman et al., Bayesian Data Analysis, 3rd ed.,
section 5.3: the rat tumours), its two hyperparameters integrated over a grid. With many siblings that agree a new
kernel starts near their rate; with siblings that differ, or none, it starts at the prior and its own outcomes decide.

    rate_k ~ Beta(mean * strength, (1 - mean) * strength)       failures_k ~ Binomial(grafts_k, rate_k)
    mean ~ Beta(1/2, 1/2) (Jeffreys)                            strength ~ strength^(-3/2) on 0.5 ... 64 (their 5.9)
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

INTERVAL = 0.90
_MEANS = 24
_STRENGTHS = 13
_WEAKEST, _STRONGEST = 0.5, 64.0
_BISECTIONS = 20


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many grafts of one kernel were not kept, and how many were."""

    failed: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """``value`` is the probability that the next graft is not kept; [low, high] the 90 % credible interval of the rate.

    ``confidence`` is one minus the interval's width: 0 when anything is possible.
    """

    value: float
    low: float
    high: float

    @property
    def confidence(self) -> float:
        return 1.0 - (self.high - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Mean gain of grafts in nats per held-out sample, and the lower end of its 95 % interval."""

    mean: float
    low: float | None


def assess(own: Outcomes, siblings: Iterable[Outcomes] = ()) -> Risk:
    """The risk of a kernel with outcomes ``own``, given those of the blueprint's other kernels.

    Grafts count as exchangeable: neither their order nor their tasks matter, and nothing is forgotten.
    """
    import numpy as np  # here, since most processes never come here
    from scipy.special import betainc, betaln

    alpha, beta, prior = _grid()
    log_weight = prior.copy()
    for outcomes, times in _counted([own, *siblings]).items():
        log_weight += times * (betaln(alpha + outcomes.failed, beta + outcomes.kept) - betaln(alpha, beta))
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    alpha, beta = alpha + own.failed, beta + own.kept

    def quantile(share: float) -> float:
        """Of the posterior, which is a mixture of Beta distributions."""
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if float(weight @ betainc(alpha, beta, middle)) < share else (low, middle)
        return (low + high) / 2

    tail = (1 - INTERVAL) / 2
    return Risk(value=float(weight @ (alpha / (alpha + beta))), low=quantile(tail), high=quantile(1 - tail))


def gain(contributions: Iterable[float], *, low_of_one: float | None = None) -> Gain | None:
    """The mean with Student's lower bound over grafts; of a single graft the bound that its ablation gave.

    None when nothing was measured.
    """
    values = list(contributions)
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Gain(mean=mean, low=low_of_one)
    from scipy.special import stdtrit

    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Gain(mean=mean, low=mean - float(stdtrit(len(values) - 1, 0.975)) * math.sqrt(variance / len(values)))


def _counted(outcomes: Iterable[Outcomes]) -> dict[Outcomes, int]:
    """Equal outcomes once, with how often they occur: a large blueprint has few different ones."""
    counts: dict[Outcomes, int] = {}
    for one in outcomes:
        counts[one] = counts.get(one, 0) + 1
    return counts


@cache
def _grid() -> "tuple[Array, Array, Array]":
    """(alpha, beta, log prior) over the hyperparameters.

    Means are the middles of equal shares of the arcsine distribution, which is Beta(1/2, 1/2), so all weigh the same;
    strengths are even on a log scale, where their density is strength^(-1/2).
    """
    import numpy as np

    means = np.sin(np.pi / 2 * (np.arange(_MEANS) + 0.5) / _MEANS) ** 2
    strengths = np.geomspace(_WEAKEST, _STRONGEST, _STRENGTHS)
    mean, strength = (values.ravel() for values in np.meshgrid(means, strengths))
    return mean * strength, (1 - mean) * strength, -0.5 * np.log(strength)
