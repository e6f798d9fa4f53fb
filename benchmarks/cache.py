"""The kernel cache on servers of the bench's own: `manage.py bench cache [--quick]`.

What a read from L1 costs beside other caches; which eviction policy hits most; what a read costs in each tier by size;
fifty misses at once; a Redis that is frozen; a thousand kills; and the seed document's claim, by a workload that is
replayed over the real tiers. Each part is a module, which says how it measures.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings

from benchmarks import cache_faults, cache_kills, cache_l1, cache_policies, cache_replay, cache_tiers, targets
from benchmarks.cache_site import own_valkeys
from benchmarks.database import own_database
from benchmarks.targets import Measurement, rows

ON_SERVERS: dict[str, Any] = {"tiers": cache_tiers, "faults": cache_faults, "replay": cache_replay}
"""What works on servers that are as in production, by its name in the result."""
PARTS: dict[str, Any] = {"l1": cache_l1, "policies": cache_policies, **ON_SERVERS, "kills": cache_kills}
QUICK_LEASE_SECONDS = 1.0
"""So that a quick look need not wait the usual five for a reader that was killed with the lease."""
OF_FULL_SIZE = frozenset(
    {
        *("overall_hits_replayed_workload", "acknowledged_writes_lost_in_1000_kills"),
        "latency_weighted_hits_minus_s3fifo_worst_size",
    }
)
HEADINGS = {
    "l1": "A read from L1 beside other caches",
    "policies": "Eviction policies",
    "tiers": "Reads of one kernel, verified, from each tier; beside them bare reads of the same bytes",
    "faults": "Many that miss at once, and a Redis that does not answer",
    "replay": "The seed document's claim: a workload, replayed",
    "kills": "Kills",
}


def run(quick: bool = False, say: Callable[[str], Any] = print, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Every figure of the area, and how it came about, as JSON types. ``seeds``: of the traces for the policies."""
    found = {
        "l1": cache_l1.measure(quick=quick, say=say),
        "policies": cache_policies.measure(quick=quick, seeds=seeds, say=say),
        **_on_servers(quick=quick, say=say),
    }
    measured = {
        name: figure for part, module in PARTS.items() for name, figure in module.measurements(found[part]).items()
    }
    return {"bench": "cache", "quick": quick, **found, "targets": rows("cache", _held_to(measured, quick=quick))}


def _on_servers(*, quick: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    kills = cache_kills.QUICK_KILLS if quick else cache_kills.FULL_KILLS
    changed = {"lease": QUICK_LEASE_SECONDS} if quick else {}
    with own_database(say):
        folder = Path(settings.ESPER_HOME)
        with own_valkeys(folder, **changed) as site:
            found = {part: module.measure(site, quick=quick, say=say) for part, module in ON_SERVERS.items()}
        # In a folder of its own: whoever is killed here shares no objects with the others.
        own = folder / "kills"
        own.mkdir()
        with own_valkeys(own, lease=cache_kills.LEASE_SECONDS) as site:
            return {**found, "kills": cache_kills.run(site, kills, say)}


def _held_to(measured: dict[str, Measurement], *, quick: bool) -> dict[str, Measurement]:
    """Rows that name sizes, a number or a workload are held to them: a quick look has fewer of each."""
    return {name: found for name, found in measured.items() if not quick or name not in OF_FULL_SIZE}


def table(result: dict[str, Any]) -> str:
    """The result for people: every row that the project is held to, reached or not, then what lies behind it."""
    lines = ["The kernel cache" + (", a quick look" if result["quick"] else ""), "", *targets.lines(result["targets"])]
    for part, module in PARTS.items():
        lines += ["", f"  {HEADINGS[part]}", "", *module.lines(result[part])]
    return "\n".join(lines) + "\n"
