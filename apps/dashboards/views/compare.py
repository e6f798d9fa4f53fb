"""Runs laid over each other: the page, what it polls, and the same numbers as tables and as a file."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import is_fragment, page
from apps.dashboards.cells import csv_file_of
from apps.dashboards.charts import COMPARED, Chart, in_units
from apps.dashboards.numbers import whole
from apps.dashboards.selectors import compare as selectors
from apps.dashboards.selectors import compare_curves as curves
from apps.dashboards.selectors.compare import AXES, MOST, Choice, Comparison

TABLE_ROWS = 200


@page(Scope.RUNS_READ)
def overview(request: HttpRequest) -> HttpResponse:
    """``?run=<id>&run=<id>...&x=epoch|step|time|flops&controls=0|1``: two to eight runs, in the address' order."""
    found = _found(request)
    drawn = _drawn(found)
    context: dict[str, Any] = {
        "found": found,
        "drawn": drawn,
        "axes": {name: {"title": title, "query": _with(request, x=name)} for name, title in AXES.items()},
        "axis_title": AXES[found.choice.axis],
        "charts": [chart for chart in COMPARED.values() if chart.name != found.choice.axis],
        "query": request.GET.urlencode(),
        "panels": curves.panels(drawn),
        "to_add": selectors.to_add(found.choice.ids) if len(found.columns) < MOST else [],
        "most": MOST,
    }
    if found.is_one:
        context |= {"verdicts": selectors.verdicts(found.columns), "leaders": selectors.leaders(found.columns)}
        context["toggle_controls"] = _with(request, controls="0" if found.with_controls else "1")
    missing = bool(found.unknown or found.choice.unreadable) and not found.is_one
    return render(request, "runs/compare.html", context, status=404 if missing else 200)


@page(Scope.RUNS_READ)
def points(request: HttpRequest) -> HttpResponse:
    """JSON of ``compare_curves.payload``, or 304 when nothing has changed since that ETag."""
    found = _found(request)
    drawn = _drawn(found)
    etag = curves.etag(found, drawn)
    if request.headers.get("If-None-Match") == etag:
        response: HttpResponse = HttpResponse(status=304)
    else:
        response = JsonResponse(curves.payload(found, drawn))
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    return response


@page(Scope.RUNS_READ)
def table(request: HttpRequest, chart: str) -> HttpResponse:
    """The points of a chart by epoch, newest first, one column a line; ``?before=<epoch>`` leads to older ones."""
    if chart not in COMPARED:
        raise Http404
    shown, found = COMPARED[chart], _found(request)
    drawn = _drawn(found)
    before = whole(request.GET.get("before"))
    rows, older = curves.table(drawn, shown.columns[0].name, before=before, most=TABLE_ROWS)
    context = {
        "chart": shown,
        "drawn": drawn,
        "rows": [(epoch, list(_in_units(shown, values))) for epoch, values in rows],
        "older": older,
        "query": _with(request, before=str(older)),
        "back": request.GET.urlencode(),
    }
    return render(request, "runs/_compare_table.html" if is_fragment(request) else "runs/compare_table.html", context)


def _in_units(chart: Chart, values: list[float | None]) -> list[str]:
    return [in_units(chart.columns[0], value) for value in values]


@page(Scope.RUNS_READ)
def csv_file(request: HttpRequest) -> StreamingHttpResponse:
    """Every measurement of the runs, and of their controls where those are drawn, in the units of storage."""
    return csv_file_of("runs-compared.csv", curves.TITLES, curves.file_rows(_drawn(_found(request))))


def _found(request: HttpRequest) -> Comparison:
    return selectors.comparison(Choice.parse(request.GET))


def _drawn(found: Comparison) -> list[curves.Line]:
    drawn = curves.lines(found)
    return [line for line in drawn if found.with_controls or not line.is_control]


def _with(request: HttpRequest, **changes: str) -> str:
    """The query string with some values replaced; the runs keep their order. A zoom ends with its axis."""
    query = request.GET.copy()
    for name in ("from", "to") if "x" in changes else ():
        query.pop(name, None)
    for name, value in changes.items():
        query[name] = value
    return query.urlencode()
