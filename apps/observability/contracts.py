"""What the parts of observability hand to each other: readings on their way in, curves on their way out. No Django."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One measured value of one series. ``at`` is aware; ``kind`` is "gauge" or "counter"."""

    name: str
    value: float
    at: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    kind: str = "gauge"
    unit: str = ""
    run_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of a batch: a sample that was there already is not an error, so that a batch can be sent again."""

    stored: int
    known: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesInfo:
    """A row of Series, as readers get it."""

    id: int
    name: str
    labels: Mapping[str, str]
    kind: str
    unit: str
    source: str
    run_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The newest sample of a series."""

    series: SeriesInfo
    at: datetime
    value: float
    anomalous: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A series over a range of time. Each array has one entry a point; ``times`` are seconds since 1970, ascending.

    ``step`` is the length of the buckets in seconds; 0: the samples themselves, and then least, mean and greatest are
    the same array. A bucket without samples has no point. Of a counter, ``mean`` is the growth a second.
    """

    series: SeriesInfo
    step: int
    times: Numbers
    least: Numbers
    mean: Numbers
    greatest: Numbers
    anomalies: Numbers
    """Times of the samples in the range that the detector marked."""
