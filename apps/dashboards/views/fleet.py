"""What stands behind the platform."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from apps.accounts.roles import Scope
from apps.dashboards.access import is_fragment, page
from apps.dashboards.chips import Chip
from apps.dashboards.selectors import fleet, metrics
from apps.observability.selectors import recommendations


@page(Scope.RUNS_READ)
def overview(request: HttpRequest) -> HttpResponse:
    """Whether each part answers, how hosts and queues are, and what runs short. ``?range``: of the charts. For htmx:
    the first lines alone, again."""
    parts, signals = fleet.parts(), fleet.signals()
    queues, hosts = fleet.queues(signals), fleet.hosts(signals)
    context: dict[str, Any] = {
        "now": timezone.now(),
        "parts": parts,
        "failing": [part for part in parts if part.problem],
        "signals": signals,
        "figures": fleet.figures(signals),
        "hosts": hosts,
        "silent_hosts": [host for host in hosts if host.is_stale],
        "queues": queues,
        "unserved": [queue for queue in queues if queue.is_served is False],
    }
    if is_fragment(request):
        return render(request, "fleet/_now.html", context)
    word = metrics.range_of(request.GET.get("range"))
    context |= {
        "silent_collectors": fleet.silent_collectors(signals),
        "waiting": fleet.waiting(),
        "leases": fleet.leases(),
        "advice": recommendations.advice(),
        "charts": fleet.charts(word, signals),
        "ranges": [Chip(metrics.SPOKEN[name], name == word, f"range={name}") for name in metrics.RANGES],
    }
    return render(request, "fleet.html", context)
