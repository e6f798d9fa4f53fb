"""What runs out: disks, the database's budget, the cache, workers, series."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Count, Q

from apps.core.errors import Unavailable
from apps.kernels.cache import reporting
from apps.kernels.cache.segments import TierName
from apps.observability.intervals import share
from apps.observability.models import Series, Severity
from apps.observability.recommendations.contracts import (
    Evidence,
    Recommendation,
    Rule,
    amount,
    duration,
    measured,
    percent,
)
from apps.observability.recommendations.facts import Facts, named
from apps.observability.selectors.trends import SeriesTrend
from apps.observability.store.times import moment
from apps.observability.trends import Direction, Forecast, Trend, forecast

HOUR, DAY = 3_600.0, 86_400.0
FORESIGHT = 4.0
"""A line is drawn on for so many times as long as it has been observed, and not further."""
WEEK = 7 * 24


@dataclass(frozen=True, slots=True)
class CacheRoom:
    """What decides how much a tier of the cache holds."""

    words: str
    remedy: str


ROOMS: Mapping[TierName, CacheRoom] = {
    TierName.L1: CacheRoom("the memory of each process", "Raise ESPER_CACHE_L1_BYTES, and start the processes anew."),
    TierName.L2: CacheRoom("Redis", "Raise maxmemory of the Redis that ESPER_CACHE_L2_URL names."),
}


def disk_full(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """By the trend of a week, or because it nearly is."""
    limits = rule.limits
    for seen in facts.trends("esper_host_disk_used_ratio", hours=WEEK):
        until = _until(seen, limits["full_ratio"], limits["within_days"])
        used = seen.last or 0.0
        if used < limits["full_ratio"] and until.at is None:
            continue
        where, link = named(seen.series), facts.query_link(seen.series, hours=WEEK)
        is_urgent = used >= limits["full_ratio"] or _is_before(until, facts.now, limits["urgent_days"])
        what = f"The {where} is {percent(used)} full"
        if used < limits["full_ratio"]:
            what += f" and reaches {percent(limits['full_ratio'])} {_when(until)}"
        yield Recommendation(
            rule=rule.key,
            subject=where,
            severity=Severity.CRITICAL if is_urgent else Severity.WARNING,
            sentence=f"{what}.",
            evidence=(
                Evidence(what="used now", value=used, unit="ratio", link=link),
                *_evidence(seen, "growth a day", "ratio", DAY, link),
            ),
            remedy="Give it more room, archive checkpoints (a policy's archive_after_hours), or shorten retention: "
            "ESPER_METRICS_RAW_DAYS, keep_days of the checkpoint policies.",
            link="/checkpoints",
        )


def database_full(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Against ESPER_DATABASE_BUDGET_BYTES; without one its disk is what counts."""
    budget = settings.DATABASE_BUDGET_BYTES
    if not budget:
        return
    for seen in facts.trends("esper_database_bytes", hours=WEEK):
        until = _until(seen, float(budget), rule.limits["within_days"])
        size = seen.last or 0.0
        if size < budget and until.at is None:
            continue
        link = facts.query_link(seen.series, hours=WEEK)
        is_urgent = size >= budget or _is_before(until, facts.now, rule.limits["urgent_days"])
        goes_on = "." if size >= budget else f", which it reaches {_when(until)}."
        yield Recommendation(
            rule=rule.key,
            subject="database",
            severity=Severity.CRITICAL if is_urgent else Severity.WARNING,
            sentence=f"The database has {amount(size)} of its budget of {amount(budget)}{goes_on}",
            evidence=(
                Evidence(what="size now", value=size, unit="bytes", link=link),
                Evidence(what="budget", value=budget, unit="bytes"),
                *_evidence(seen, "growth a day", "bytes", DAY, link),
            ),
            remedy="Raise ESPER_DATABASE_BUDGET_BYTES if there is room, purge kernels by a retention plan, "
            "or shorten ESPER_METRICS_RAW_DAYS.",
            link="/library/retirement",
        )


