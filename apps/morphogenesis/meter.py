"""What a run tells of itself while it trains, and what growing costs it: timers around parts of the loop.

Readings are no events: nothing depends on them, they are in no snapshot, and a run gives the same bits without them.
"""

import time
from typing import Any

from apps.morphogenesis.monitors import Reading
from apps.morphogenesis.protocols import TelemetrySink


class Stopwatch:
    """Adds up the seconds that passed inside its ``with`` blocks. Two calls of a clock each: a microsecond."""

    __slots__ = ("_begun", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0
        self._begun = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        self._seconds += time.perf_counter() - self._begun

    def take(self) -> float:
        """The seconds since the last time."""
        taken, self._seconds = self._seconds, 0.0
        return taken


class Meter:
    """Tells the sink after each check of the monitors, and after each epoch.

    ``training`` is for the step itself and the wait for the device that the check is; ``growing`` for all that a
    network which does not grow would not need: policy, gates, probes and ablations, governor, journal. Where nothing
    ``grows``, as in a static control, it has no cost.
    """

    def __init__(self, sink: TelemetrySink, *, grows: bool) -> None:
        self._tell = sink.reading
        self._grows = grows
        self.samples = 0
        """That went through training since the last check."""
        self._since = time.perf_counter()
        self.training = Stopwatch()
        self.growing = Stopwatch()

    def start(self) -> None:
        """Training begins, or goes on: what was before does not count."""
        self.samples, self._since = 0, time.perf_counter()
        self.training.take()
        self.growing.take()

    def tell_check(self, reading: Reading) -> None:
        """After a check."""
        now = time.perf_counter()
        self._tell("train_loss", reading.mean_loss)
        self._tell("gradient_norm", reading.host_gradient)
        if now > self._since:
            self._tell("samples_per_second", self.samples / (now - self._since))
        self.samples, self._since = 0, now

    def tell_epoch(self, measured: dict[str, Any]) -> None:
        """After an epoch, all its growing included. Losses that are not finite are told, too."""
        for name in ("validation_loss", "validation_accuracy", "learning_rate", "parameters"):
            self._tell(name, float(measured[name]))
        self._tell("live_seeds", float(len(measured["live_seeds"])))
        trained, grown = self.training.take(), self.growing.take()
        if self._grows and trained > 0:
            self._tell("overhead_ratio", grown / trained)
