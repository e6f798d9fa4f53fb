"""What stands behind the platform."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import page
from apps.dashboards.chips import Chip
from apps.dashboards.selectors import fleet, metrics
from apps.observability.selectors import recommendations


@page(Scope.RUNS_READ)
def overview(request: HttpRequest) -> HttpResponse:
    """Whether each part answers, how hosts and queues are, and what runs short. ``?range``: of the charts."""
    word = metrics.range_of(request.GET.get("range"))
    parts, signals = fleet.parts(), fleet.signals()
    queues, hosts = fleet.queues(signals), fleet.hosts(signals)
    context = {
        "parts": parts,
        "failing": [part for part in parts if part.problem],
        "signals": signals,
        "figures": fleet.figures(signals),
        "hosts": hosts,
        "silent_hosts": [host for host in hosts if host.is_stale],
        "silent_collectors": fleet.silent_collectors(signals),
        "queues": queues,
        "unserved": [queue for queue in queues if queue.is_served is False],
        "waiting": fleet.waiting(),
        "leases": fleet.leases(),
        "advice": recommendations.advice(),
        "charts": fleet.charts(word),
        "ranges": [Chip(metrics.SPOKEN[name], name == word, f"range={name}") for name in metrics.RANGES],
    }
    return render(request, "fleet.html", context)
