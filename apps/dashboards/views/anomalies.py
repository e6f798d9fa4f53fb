"""What the detector finds odd: now, and before."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import page
from apps.dashboards.chips import toggle
from apps.dashboards.selectors import alert_setup, anomalies
from apps.dashboards.selectors.anomalies import AnomalyFilter
from apps.observability.models import Series


@page(Scope.RUNS_READ)
def listing(request: HttpRequest) -> HttpResponse:
    """What is odd now, the most pressing first; below, what was: ``?run=&series=&component=``."""
    wanted = AnomalyFilter.of(request.GET.dict())
    kept = wanted.kept
    words = {"run": "this run", "series": "this series", "component": wanted.component}
    odd = anomalies.odd_now()
    context = {
        "odd": odd,
        "ongoing": sum(line.advice.ongoing for line in odd),
        "page": anomalies.page(wanted),
        "wanted": wanted,
        "chips": [toggle(kept, name, value, words[name]) for name, value in kept.items()],
        "tab": "anomalies",
        "counts": alert_setup.counts(),
        "has_series": Series.objects.exists(),
    }
    return render(request, "alerts/anomalies.html", context)
