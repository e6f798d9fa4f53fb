"""Curves over a range of time: which of samples and averages to read, and of what step."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil

import numpy as np
from django.conf import settings
from django.utils import timezone

from apps.core.errors import Invalid
from apps.observability.contracts import Curve, Numbers, SeriesInfo
from apps.observability.models import Anomaly, FiveMinuteRollup, HourRollup, SeriesKind
from apps.observability.store import buckets, rows
from apps.observability.store.buckets import NONE, Buckets
from apps.observability.store.gathering import gathered
from apps.observability.store.samples import EMPTY, Samples, united
from apps.observability.store.times import INSTANT, hot_since, moment, seconds

MOST_POINTS = 20_000
"""Of all curves of one answer together."""
MOST_READ = 1_000_000
"""Samples read for one answer."""
STEPS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    1_209_600, 2_419_200, 9_676_800, 77_414_400,
)  # fmt: skip
FIVE_MINUTES, HOUR = FiveMinuteRollup.SECONDS, HourRollup.SECONDS
TABLES = {FIVE_MINUTES: FiveMinuteRollup._meta.db_table, HOUR: HourRollup._meta.db_table}
MOST_ANOMALIES = 2_000


def drawn(
    wanted: Sequence[SeriesInfo], start: datetime, end: datetime, *, step: int | None, points: int
) -> list[Curve]:
    """One curve a series; ``step`` as chosen by the caller or (None) here.

    Raises:
        Invalid: the step is too short for the range, or for what is kept of it.
    """
    chosen = _chosen_step(start, end, points) if step is None else _checked_step(start, end, step, len(wanted))
    if width := _width(chosen):
        return _averaged(wanted, start, end, chosen, width)
    most = MOST_READ // len(wanted)
    first, last = (start, end) if step == 0 else _aligned(start, end, chosen)
    found = rows.raw([info.id for info in wanted], first, last, most=most)
    asked = {id: samples.within(start, end) for id, samples in found.items()}
    longest = max(map(len, asked.values()))
    if step == 0 and longest > MOST_POINTS // len(wanted):
        raise Invalid("there are too many samples: give a step, or a shorter range", pointer="/step", code="too_many")
    if step == 0 or (step is None and longest <= points):
        return _plain(wanted, asked, start)
    if max(map(len, found.values())) < most:
        made = gathered(found, dict.fromkeys(found, first), _counters(wanted), chosen)
        return [_curve(info, made[info.id], chosen, _marked(asked[info.id])) for info in wanted]
    if step is None:
        return _averaged(wanted, start, end, FIVE_MINUTES, FIVE_MINUTES)
    raise Invalid(f"there are too many samples: a multiple of {FIVE_MINUTES}", pointer="/step", code="too_many")


def kept_step(start: datetime) -> int:
    """The shortest step in seconds that there is of a range that begins at ``start``; 0: samples."""
    age = timezone.now() - start
    if age <= timedelta(days=settings.METRICS_RAW_DAYS):
        return 0
    return FIVE_MINUTES if age <= timedelta(days=settings.METRICS_5M_DAYS) else HOUR


def _chosen_step(start: datetime, end: datetime, points: int) -> int:
    least = max((end - start).total_seconds() / max(points - 1, 1), kept_step(start))
    return next((step for step in STEPS if step >= least), STEPS[-1])


def _checked_step(start: datetime, end: datetime, step: int, count: int) -> int:
    """Raises Invalid."""
    if not 0 <= step <= STEPS[-1]:
        raise Invalid(f"is between 0 and {STEPS[-1]:,} seconds", pointer="/step", code="out_of_range")
    if (kept := kept_step(start)) and (step < kept or step % kept):
        raise Invalid(
            f"of what is that old only averages are kept: a multiple of {kept}", pointer="/step", code="too_short"
        )
    most = MOST_POINTS // count
    if step and (least := (end - start).total_seconds() / step) > most:
        detail = f"makes more than {most:,} points of each of {count} series: at least {ceil(least * step / most)}"
        raise Invalid(detail, pointer="/step", code="too_short")
    return step


def _width(step: int) -> int:
    """Of the averages that make up buckets of ``step``; 0: samples do."""
    return next((width for width in (HOUR, FIVE_MINUTES) if step and step % width == 0), 0)


def _aligned(start: datetime, end: datetime, step: int) -> tuple[datetime, datetime]:
    """First and last moment of the whole buckets that the range touches."""
    first, last = seconds(start) // step * step, seconds(end) // step * step + step
    return moment(first), moment(last) - INSTANT


def _plain(wanted: Sequence[SeriesInfo], asked: Mapping[int, Samples], start: datetime) -> list[Curve]:
    """The samples themselves; of counters, what each sample has grown by."""
    before = rows.before(dict.fromkeys(_counters(wanted), start))
    curves = []
    for info in wanted:
        samples = asked[info.id]
        times, values = samples.times, samples.values
        if info.kind == SeriesKind.COUNTER:
            whole = united(before.get(info.id, EMPTY), samples)
            times, values, _, _ = buckets.growth(whole.times, whole.values)
        anomalies = _marked(samples)
        curves.append(
            Curve(series=info, step=0, times=times, least=values, mean=values, greatest=values, anomalies=anomalies)
        )
    return curves


def _marked(samples: Samples) -> Numbers:
    return samples.part(samples.anomalous).times


def _averaged(wanted: Sequence[SeriesInfo], start: datetime, end: datetime, step: int, width: int) -> list[Curve]:
    first, last = _aligned(start, end, step)
    ids = [info.id for info in wanted]
    rolled = rows.rollups(TABLES[width], ids, first, last)
    tails = _tails(wanted, rolled, first, last, width)
    odd = _anomalies(ids, start, end)
    return [
        _curve(
            info,
            _merged(buckets.joined(rolled.get(info.id, NONE), tails.get(info.id, NONE)), step, width),
            step,
            odd.get(info.id, np.empty(0)),
        )
        for info in wanted
    ]


def _merged(found: Buckets, step: int, width: int) -> Buckets:
    return found if step == width else buckets.merged(found, step)


def _tails(
    wanted: Sequence[SeriesInfo], rolled: dict[int, Buckets], first: datetime, last: datetime, width: int
) -> dict[int, Buckets]:
    """What has come since the last average was made."""
    spans = {}
    for info in wanted:
        done = rolled.get(info.id, NONE)
        begin = max(first, hot_since(), moment(done.starts[-1] + width) if len(done) else first)
        if begin <= last:
            spans[info.id] = (begin, last)
    samples = rows.hot(spans, most=MOST_READ // len(wanted))
    return gathered(samples, {id: span[0] for id, span in spans.items()}, _counters(wanted), width)


def _counters(wanted: Sequence[SeriesInfo]) -> set[int]:
    return {info.id for info in wanted if info.kind == SeriesKind.COUNTER}


def _anomalies(ids: Sequence[int], start: datetime, end: datetime) -> dict[int, Numbers]:
    found: dict[int, list[float]] = {}
    odd = Anomaly.objects.filter(series__in=ids, at__range=(start, end)).order_by("-at")
    for id, at in odd.values_list("series_id", "at")[:MOST_ANOMALIES]:
        found.setdefault(id, []).append(seconds(at))
    return {id: np.array(times[::-1]) for id, times in found.items()}


def _curve(info: SeriesInfo, found: Buckets, step: int, anomalies: Numbers) -> Curve:
    return Curve(
        series=info,
        step=step,
        times=found.starts,
        least=found.least,
        mean=found.mean,
        greatest=found.greatest,
        anomalies=anomalies,
    )
