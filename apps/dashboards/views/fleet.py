"""The parts of the platform, and which worker holds which run."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import page
from apps.dashboards.selectors import fleet as selectors


@page(Scope.RUNS_READ)
def overview(request: HttpRequest) -> HttpResponse:
    parts = selectors.parts()
    context = {
        "parts": parts,
        "failing": [part for part in parts if part.problem],
        "queues": selectors.queues(),
        "waiting": selectors.waiting(),
        "leases": selectors.leases(),
    }
    return render(request, "fleet.html", context)
