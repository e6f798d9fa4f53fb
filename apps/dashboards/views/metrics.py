"""Stored metrics for the charts of pages: what they poll, and the same points as a table and as a file."""

import csv
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone

from apps.accounts.roles import Scope
from apps.core.errors import ServiceError
from apps.dashboards.access import is_fragment, page
from apps.dashboards.cells import safe_cell
from apps.dashboards.selectors import metrics as selectors
from apps.dashboards.selectors.metrics import Stamp
from apps.observability.contracts import Curve

TABLE_ROWS = 300
COLUMNS = ("time", "metric", "labels", "least", "mean", "greatest")


@page(Scope.RUNS_READ)
def poll(request: HttpRequest) -> HttpResponse:
    """JSON of ``selectors.metrics.payload``; 304: nothing has changed since that ETag; 400 says what is wrong."""
    try:
        found = _stamp(request)
        if request.headers.get("If-None-Match") == found.etag:
            response: HttpResponse = HttpResponse(status=304)
        else:
            response = JsonResponse(selectors.payload(found))
    except ServiceError as error:
        return JsonResponse({"detail": _told(error)}, status=error.status)
    response["ETag"] = found.etag
    response["Cache-Control"] = "private, no-cache"
    return response


@page(Scope.RUNS_READ)
def table(request: HttpRequest) -> HttpResponse:
    """The points of a chart, the newest first."""
    context: dict[str, Any] = {"query": request.GET.urlencode()}
    try:
        drawn = selectors.curves(_stamp(request))
        context |= {
            "title": request.GET.get("title", "")[:80] or (drawn[0].series.name if drawn else "Metric"),
            "names": selectors.told_apart([curve.series for curve in drawn]),
            "rows": selectors.rows(drawn, most=TABLE_ROWS),
            "most": TABLE_ROWS,
        }
    except ServiceError as error:
        context |= {"title": "Metric", "problem": _told(error)}
    template = "metrics/_table.html" if is_fragment(request) else "metrics/table.html"
    return render(request, template, context, status=400 if "problem" in context else 200)


@page(Scope.RUNS_READ)
def csv_file(request: HttpRequest) -> HttpResponse:
    """The points of a chart, in the units of storage, in the order of time; of a counter its growth a second."""
    try:
        drawn = selectors.curves(_stamp(request))
    except ServiceError as error:
        return HttpResponse(_told(error), status=error.status, content_type="text/plain; charset=utf-8")
    response = HttpResponse(content_type="text/csv")
    response["Content-Disposition"] = f'attachment; filename="{drawn[0].series.name if drawn else "metric"}.csv"'
    writer = csv.writer(response)
    writer.writerow(COLUMNS)
    for curve in drawn:
        writer.writerows(_lines(curve))
    return response


def _lines(curve: Curve) -> list[list[object]]:
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(curve.series.labels.items()))
    columns = (curve.times.tolist(), curve.least.tolist(), curve.mean.tolist(), curve.greatest.tolist())
    name = safe_cell(curve.series.name)
    return [
        [datetime.fromtimestamp(at, tz=UTC).isoformat(), name, safe_cell(labels), *values]
        for at, *values in zip(*columns, strict=True)
    ]


def _stamp(request: HttpRequest) -> Stamp:
    return selectors.stamp(selectors.wanted_of(request.GET, timezone.now()))


def _told(error: ServiceError) -> str:
    pointer = error.errors[0].pointer.strip("/") if error.errors else ""
    return f"{pointer} {error.detail}" if pointer else error.detail
