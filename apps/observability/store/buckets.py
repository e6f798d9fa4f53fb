"""Samples into buckets of time: whole, UTC-aligned, and none where there is no sample. Arrays only, no database."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.observability.contracts import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """One entry a bucket, ascending by ``starts`` (seconds since 1970). Of a counter, least, mean and greatest are
    growths a second, and ``last`` is the count itself."""

    starts: Numbers
    least: Numbers
    mean: Numbers
    greatest: Numbers
    last: Numbers
    counts: Numbers

    def __len__(self) -> int:
        return len(self.starts)

    def within(self, start: float, end: float) -> "Buckets":
        """Those that begin at ``start`` or later, and before ``end``."""
        low, high = np.searchsorted(self.starts, [start, end])
        return Buckets(**{name: getattr(self, name)[low:high] for name in COLUMNS})


COLUMNS = ("starts", "least", "mean", "greatest", "last", "counts")
NONE = Buckets(**{name: np.empty(0) for name in COLUMNS})


def growth(times: Numbers, values: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Of a counter: times, growth a second since the sample before, seconds since then, the count.

    A count that fell was reset, and has grown from zero since. Values that are no finite number are passed over; the
    first sample has grown from nothing known, and has no entry.
    """
    is_finite = np.isfinite(values)
    times, values = times[is_finite], values[is_finite]
    with np.errstate(over="ignore"):
        grown = np.where(values[1:] >= values[:-1], values[1:] - values[:-1], values[1:])
        passed = np.diff(times)
        rates = grown / passed
    is_finite = np.isfinite(rates)
    return times[1:][is_finite], rates[is_finite], passed[is_finite], values[1:][is_finite]


def gathered(times: Numbers, values: Numbers, step: float, *, is_counter: bool = False) -> Buckets:
    """Ascending samples, in buckets of ``step`` seconds. Values that are no finite number do not count."""
    if is_counter:
        times, values, weights, last = growth(times, values)
    else:
        is_finite = np.isfinite(values)
        times, values = times[is_finite], values[is_finite]
        weights, last = np.ones(len(times)), values
    if not len(times):
        return NONE
    numbers, firsts, counts = _grouped(times, step)
    return Buckets(
        starts=numbers * step,
        least=np.minimum.reduceat(values, firsts),
        mean=_mean(values, weights, firsts, counts),
        greatest=np.maximum.reduceat(values, firsts),
        last=last[firsts + counts - 1],
        counts=counts.astype(np.float64),
    )


def merged(given: Buckets, step: float) -> Buckets:
    """Longer buckets, of ``step`` seconds: a multiple of what they are."""
    if not len(given):
        return given
    numbers, firsts, counts = _grouped(given.starts, step)
    return Buckets(
        starts=numbers * step,
        least=np.minimum.reduceat(given.least, firsts),
        mean=_mean(given.mean, given.counts, firsts, counts),
        greatest=np.maximum.reduceat(given.greatest, firsts),
        last=given.last[firsts + counts - 1],
        counts=np.add.reduceat(given.counts, firsts),
    )


def joined(first: Buckets, second: Buckets) -> Buckets:
    """One after the other."""
    return Buckets(**{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in COLUMNS})


def _grouped(times: Numbers, step: float) -> tuple[Numbers, NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the buckets, where each begins, how many entries it has."""
    numbers = np.floor(times / step)
    firsts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
    return numbers[firsts], firsts, np.diff(np.append(firsts, len(times)))


def _mean(values: Numbers, weights: Numbers, firsts: NDArray[np.intp], counts: NDArray[np.intp]) -> Numbers:
    """Weighted, and without a sum that could be too large for a float."""
    totals = np.repeat(np.add.reduceat(weights, firsts), counts)
    means = np.add.reduceat(values * (weights / totals), firsts)
    least, greatest = np.minimum.reduceat(values, firsts), np.maximum.reduceat(values, firsts)
    return np.clip(means, least, greatest)
