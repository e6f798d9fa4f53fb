"""Recoveries of runs: what was lost, from where it went on, how long each stage took."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.core.ids import parse_id
from apps.dashboards.access import page, viewer
from apps.dashboards.selectors import recovery as selectors


@page(Scope.RUNS_READ)
def listing(request: HttpRequest) -> HttpResponse:
    """``?run=<id>`` shows those of one run; ``?after=<id>`` older ones."""
    run_id, after = parse_id(request.GET.get("run", "")), parse_id(request.GET.get("after", ""))
    run = selectors.run_of(run_id) if run_id else None
    if run_id and run is None:
        raise Http404
    context = {
        "run": run,
        "after": after,
        "found": selectors.page(run_id=run_id, after=after),
        "totals": selectors.totals(run_id),
        "target": selectors.TARGET_SECONDS,
        "may_audit": viewer(request).has_scope(Scope.AUDIT_READ),
    }
    return render(request, "recovery/list.html", context)
