"""The kernel cache over the last hour, as one number a tier: what rules and pages look at."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from apps.kernels.cache.fleet import Process, fleet, processes
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.stats import Snapshot
from apps.observability.collectors.families import families

QUANTILES = (0.5, 0.95, 0.99)
LEAST_READS = 100
"""In an hour, before a share of them means anything: the first reads of each process miss."""


def told() -> Iterable[Metric]:
    """A tier that was hardly asked has no ratio, one that nobody asked no quantiles. Raises Unavailable."""
    hour, living = fleet("1h"), processes()
    return families(
        {
            "esper_cache_hit_ratio": {(tier,): _ratio(hour, tier) for tier in TierName},
            "esper_cache_latency_quantile_seconds": {
                (tier, f"{share * 100:g}"): hour.percentile(share, tier) for tier in TierName for share in QUANTILES
            },
            "esper_cache_breakers_open": _open(living),
            "esper_cache_l1_used_ratio": _used(living),
        }
    )


def _ratio(hour: Snapshot, tier: TierName) -> float | None:
    reads = hour.total("hits", tier) + hour.total("misses", tier)
    return hour.hit_rate(tier) if reads >= LEAST_READS else None


def _open(living: Iterable[Process]) -> dict[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = {}
    for process in living:
        for tier, breaker in process.gauges.get("breakers", {}).items():
            counts[(tier,)] = counts.get((tier,), 0.0) + (breaker["state"] != "closed")
    return counts


def _used(living: Iterable[Process]) -> float | None:
    gauges = [process.gauges["l1"] for process in living if "l1" in process.gauges]
    budget = sum(gauge["budget"] for gauge in gauges)
    return sum(gauge["bytes"] for gauge in gauges) / budget if budget else None
