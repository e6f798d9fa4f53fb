"""What rules say now of the series that they select. Reads only: evaluations write, previews show.

Few queries for any number of rules: the newest sample of every series by name, the samples of each length of
window, the averages for forecasts, the newest anomalies.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import structlog
from django.db import InterfaceError, OperationalError
from django.db.models import Q

from apps.core.errors import Invalid, ServiceError
from apps.observability import matchers as matching
from apps.observability.contracts import Latest, Numbers, SeriesInfo
from apps.observability.matchers import Matcher
from apps.observability.models import AlertRule, Anomaly, RuleKind, Series, SeriesKind
from apps.observability.rules import wording
from apps.observability.rules.kinds import DAY, HOUR, KINDS, Kind, Reads
from apps.observability.rules.observed import Mark, Observed, Verdict
from apps.observability.rules.shipped import ANY_METRIC
from apps.observability.store import reading
from apps.observability.store.reading import MOST_LATEST
from apps.observability.store.selecting import info

log = structlog.get_logger(__name__)

STALE = 600
"""Seconds without a sample, after which a series is over: its last value says nothing of now. Longer for a rule that
looks further back."""
LENGTHS = (600, HOUR, 6 * HOUR)
"""Seconds of samples that are read at once, for all rules that need no more."""
ROLLED_UP = timedelta(days=1)
"""``Series.last_at`` may be so late: it is as good as the last roll-up, and rules must not depend on that."""
MOST_SERIES = {Reads.SAMPLES: 2_000, Reads.AVERAGES: 500}
"""Of one rule: their history is read each time, and six hours of 2,000 series are 3 million samples."""
POINTS = 288
SERIES_AT_ONCE = 50
MOST_ANOMALIES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What a rule says of one series; without one, of there being none. ``labels`` are those of the alert."""

    series: SeriesInfo | None
    metric: str
    labels: Mapping[str, str]
    fingerprint: str
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A rule with all that it says; ``problem``: why it says nothing."""

    rule: AlertRule
    sightings: Sequence[Sighting] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A rule, checked, and what it reads."""

    rule: AlertRule
    kind: Kind
    parameters: Mapping[str, Any]
    matchers: tuple[Matcher, ...]
    reads: Reads
    window: int

    @property
    def lookback(self) -> int:
        """How old the newest sample may be, in seconds."""
        return HOUR if self.reads is Reads.AVERAGES else max(STALE, self.window)

    def selects(self, series: SeriesInfo) -> bool:
        named = self.rule.metric in (series.name, ANY_METRIC)
        return named and matching.matches(self.matchers, series.labels)


def judge(rules: Iterable[AlertRule], now: datetime) -> list[Judged]:
    """What each rule says. One that cannot be applied says why, and stops no other. All are of one workspace."""
    plans, judged = [], []
    for rule in rules:
        try:
            plans.append(_planned(rule))
        except (ServiceError, KeyError) as error:
            judged.append(_failed(rule, error))
    return judged + _judged(plans, now)


def _judged(plans: Sequence[_Plan], now: datetime) -> list[Judged]:
    """What is read for all at once and cannot be is read for each by itself, so that one fails alone."""
    if not plans:
        return []
    judged = []
    try:
        measured = _Measured(plans, now, plans[0].rule.workspace_id)
    except (OperationalError, InterfaceError):  # the database is away: no fault of a rule
        raise
    except Exception as error:
        if len(plans) == 1:
            return [_failed(plans[0].rule, error)]
        return [said for plan in plans for said in _judged([plan], now)]
    for plan in plans:
        try:
            judged.append(Judged(rule=plan.rule, sightings=measured.sightings(plan)))
        except Exception as error:  # of whatever kind: the other rules have to go on
            judged.append(_failed(plan.rule, error))
    return judged


def _planned(rule: AlertRule) -> _Plan:
    kind = KINDS[rule.kind]
    parameters = kind.checked(rule.parameters)
    return _Plan(
        rule=rule,
        kind=kind,
        parameters=parameters,
        matchers=matching.parse(rule.matchers),
        reads=kind.reads(parameters),
        window=kind.window(parameters),
    )


