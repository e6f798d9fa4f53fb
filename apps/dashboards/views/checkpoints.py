"""Checkpoints of all runs, newest first."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.checkpoints.models import Checkpoint
from apps.core.ids import parse_id
from apps.dashboards.access import page
from apps.training.models import TrainingRun

PAGE_SIZE = 50


@page(Scope.RUNS_READ)
def listing(request: HttpRequest) -> HttpResponse:
    """``?run=<id>`` shows those of one run; ``?after=<id>`` older ones."""
    run_id, after = parse_id(request.GET.get("run", "")), parse_id(request.GET.get("after", ""))
    found = Checkpoint.objects.order_by("-id")
    if run_id:
        found = found.filter(run_id=run_id)
    if after:
        found = found.filter(id__lt=after)
    rows = list(found[: PAGE_SIZE + 1])
    shown = rows[:PAGE_SIZE]
    names = dict(TrainingRun.objects.filter(pk__in={row.run_id for row in shown}).values_list("pk", "name"))
    context = {
        "rows": [(row, names.get(row.run_id, str(row.run_id))) for row in shown],
        "next_after": shown[-1].pk if len(rows) > PAGE_SIZE else None,
        "run_id": run_id,
        "run_name": names.get(run_id) if run_id else None,
    }
    return render(request, "checkpoints/list.html", context)
