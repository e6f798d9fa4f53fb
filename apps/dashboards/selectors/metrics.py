"""Stored metrics as charts, tables and files: which series over which time, and what they were."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from apps.core.errors import Invalid
from apps.dashboards import units
from apps.observability import matchers
from apps.observability.contracts import Curve, Latest, Numbers, SeriesInfo
from apps.observability.matchers import Matcher
from apps.observability.store import reading

RANGES: Mapping[str, timedelta] = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
SPOKEN: Mapping[str, str] = {"1h": "hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
DEFAULT_RANGE = "1h"
LINES = 8
"""More lines than these nobody tells apart."""
POINTS = 500
POLL_MILLISECONDS = 15_000
STALE_SECONDS = 90
"""Six readings of the collectors."""
LONGEST_NAME = 120
EARLIEST, LATEST = 1970, 9000
"""Years. Beyond, moments cannot be told in every zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which series (a name with matchers, or ids) from when to when. ``moves``: the end is now."""

    name: str | None
    matchers: Sequence[Matcher]
    ids: Sequence[int] | None
    start: datetime
    end: datetime
    moves: bool

    @property
    def selection(self) -> dict[str, Any]:
        return {"name": self.name, "matchers": self.matchers, "ids": self.ids}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart of stored metrics that the page's script draws. ``query`` is of ``wanted_of``."""

    title: str
    axis: str
    query: str
    threshold: float | None = None
    since: float | None = None
    until: float | None = None


def range_of(text: str | None) -> str:
    """A key of ``RANGES``; anything else is the default."""
    return text if text is not None and text in RANGES else DEFAULT_RANGE


def wanted_of(query: QueryDict, now: datetime) -> Wanted:
    """From ``?name=&label=a="b"&range=24h``, or ``?series=12&start=&end=``.

    Raises:
        Invalid: something else, naming the parameter.
    """
    name, ids = query.get("name") or None, _ids(query.getlist("series"))
    if (name is None) == (ids is None):
        raise Invalid("name one metric, or series by their numbers", pointer="/name", code="invalid")
    if name is not None and (len(name) > LONGEST_NAME or "\x00" in name):
        raise Invalid("is not a metric's name", pointer="/name", code="invalid")
    found = matchers.from_text(query.getlist("label"))
    if "start" not in query:
        if query.get("range", DEFAULT_RANGE) not in RANGES:
            raise Invalid(f"is one of {', '.join(RANGES)}", pointer="/range", code="invalid")
        long = RANGES[query.get("range", DEFAULT_RANGE)]
        return Wanted(name=name, matchers=found, ids=ids, start=now - long, end=now, moves=True)
    start = _time(query, "start")
    end = min(_time(query, "end"), now) if query.get("end") else now
    return Wanted(name=name, matchers=found, ids=ids, start=start, end=end, moves=not query.get("end") or end >= now)


def _ids(texts: Sequence[str]) -> list[int] | None:
    if not texts:
        return None
    if len(texts) > reading.MOST_SERIES or not all(t.isascii() and t.isdigit() and len(t) < 19 for t in texts):
        raise Invalid(f"is at most {reading.MOST_SERIES} whole numbers", pointer="/series", code="invalid")
    return [int(text) for text in texts]


