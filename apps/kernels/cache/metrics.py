"""What `/metrics` tells about the kernel cache: what all processes count, and how each of them is."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from apps.core.registry import registry
from apps.kernels.cache.fleet import Process, fleet, processes
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.stats import BOUNDS, COUNTERS, SIZE_CLASSES, STEPS_PER_DECADE, Snapshot

HELP = {
    "hits": "Reads that the tier answered.",
    "bytes": "Bytes that the tier gave out.",
    "misses": "Reads for which the tier was asked and had nothing.",
    "fills": "Copies that the tier took.",
    "refused": "Copies that the tier did not take.",
    "evictions": "Copies that left the tier for others, or for their age.",
    "promotions": "Copies that came into the tier because they are read often.",
    "demotions": "Copies that left the tier because they are read seldom.",
    "coalesced": "Loads that were spared because another reader's was waited for.",
    "heals": "Copies in the tier that were put right from another one.",
    "corrupt": "Copies in the tier that were not what had been put there.",
    "errors": "Reads that went past the tier: it did not answer, not in time, or is left alone.",
}
EXPOSED_STEP = STEPS_PER_DECADE // 3
"""Every fourth bound is exposed, three buckets a decade: each is a series per tier."""
L1_GAUGES = {
    "bytes": ("esper_cache_l1_bytes", "Bytes in the L1 of a process."),
    "budget": ("esper_cache_l1_budget_bytes", "Bytes that the L1 of a process may have."),
    "entries": ("esper_cache_l1_entries", "Segments in the L1 of a process."),
}


def counted() -> Iterable[Metric]:
    """Raises Unavailable."""
    total = fleet("total")
    for what in COUNTERS:
        family = CounterMetricFamily(f"esper_cache_{what}", HELP[what], labels=["tier", "size"])
        for tier in TierName:
            for size_class, name in enumerate(SIZE_CLASSES):
                family.add_metric([tier, name], total.total(what, tier, size_class))
        yield family
    yield latency(total)


def latency(total: Snapshot) -> HistogramMetricFamily:
    """How long the reads that each tier answered took."""
    family = HistogramMetricFamily(
        "esper_cache_latency_seconds", "Seconds in which a tier answered a read.", labels=["tier"]
    )
    for tier in TierName:
        up_to = list(accumulate(total.buckets(tier)))
        buckets = [
            (floatToGoString(BOUNDS[index]), float(up_to[index])) for index in range(0, len(BOUNDS), EXPOSED_STEP)
        ]
        family.add_metric([tier], [*buckets, ("+Inf", float(up_to[-1]))], sum_value=total.seconds(tier))
    return family


def told() -> Iterable[Metric]:
    """What the living processes say of themselves. Raises Unavailable."""
    living = processes()
    for gauge, (name, text) in L1_GAUGES.items():
        yield _by_process(living, gauge, name, text)
    breakers = GaugeMetricFamily(
        "esper_cache_breaker_open", "1 while a process leaves the tier alone.", labels=["process", "tier"]
    )
    for process in living:
        for tier, breaker in sorted(process.gauges.get("breakers", {}).items()):
            breakers.add_metric([process.name, tier], breaker["state"] != "closed")
    yield breakers


def _by_process(living: Iterable[Process], gauge: str, name: str, text: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["process"])
    for process in living:
        if gauge in process.gauges.get("l1", {}):
            family.add_metric([process.name], process.gauges["l1"][gauge])
    return family


registry.collectors["kernel_cache"] = counted
registry.collectors["kernel_cache_processes"] = told
