"""The audit trail, newest first."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import page
from apps.dashboards.chips import toggle
from apps.dashboards.selectors import trail


@page(Scope.AUDIT_READ)
def listing(request: HttpRequest) -> HttpResponse:
    wanted = trail.TrailFilter.parse(request.GET)
    kept = {name: value for name, value in (("family", wanted.family), ("subject", wanted.subject)) if value}
    chips = [toggle(kept, "family", family, family) for family in trail.FAMILIES]
    return render(request, "audit/list.html", {"page": trail.page(wanted), "wanted": wanted, "chips": chips})