def _time(query: QueryDict, name: str) -> datetime:
    try:
        found = parse_datetime(str(query[name]).replace(" ", "+"))  # a plus sign that nobody escaped
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not EARLIEST <= found.year <= LATEST:
        raise Invalid("is a time with its zone, as 2026-05-01T12:00:00Z", pointer=f"/{name}", code="invalid")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a chart depends on, cheaply: the newest sample of each of its series."""

    wanted: Wanted
    series: Sequence[SeriesInfo]
    left_out: int
    newest: Sequence[Latest]

    @property
    def last_at(self) -> datetime | None:
        return max((row.at for row in self.newest), default=None)

    @property
    def etag(self) -> str:
        wanted = self.wanted
        range_ = (wanted.end - wanted.start) if wanted.moves else (wanted.start, wanted.end)
        newest = [(row.series.id, row.at, repr(row.value), row.anomalous) for row in self.newest]
        parts = (range_, [info.id for info in self.series], self.left_out, newest)
        return '"' + hashlib.sha256(repr(parts).encode()).hexdigest()[:32] + '"'


def stamp(wanted: Wanted) -> Stamp:
    """Three queries. Of more than ``LINES`` series the first."""
    found = reading.series(**wanted.selection)
    shown = found[:LINES]
    newest = reading.latest(ids=[info.id for info in shown]) if shown else []
    return Stamp(wanted=wanted, series=shown, left_out=len(found) - len(shown), newest=newest)


def curves(found: Stamp) -> list[Curve]:
    """Raises Invalid: the time is longer than the store answers for."""
    if not found.series:
        return []
    ids = [info.id for info in found.series]
    return reading.query(ids=ids, start=found.wanted.start, end=found.wanted.end, points=POINTS, limit=LINES)


def payload(found: Stamp) -> dict[str, Any]:
    """What a chart draws. Values that are no finite number are null; times are seconds since 1970."""
    drawn = curves(found)
    names = told_apart([curve.series for curve in drawn])
    now = timezone.now()
    return {
        "now": now.timestamp(),
        "start": found.wanted.start.timestamp(),
        "end": found.wanted.end.timestamp(),
        "last_at": found.last_at.timestamp() if found.last_at else None,
        "stale_after": STALE_SECONDS,
        "poll_after": POLL_MILLISECONDS if found.wanted.moves else None,
        "left_out": found.left_out,
        "curves": [
            {
                "id": curve.series.id,
                "label": label,
                "metric": curve.series.name,
                "unit": curve.series.unit,
                "axis": units.axis_of(curve.series),
                "is_rate": curve.series.kind == "counter",
                "step": curve.step,
                "times": curve.times.tolist(),
                "least": _finite(curve.least),
                "mean": _finite(curve.mean),
                "greatest": _finite(curve.greatest),
                "anomalies": curve.anomalies.tolist(),
            }
            for curve, label in zip(drawn, names, strict=True)
        ],
    }


def _finite(values: Numbers) -> list[float | None]:
    # Twelve digits are more than a chart shows, and half of the bytes.
    return [float(f"{value:.12g}") if math.isfinite(value) else None for value in values.tolist()]


def told_apart(series: Sequence[SeriesInfo]) -> list[str]:
    """A short name of each: the values of the labels in which they differ; of one alone, of all of its labels."""
    names = {info.name for info in series}
    labels = sorted({label for info in series for label in info.labels})
    is_alone = len(series) == 1
    differing = [label for label in labels if is_alone or len({info.labels.get(label) for info in series}) > 1]
    told = []
    for info in series:
        values = [info.labels[label] for label in differing if info.labels.get(label)]
        first = [info.name] if len(names) > 1 or not values else []
        told.append(" ".join([*first, *values]))
    return told


@dataclass(frozen=True, slots=True)
class Row:
    """One moment: of each curve its mean with what it is between, in words; None: it has no point then."""

    at: datetime
    cells: Sequence[tuple[str, str] | None]


def rows(drawn: Sequence[Curve], *, most: int) -> list[Row]:
    """The newest first, at most ``most``."""
    if not drawn:
        return []
    moments = np.unique(np.concatenate([curve.times for curve in drawn]))[::-1][:most]
    places = [{at: place for place, at in enumerate(curve.times.tolist())} for curve in drawn]
    zone = timezone.get_default_timezone()
    return [
        Row(
            at=datetime.fromtimestamp(at, tz=zone),
            cells=[_cell(curve, places[index].get(at)) for index, curve in enumerate(drawn)],
        )
        for at in cast(list[float], moments.tolist())
    ]


def _cell(curve: Curve, place: int | None) -> tuple[str, str] | None:
    if place is None:
        return None
    unit = curve.series.unit
    suffix = "/s" if curve.series.kind == "counter" else ""
    mean = units.told(float(curve.mean[place]), unit) + suffix
    if curve.step == 0 or curve.least[place] == curve.greatest[place]:
        return mean, ""
    low, high = (units.told(float(values[place]), unit) for values in (curve.least, curve.greatest))
    return mean, f"{low} to {high}"
