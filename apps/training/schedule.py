"""When a run saves by time: at a fixed interval, or as often as costs half a percent of its training time.

Only a monotonic clock is asked: a wall clock that is set, or jumps, moves no save.
"""

import time
from collections.abc import Callable

from apps.checkpoints.models import CheckpointPolicy, Schedule

SHARE = 0.005
"""Of the training time that saving may cost, where the schedule is ``auto``."""
SHORTEST, LONGEST = 60.0, 1800.0
"""Bounds, in seconds, of the interval that ``auto`` chooses."""
DECAY = 0.9


class SaveSchedule:
    """Told of each step; knows when the next save is due, and what one costs.

    A save costs the time for which it holds training up, and what the steps take longer while it is being stored.
    """

    def __init__(self, policy: CheckpointPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy
        self._clock = clock
        self._saved_at = self._stepped_at = clock()
        self._usual: float | None = None
        self._slowed = 0.0
        self._cost: float | None = None
        self._failed = False

    def note_step(self, *, storing: bool) -> None:
        """A step is done, while a save was being stored or not."""
        now = self._clock()
        took, self._stepped_at = now - self._stepped_at, now
        if not storing:
            self._usual = took if self._usual is None else DECAY * self._usual + (1 - DECAY) * took
        elif self._usual is not None:
            self._slowed += max(0.0, took - self._usual)

    def note_save(self, began: float) -> None:
        """A save has been taken; ``began`` is what the clock said before it."""
        now = self._clock()
        self._saved_at = self._stepped_at = now
        self._cost, self._slowed = (now - began) + self._slowed, 0.0
        self._failed = False

    def note_failure(self) -> None:
        """The save could not be stored: the next one does not wait for the interval."""
        self._failed = True

    @property
    def interval(self) -> float | None:
        """Seconds from one save to the next; None: none by time."""
        if self.policy.schedule == Schedule.OFF:
            return None
        if self.policy.schedule == Schedule.INTERVAL:
            return float(self.policy.interval_seconds)
        if self._cost is None:
            return SHORTEST
        return min(max((self._cost + self._slowed) / SHARE, SHORTEST), LONGEST)

    @property
    def is_due(self) -> bool:
        interval = self.interval
        return interval is not None and (self._failed or self._clock() - self._saved_at >= interval)
