"""How series move: the trend of each, by the averages of the store, and when it reaches a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from apps.observability.contracts import Curve, SeriesInfo
from apps.observability.matchers import Matcher
from apps.observability.store import reading
from apps.observability.store.times import moment
from apps.observability.trends import Forecast, Trend, forecast, trend

POINTS = 300
"""Of a curve: 45,000 pairs, 3 ms."""
MOST_SERIES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTrend:
    """``found`` is None with fewer than ten points; ``reaches`` where no value to reach was given, too.

    Of a counter, values are its growth a second, as ``Curve.mean`` has them.
    """

    series: SeriesInfo
    step: int
    """Seconds that each point is the mean of; 0: the samples themselves."""
    last: float | None
    last_at: datetime | None
    found: Trend | None
    reaches: Forecast | None


def trends(
    *,
    name: str | None = None,
    matchers: Sequence[Matcher] = (),
    ids: Sequence[int] | None = None,
    hours: float,
    threshold: float | None = None,
    horizon_hours: float = 7 * 24,
    now: datetime | None = None,
    workspace_id: UUID | None = None,
) -> list[SeriesTrend]:
    """Of each of the series that are meant, over the last ``hours``.

    Raises:
        Invalid: more than ``MOST_SERIES`` are meant.
    """
    end = now or timezone.now()
    curves = reading.query(
        name=name,
        matchers=matchers,
        ids=ids,
        start=end - timedelta(hours=hours),
        end=end,
        points=POINTS,
        limit=MOST_SERIES,
        workspace_id=workspace_id,
    )
    return [of_curve(curve, threshold=threshold, horizon_hours=horizon_hours) for curve in curves]


def of_curve(curve: Curve, *, threshold: float | None = None, horizon_hours: float = 7 * 24) -> SeriesTrend:
    found = trend(curve.times, curve.mean)
    reaches = None
    if found is not None and threshold is not None:
        reaches = forecast(found, threshold, horizon=horizon_hours * 3600)
    is_empty = not len(curve.times)
    return SeriesTrend(
        series=curve.series,
        step=curve.step,
        last=None if is_empty else float(curve.mean[-1]),
        last_at=None if is_empty else moment(float(curve.times[-1])),
        found=found,
        reaches=reaches,
    )
