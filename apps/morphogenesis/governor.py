"""The governor: notices that training goes wrong, early enough to turn back.

It fires on a loss that is not finite; on a robust relative rise of the training loss (distance from the median of
recent log-losses, in median absolute deviations: Hampel, 1974); and on held-out accuracy more than five points, and
beyond sampling error, under the last good one for two checks. Bad values never enter the history. Thresholds were set
on one half of 300 recorded loss curves; the false-alarm rate is reported on the other half (benchmarks/governor.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

WINDOW = 24
"""Checks that the median looks back on."""
MINIMUM = 4
"""Checks before a rise can be judged."""
LOSS_FLOOR = 0.1
"""Nats added before the logarithm: below this, a rise in proportion is no harm."""
RISE = math.log(1.6)
SEVERE_RISE = math.log(3.0)
"""Rise of the log-loss over the median that is suspicious, and that fires at once."""
DEVIATIONS = 5.0
SCALE_FLOOR = 0.05
"""A rise counts only if it is this many scaled median absolute deviations, each at least ``SCALE_FLOOR``."""
PATIENCE = 2
"""Bad checks in a row that fire."""
ACCURACY_DROP = 0.05
ACCURACY_ERRORS = 3.0
"""A drop of held-out accuracy is bad above both: this share, and this many standard errors of a difference."""
NORMAL_CONSISTENCY = 1.4826
"""Scales the median absolute deviation to a standard deviation, for normal noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Why the governor fired: ``reason`` is a clause for people, ``observed`` the numbers."""

    rule: str
    reason: str
    observed: Mapping[str, Any]


class Governor:
    """Watches one run. Feed it the mean training loss of each check, and each epoch's held-out accuracy."""

    def __init__(self) -> None:
        self._history: list[float] = []
        self._bad_losses = 0
        self._bad_accuracies = 0
        self._good_accuracy: float | None = None
        self.suspicions = 0
        """Bad checks since ``end_epoch``."""

    @property
    def quiet(self) -> bool:
        """Was nothing bad about the last checks?"""
        return not (self._bad_losses or self._bad_accuracies)

    def check_loss(self, loss: float) -> Alarm | None:
        """Judge the mean training loss (nats) since the last check."""
        if not math.isfinite(loss):
            return Alarm(rule="non_finite", reason="the training loss is not a finite number", observed={})
        value = math.log(max(loss, 0.0) + LOSS_FLOOR)
        rise, deviations = self._rise(value)
        if rise <= RISE or deviations <= DEVIATIONS:
            self._history = [*self._history, value][-WINDOW:]
            self._bad_losses = 0
            return None
        self._bad_losses += 1
        self.suspicions += 1
        if rise <= SEVERE_RISE and self._bad_losses < PATIENCE:
            return None
        usual = math.exp(median(self._history)) - LOSS_FLOOR
        return Alarm(
            rule="loss_rise",
            reason=f"the training loss rose to {loss:.3g} from {usual:.3g}, {deviations:.0f} deviations",
            observed={"loss": loss, "median_loss": usual, "deviations": deviations, "bad_checks": self._bad_losses},
        )

    def check_accuracy(self, accuracy: float, samples: int) -> Alarm | None:
        """Judge an epoch's held-out accuracy (0..1, on so many samples) against that of the last good epoch."""
        if self._good_accuracy is None or self._good_accuracy - accuracy <= _tolerated(self._good_accuracy, samples):
            self._good_accuracy = accuracy
            self._bad_accuracies = 0
            return None
        self._bad_accuracies += 1
        self.suspicions += 1
        if self._bad_accuracies < PATIENCE:
            return None
        return Alarm(
            rule="accuracy_drop",
            reason=f"held-out accuracy fell to {accuracy:.1%} from {self._good_accuracy:.1%}",
            observed={"accuracy": accuracy, "good_accuracy": self._good_accuracy, "bad_checks": self._bad_accuracies},
        )

    def end_epoch(self) -> None:
        """Start counting suspicions anew."""
        self.suspicions = 0

    def restart(self) -> None:
        """Forget the past: the network has been changed on purpose, or turned back."""
        self._history = []
        self._bad_losses = self._bad_accuracies = self.suspicions = 0
        self._good_accuracy = None

    def state(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "history": list(self._history),
            "bad_losses": self._bad_losses,
            "bad_accuracies": self._bad_accuracies,
            "good_accuracy": self._good_accuracy,
            "suspicions": self.suspicions,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave."""
        self._history = list(state["history"])
        self._bad_losses = state["bad_losses"]
        self._bad_accuracies = state["bad_accuracies"]
        self._good_accuracy = state["good_accuracy"]
        self.suspicions = state["suspicions"]

    def _rise(self, value: float) -> tuple[float, float]:
        """How far the log-loss stands over its median, and in how many deviations."""
        if len(self._history) < MINIMUM:
            return 0.0, 0.0
        middle = median(self._history)
        spread = NORMAL_CONSISTENCY * median(abs(entry - middle) for entry in self._history)
        return value - middle, (value - middle) / max(spread, SCALE_FLOOR)


def _tolerated(accuracy: float, samples: int) -> float:
    """The drop below ``accuracy`` that may be chance."""
    error = math.sqrt(2 * accuracy * (1 - accuracy) / samples)
    return max(ACCURACY_DROP, ACCURACY_ERRORS * error)