def cache_too_small(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Copies leave a tier for others, and are missed."""
    limits = rule.limits
    for tier, room in ROOMS.items():
        found = reporting.tier(facts.cache, tier)
        reads = found.hits + found.misses
        hits = share(found.hits, reads)
        if reads < limits["least_reads"] or found.evictions < limits["evictions_per_read"] * reads:
            continue
        if hits.high is None or hits.high >= limits["hit_ratio"]:
            continue
        yield Recommendation(
            rule=rule.key,
            subject=str(tier),
            severity=Severity.INFO,
            sentence=f"Tier {tier} of the cache ({room.words}) is too small: it answered {percent(hits.value)} of "
            f"{reads:,} reads in a day, and let {found.evictions:,} copies go.",
            evidence=(
                measured("reads that it answered", hits, unit="ratio", link="/cache"),
                Evidence(what="copies that left it in a day", value=found.evictions, link="/cache"),
                *_budget(tier),
            ),
            remedy=room.remedy,
            link="/cache",
        )


def workers_short(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """The oldest message of a queue waits long, and ever longer."""
    hours = rule.limits["hours"]
    for seen in facts.trends("esper_queue_oldest_age_seconds", hours=hours):
        found, age = seen.found, seen.last or 0.0
        if age < rule.limits["wait_seconds"] or found is None or found.direction is not Direction.RISING:
            continue
        queue, link = str(seen.series.labels.get("queue", "")), facts.query_link(seen.series, hours=hours)
        yield Recommendation(
            rule=rule.key,
            subject=queue,
            severity=Severity.WARNING,
            sentence=f"Work on queue {queue} waits for {duration(age)}, and ever longer: there are too few workers.",
            evidence=(
                Evidence(what="age of the oldest message", value=age, unit="seconds", link=link),
                *_evidence(seen, "growth an hour", "seconds", HOUR, link),
            ),
            remedy=f"Start another worker of the queue, or one with more processes: celery worker --queues {queue} "
            "--concurrency N.",
        )


def too_many_series(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Near the cap beyond which new series are refused, or most of them unused. Two queries."""
    unused_since = facts.now - timedelta(days=rule.limits["unused_days"])
    is_unused = Q(last_at__lt=unused_since) | Q(last_at=None, created_at__lt=unused_since)
    series = Series.objects.filter(workspace=facts.workspace_id) if facts.workspace_id else Series.objects
    counted = series.aggregate(all=Count("pk"), unused=Count("pk", filter=is_unused))
    cap, unused = settings.METRICS_MAX_SERIES, share(counted["unused"], counted["all"])
    is_near = counted["all"] >= rule.limits["cap_ratio"] * cap
    is_idle = unused.n >= rule.limits["least_series"] and (unused.low or 0.0) > rule.limits["unused_ratio"]
    if not is_near and not is_idle:
        return
    largest = series.order_by().values_list("name").annotate(number=Count("pk")).order_by("-number", "name")[:3]
    yield Recommendation(
        rule=rule.key,
        subject="series",
        severity=Severity.WARNING if is_near else Severity.INFO,
        sentence=f"The store has {unused.n:,} of at most {cap:,} series"
        f"{', beyond which new ones are refused' if is_near else ''}; {unused.count:,} have had no sample for "
        f"{rule.limits['unused_days']:.0f} days.",
        evidence=(
            Evidence(what="series", value=unused.n, link="/api/v1/metrics/series"),
            Evidence(what="cap", value=cap),
            measured("without a sample", unused, unit="ratio"),
            *(
                Evidence(what=f"series of {name}", value=number, link=f"/api/v1/metrics/series?name={name}")
                for name, number in largest
            ),
        ),
        remedy="Let clients send fewer different labels, shorten ESPER_METRICS_1H_DAYS so that idle series go, "
        "or raise ESPER_METRICS_MAX_SERIES.",
        link="/fleet",
    )


def _until(seen: SeriesTrend, threshold: float, days: float) -> Forecast:
    found = seen.found
    if found is None or found.direction is not Direction.RISING:
        return Forecast()
    return forecast(found, threshold, horizon=min(days * DAY, FORESIGHT * (found.end - found.start)))


def _is_before(until: Forecast, now: datetime, days: float) -> bool:
    return until.at is not None and moment(until.at) < now + timedelta(days=days)


def _when(until: Forecast) -> str:
    """The date by the line, and those by the ends of its interval."""
    if until.at is None:
        return "at a date that cannot be told"
    earliest = "" if until.earliest is None else f"not before {moment(until.earliest):%Y-%m-%d}"
    latest = "perhaps later" if until.latest is None else f"not after {moment(until.latest):%Y-%m-%d}"
    return f"on {moment(until.at):%Y-%m-%d} ({', '.join(part for part in (earliest, latest) if part)})"


def _evidence(seen: SeriesTrend, what: str, unit: str, length: float, link: str) -> Iterator[Evidence]:
    found: Trend | None = seen.found
    if found is None:
        return
    yield Evidence(
        what=what,
        value=found.slope * length,
        unit=unit,
        n=found.points,
        low=found.low * length,
        high=found.high * length,
        link=link,
    )


def _budget(tier: TierName) -> Iterator[Evidence]:
    if tier == TierName.L1:
        yield Evidence(what="budget of a process", value=settings.KERNEL_CACHE["l1_bytes"], unit="bytes")
        return
    try:
        redis = reporting.redis()
    except Unavailable:
        return
    if redis is not None and redis.limit_bytes is not None:
        yield Evidence(what="maxmemory", value=redis.limit_bytes, unit="bytes")
