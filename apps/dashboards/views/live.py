"""What a run page fetches again and again, and the same numbers as tables and files."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render

from apps.accounts.roles import Scope
from apps.dashboards.access import is_fragment, page
from apps.dashboards.cells import csv_file_of
from apps.dashboards.charts import CHART, Chart, in_units
from apps.dashboards.numbers import whole
from apps.dashboards.selectors import live
from apps.dashboards.selectors import recorded as recordings
from apps.training.models import Decision, EpochMetric, SeedTransition, TrainingRun

TABLE_ROWS = 200
SEED_COLUMNS = (
    "epoch",
    "step",
    "seed__number",
    "seed__slot__site",
    "seed__operator",
    "source",
    "target",
    "gate",
    "reason",
)
DECISION_COLUMNS = ("epoch", "step", "sequence", "action", "rule", "site", "seed_number", "kernel_digest", "reason")


@page(Scope.RUNS_READ)
def poll(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """``?since=<epoch>``: JSON of ``selectors.live.payload``, or 304 when nothing has changed since that ETag."""
    run = get_object_or_404(TrainingRun, pk=run_id)
    stamp = live.stamp(run)
    if request.headers.get("If-None-Match") == stamp.etag:
        response: HttpResponse = HttpResponse(status=304)
    else:
        since = whole(request.GET.get("since"))
        response = JsonResponse(live.payload(stamp, since=since, is_first_page="page" not in request.GET))
    response["ETag"] = stamp.etag
    response["Cache-Control"] = "private, no-cache"
    return response


@page(Scope.RUNS_READ)
def recorded(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """JSON of ``selectors.recorded.payload``, or 304 when it is what that ETag was of."""
    told = recordings.payload(get_object_or_404(TrainingRun, pk=run_id))
    etag = recordings.etag(told)
    is_known = request.headers.get("If-None-Match") == etag
    response: HttpResponse = HttpResponse(status=304) if is_known else JsonResponse(told)
    response["ETag"] = etag
    response["Cache-Control"] = "private, no-cache"
    return response


@page(Scope.RUNS_READ)
def table(request: HttpRequest, run_id: UUID, chart: str) -> HttpResponse:
    """The points of a chart as a table, newest first; ``?before=<epoch>`` leads to older ones."""
    run, shown = get_object_or_404(TrainingRun, pk=run_id), _chart(chart)
    before = whole(request.GET.get("before"))
    metrics = EpochMetric.objects.filter(run=run).order_by("-epoch")
    if before:
        metrics = metrics.filter(epoch__lt=before)
    rows = list(metrics.values_list("epoch", *(column.name for column in shown.columns))[: TABLE_ROWS + 1])
    context = {
        "run": run,
        "chart": shown,
        "rows": [(epoch, list(_in_units(shown, values))) for epoch, *values in rows[:TABLE_ROWS]],
        "older": rows[TABLE_ROWS - 1][0] if len(rows) > TABLE_ROWS else None,
    }
    template = "runs/_table.html" if is_fragment(request) else "runs/table.html"
    return render(request, template, context)


def _in_units(chart: Chart, values: list[float | None]) -> Iterator[str]:
    for column, value in zip(chart.columns, values, strict=True):
        yield in_units(column, value)


@page(Scope.RUNS_READ)
def csv_file(request: HttpRequest, run_id: UUID, chart: str) -> StreamingHttpResponse:
    """Every row behind one chart, or of ``seeds`` or ``decisions``, in the units of storage (nats, shares, FLOP)."""
    run = get_object_or_404(TrainingRun, pk=run_id)
    names, rows = _csv_rows(run, chart)
    return csv_file_of(f"run-{run.pk}-{chart}.csv", names, rows.iterator(chunk_size=2000))


def _csv_rows(run: TrainingRun, chart: str) -> tuple[list[str], QuerySet[Any, tuple[Any, ...]]]:
    """The column titles, and the rows in the order of time."""
    if chart == "seeds":
        rows = SeedTransition.objects.filter(run=run).order_by("sequence").values_list(*SEED_COLUMNS)
        return [name.replace("seed__slot__", "").replace("__", "_") for name in SEED_COLUMNS], rows
    if chart == "decisions":
        return [*DECISION_COLUMNS], Decision.objects.filter(run=run).order_by("sequence").values_list(*DECISION_COLUMNS)
    names = ["epoch", "step", *(column.name for column in _chart(chart).columns)]
    return names, EpochMetric.objects.filter(run=run).order_by("epoch").values_list(*names)


def _chart(name: str) -> Chart:
    if name not in CHART:
        raise Http404
    return CHART[name]
