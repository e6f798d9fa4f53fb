"""The kernel cache on servers of the bench's own: `manage.py bench cache [--quick]`.

What a read costs in each tier by size; fifty misses at once; a Redis that is frozen; a thousand kills; and the seed
document's claim, by a workload that is replayed over the real tiers. Each part is a module, which says how it measures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings

from benchmarks import cache_faults, cache_kills, cache_replay, cache_tiers, targets
from benchmarks.cache_site import Site, own_valkeys
from benchmarks.database import own_database
from benchmarks.targets import Measurement, rows

PARTS: dict[str, Any] = {"tiers": cache_tiers, "faults": cache_faults, "replay": cache_replay}
"""What works on servers as they are in production, by its name in the result."""
QUICK_LEASE_SECONDS = 1.0
"""So that a quick look need not wait the usual five for a reader that was killed with the lease."""
HEADINGS = {
    "tiers": "Reads of one kernel, verified, from each tier; beside them bare reads of the same bytes",
    "faults": "Many that miss at once, and a Redis that does not answer",
    "replay": "The seed document's claim: a workload, replayed",
    "kills": "Kills",
}


def run(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Every figure of the area, and how it came about, as JSON types."""
    with own_database(say):
        folder = Path(settings.ESPER_HOME)
        kills = _kills(folder / "kills", quick=quick, say=say)
        with own_valkeys(folder, **({"lease": QUICK_LEASE_SECONDS} if quick else {})) as site:
            parts = _parts(site, quick=quick, say=say)
    measured = {
        name: found for part, module in PARTS.items() for name, found in module.measurements(parts[part]).items()
    }
    measured |= cache_kills.measurements(kills)
    return {
        "bench": "cache",
        "quick": quick,
        **parts,
        "kills": kills,
        "targets": rows("cache", _held_to(measured, quick=quick)),
    }


def _parts(site: Site, *, quick: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    return {part: module.measure(site, quick=quick, say=say) for part, module in PARTS.items()}


def _kills(folder: Path, *, quick: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    folder.mkdir()
    with own_valkeys(folder, lease=cache_kills.LEASE_SECONDS) as site:
        return cache_kills.run(site, cache_kills.QUICK_KILLS if quick else cache_kills.FULL_KILLS, say)


def _held_to(measured: dict[str, Measurement], *, quick: bool) -> dict[str, Measurement]:
    """Rows that name a number or a workload are held to it: a quick look has fewer kills, and a smaller library."""
    sized = {"overall_hits_replayed_workload", "acknowledged_writes_lost_in_1000_kills"} if quick else set()
    return {name: found for name, found in measured.items() if name not in sized}


def table(result: dict[str, Any]) -> str:
    """The result for people: every row that the project is held to, reached or not, then what lies behind it."""
    lines = ["The kernel cache" + (", a quick look" if result["quick"] else ""), "", *targets.lines(result["targets"])]
    for part, module in {**PARTS, "kills": cache_kills}.items():
        lines += ["", f"  {HEADINGS[part]}", "", *module.lines(result[part])]
    return "\n".join(lines) + "\n"
