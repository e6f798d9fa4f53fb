"""Measuring, measured: `manage.py bench metrics [--quick]`, on servers of the bench's own.

What a call in the loop costs, what the platform's own tasks cost, how fast pages of a month are against the naive
table, and how many bytes a sample of history takes. Quick repeats less, and leaves out the series that no page shows.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from django.conf import settings

from benchmarks import metrics_cost, metrics_layouts, targets
from benchmarks.cache_site import in_fresh_process, own_valkeys
from benchmarks.database import own_database
from benchmarks.targets import rows


def run(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Every figure of the area, and how it came about, as JSON types."""
    logging.getLogger("apps.observability").setLevel(logging.WARNING)  # a line for each day that is packed
    with own_database(say) as cluster, own_valkeys(Path(settings.ESPER_HOME)):
        layouts = metrics_layouts.measure(
            cluster.url("owner"), others=0 if quick else metrics_layouts.OTHERS, rounds=3 if quick else 12, say=say
        )
        say("running the platform's own tasks ...")
        cost = in_fresh_process(metrics_cost.own_cost, 5 if quick else 40)
        say("recording in a loop, scraping, storing ...")
        loop = in_fresh_process(metrics_cost.calls, quick)
    found = metrics_cost.measured(loop.recorded, cost) | metrics_layouts.measured(layouts)
    return {
        "bench": "metrics",
        "own_cost_percent": metrics_cost.medians(cost["percent"]),
        "own_series": cost["series"],
        "idle_mib": cost["idle_mib"],
        "scrape": {"samples": loop.scraped["samples"], "ms": median(loop.scraped["ms"])},
        "flush_100_samples_cpu_ms": median(loop.flushed),
        "ingested_per_s": {name: median(found) for name, found in loop.ingested.items()},
        "layouts": layouts,
        "targets": rows("metrics", found),
    }


def table(result: dict[str, Any]) -> str:
    """The result for people: every row that the project is held to, reached or not, and what has no target."""
    layouts, own = result["layouts"], result["own_cost_percent"]
    sizes = layouts["bytes_per_sample"]
    lines = ["Metrics", "", *targets.lines(result["targets"]), ""]
    lines += [f"  {name:<24}{percent:>8.3f} % of one core" for name, percent in own.items()]
    lines += [
        f"  all of these            {sum(own.values()):>8.3f} % of one core, with {result['own_series']} series",
        f"  a scrape                {result['scrape']['ms']:>8.1f} ms, {result['scrape']['samples']} samples",
        f"  storing 100 samples     {result['flush_100_samples_cpu_ms']:>8.2f} ms of CPU",
        f"  taken by the service    {result['ingested_per_s']['service']:>8,.0f} samples a second",
        f"  taken by the API        {result['ingested_per_s']['api']:>8,.0f} samples a second",
        f"  30 days of 8 series     {layouts['page_30d_ms']:>8.1f} ms; naive {layouts['naive_30d_ms']:,.0f} ms",
        f"  24 hours of 8 series    {layouts['page_24h_ms']:>8.1f} ms",
        f"  a packed day, by minute {layouts['packed_day_ms']:>8.1f} ms",
        f"  averages                {layouts['averages_per_million_s']:>8.2f} s of a million samples",
        f"  packing                 {layouts['packing_per_million_s']:>8.2f} s of a million samples",
        f"  bytes a sample          {sizes['naive']:>8.1f} naive, {sizes['narrow']:.1f} narrow,"
        f" {sizes['history']:.1f} packed",
    ]
    return "\n".join(lines) + "\n"