def _failed(rule: AlertRule, error: Exception) -> Judged:
    if isinstance(error, ServiceError):
        log.warning("alert_rule_wrong", rule=rule.name, problem=error.detail)
        return Judged(rule=rule, problem=error.detail[:500])
    log.error("alert_rule_failed", rule=rule.name, exc_info=error)
    return Judged(rule=rule, problem=f"{type(error).__name__}: {error}"[:500])


class _Measured:
    """What was measured of all series that the plans select, read once."""

    def __init__(self, plans: Sequence[_Plan], now: datetime, workspace_id: UUID | None) -> None:
        self._now = now
        self._workspace_id = workspace_id
        self._faults: dict[UUID, Invalid] = {}
        self._latest = self._newest([plan for plan in plans if plan.reads is not Reads.ANOMALIES])
        self._chosen = {plan.rule.pk: self._selected(plan) for plan in plans}
        self._samples = self._windows(plans)
        self._averages = self._curves(plans)
        self._anomalies = self._found([plan for plan in plans if plan.reads is Reads.ANOMALIES])

    def sightings(self, plan: _Plan) -> list[Sighting]:
        """One for each alert: series that differ only in labels that the rule gives itself are the same problem."""
        if fault := self._faults.get(plan.rule.pk):
            raise fault
        said: dict[str, Sighting] = {}
        for sighting in self._judged(plan):
            known = said.get(sighting.fingerprint)
            if known is None or (sighting.verdict.holds and not known.verdict.holds):
                said[sighting.fingerprint] = sighting
        return list(said.values())

    def _judged(self, plan: _Plan) -> list[Sighting]:
        if plan.reads is Reads.ANOMALIES:
            chosen = [(series, marks) for series, marks in self._anomalies if plan.selects(series)]
            seen = Observed(now=self._now.timestamp())
            return [_sighting(plan, series, replace(seen, marks=tuple(marks))) for series, marks in chosen]
        found = [_sighting(plan, latest.series, self._observed(plan, latest)) for latest in self._chosen[plan.rule.pk]]
        if not found and plan.rule.kind == RuleKind.ABSENCE:
            return [_sighting(plan, None, Observed(now=self._now.timestamp()))]
        return found

    def _observed(self, plan: _Plan, latest: Latest) -> Observed:
        seen = Observed(
            now=self._now.timestamp(),
            latest_at=latest.at.timestamp(),
            latest=latest.value,
            is_counter=latest.series.kind == SeriesKind.COUNTER,
        )
        if plan.reads is Reads.LATEST:
            return seen
        if plan.reads is Reads.AVERAGES:
            times, values = self._averages[plan.window].get(latest.series.id, (seen.times, seen.values))
        else:
            times, values = self._samples[_length(plan.window)][latest.series.id]
        return replace(seen, times=times, values=values)

    def _newest(self, plans: Sequence[_Plan]) -> dict[str, list[Latest]]:
        """By name of the metric. Three queries for each 5,000 series that had samples in the last days: those of runs
        that ended long ago are many."""
        by_name: dict[str, list[Latest]] = defaultdict(list)
        if not plans:
            return by_name
        within = max(plan.lookback for plan in plans)
        since = self._now - timedelta(seconds=within) - ROLLED_UP
        alive = Series.objects.filter(workspace=self._workspace_id, name__in={plan.rule.metric for plan in plans})
        ids = list(alive.filter(Q(last_at=None) | Q(last_at__gte=since)).order_by("id").values_list("id", flat=True))
        for first in range(0, len(ids), MOST_LATEST):
            some = ids[first : first + MOST_LATEST]
            for latest in reading.latest(ids=some, within_seconds=within, workspace_id=self._workspace_id):
                by_name[latest.series.name].append(latest)
        return by_name

    def _selected(self, plan: _Plan) -> list[Latest]:
        since = self._now - timedelta(seconds=plan.lookback)
        found = [each for each in self._latest[plan.rule.metric] if each.at >= since and plan.selects(each.series)]
        if len(found) <= MOST_SERIES.get(plan.reads, len(found)):
            return found
        self._faults[plan.rule.pk] = Invalid(
            f"it looks back in {len(found):,} series, of at most {MOST_SERIES[plan.reads]:,}: make it narrower",
            pointer="/matchers",
            code="too_many",
        )
        return []

    def _windows(self, plans: Sequence[_Plan]) -> dict[int, dict[int, tuple[Numbers, Numbers]]]:
        """The samples by length of window and series. One query a length."""
        wanted: dict[int, set[int]] = defaultdict(set)
        for plan in plans:
            if plan.reads is Reads.SAMPLES:
                wanted[_length(plan.window)] |= {latest.series.id for latest in self._chosen[plan.rule.pk]}
        return {
            length: reading.windows(sorted(ids), self._now - timedelta(seconds=length), self._now) if ids else {}
            for length, ids in wanted.items()
        }

    def _curves(self, plans: Sequence[_Plan]) -> dict[int, dict[int, tuple[Numbers, Numbers]]]:
        """Averages by length of window and series. A few queries for each 50 series."""
        wanted: dict[int, set[int]] = defaultdict(set)
        for plan in plans:
            if plan.reads is Reads.AVERAGES:
                wanted[plan.window] |= {latest.series.id for latest in self._chosen[plan.rule.pk]}
        return {length: self._drawn(length, sorted(ids)) for length, ids in wanted.items()}

    def _drawn(self, length: int, ids: Sequence[int]) -> dict[int, tuple[Numbers, Numbers]]:
        start = self._now - timedelta(seconds=length)
        workspace_id = self._workspace_id
        return {
            curve.series.id: (curve.times, curve.mean)
            for first in range(0, len(ids), SERIES_AT_ONCE)
            for curve in reading.query(
                ids=ids[first : first + SERIES_AT_ONCE],
                start=start,
                end=self._now,
                points=POINTS,
                limit=SERIES_AT_ONCE,
                workspace_id=workspace_id,
            )
        }

    def _found(self, plans: Sequence[_Plan]) -> list[tuple[SeriesInfo, list[Mark]]]:
        """The newest anomalies by series. One query."""
        if not plans:
            return []
        since = self._now - timedelta(seconds=max(plan.window for plan in plans))
        rows = Anomaly.objects.filter(workspace=self._workspace_id, at__gte=since - timedelta(seconds=DAY))
        rows = rows.filter(until__gte=since).select_related("series").order_by("-at")
        by_series: dict[int, tuple[SeriesInfo, list[Mark]]] = {}
        for row in rows[:MOST_ANOMALIES]:
            mark = Mark(
                at=row.at.timestamp(),
                until=row.until.timestamp(),
                value=row.value,
                score=row.score,
                component=row.component,
                explanation=row.explanation,
            )
            by_series.setdefault(row.series_id, (info(row.series), []))[1].append(mark)
        return list(by_series.values())


def _length(window: int) -> int:
    return next(length for length in LENGTHS if window <= length)


def _sighting(plan: _Plan, series: SeriesInfo | None, seen: Observed) -> Sighting:
    rule = plan.rule
    metric = series.name if series else rule.metric
    known = series.labels if series else {each.label: each.value for each in plan.matchers if each.op == "="}
    labels = wording.labels_of(
        rule_name=rule.name,
        severity=rule.severity,
        own=rule.labels,
        series=known,
        metric=metric if rule.metric == ANY_METRIC else "",
    )
    with np.errstate(all="ignore"):  # what overflows is no finite number, and holds nothing
        verdict = plan.kind.judge(seen, plan.parameters)
    return Sighting(
        series=series,
        metric=metric,
        labels=labels,
        fingerprint=wording.fingerprint(rule.pk, labels),
        verdict=verdict,
    )
