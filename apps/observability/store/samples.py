"""The samples of one series as arrays. No database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from apps.observability.contracts import Numbers
from apps.observability.store.times import milliseconds


@dataclass(frozen=True, slots=True)
class Samples:
    """Of one series, ascending. ``at`` in milliseconds since 1970."""

    at: NDArray[np.int64]
    values: Numbers
    anomalous: NDArray[np.bool_]

    @property
    def times(self) -> Numbers:
        """Seconds since 1970."""
        return self.at / 1000.0

    def __len__(self) -> int:
        return len(self.at)

    def within(self, first: datetime, last: datetime) -> "Samples":
        """From ``first`` to ``last``, both within."""
        low = np.searchsorted(self.at, milliseconds(first), side="left")
        high = np.searchsorted(self.at, milliseconds(last), side="right")
        return self.part(slice(low, high))

    def part(self, which: slice | NDArray[np.bool_] | NDArray[np.intp]) -> "Samples":
        return Samples(self.at[which], self.values[which], self.anomalous[which])


EMPTY = Samples(np.empty(0, np.int64), np.empty(0), np.empty(0, np.bool_))


def united(older: Samples, newer: Samples) -> Samples:
    """Both, ascending; of one moment that both have, ``newer`` counts."""
    if not len(older) or not len(newer):
        return newer if len(newer) else older
    if older.at[-1] < newer.at[0]:
        return chained([older, newer])
    both = chained([newer, older])
    _, firsts = np.unique(both.at, return_index=True)
    return both.part(firsts)


def chained(parts: Sequence[Samples]) -> Samples:
    """One after the other."""
    return Samples(
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.anomalous for part in parts]),
    )
