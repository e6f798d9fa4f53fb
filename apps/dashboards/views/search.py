"""The search box of the top line."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from apps.accounts.roles import Scope
from apps.core.ids import parse_id
from apps.dashboards.access import page, viewer
from apps.dashboards.selectors import search
from apps.dashboards.selectors.runs import clean_text


@page(Scope.RUNS_READ)
def results(request: HttpRequest) -> HttpResponse:
    """``?q=``: what it finds; a whole id leads straight to its page."""
    text = clean_text(request.GET.get("q", ""))
    hits = search.find(text, scopes=viewer(request).scopes)
    if parse_id(text) and hits.count == 1:
        if hits.runs:
            return redirect("dashboards:run", run_id=hits.runs[0].pk)
        if hits.kernels:
            return redirect("dashboards:kernel", kernel_id=hits.kernels[0].pk)
        if hits.checkpoints:
            return redirect("dashboards:checkpoint", checkpoint_id=hits.checkpoints[0].pk)
        if hits.alerts:
            return redirect("dashboards:alert", alert_id=hits.alerts[0].pk)
        if hits.rules:
            return redirect(f"{reverse('dashboards:alert-rules')}#r-{hits.rules[0].pk}")
        return redirect("dashboards:blueprint", blueprint_id=hits.blueprints[0].pk)
    if hits.event is not None:
        return redirect("dashboards:audit-event", event_id=hits.event.pk)
    return render(request, "search.html", {"text": text, "hits": hits, "limit": search.MAX_HITS})
