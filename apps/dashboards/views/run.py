"""The page of one run: its panels, and the commands that a person gives it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from apps.accounts.roles import Scope
from apps.core.actors import actor_of
from apps.core.errors import ServiceError
from apps.dashboards import health
from apps.dashboards.access import is_fragment, page, viewer
from apps.dashboards.charts import CHARTS
from apps.dashboards.selectors import live, recorded, recovery, story, watch
from apps.dashboards.stages import SEED_LOOKS
from apps.morphogenesis.protocols import Command
from apps.training import services
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun

MAX_REASON = 500


@page(Scope.RUNS_READ)
def detail(request: HttpRequest, run_id: UUID) -> HttpResponse:
    run = _run(run_id)
    return render(request, "runs/detail.html", _page_of(request, run))


@page(Scope.RUNS_READ)
def panels(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Everything on the page but the curves, to be put in place of what stands there."""
    return render(request, "runs/_panels.html", panels_of(request, _run(run_id)) | {"is_update": True})


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def stop(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """What stopping would do and what it would not; a POST does it."""
    if request.method == "POST":
        return _give(request, run_id, services.stop_run)
    run = _run(run_id)
    context = {
        "run": run,
        "snapshot": story.latest_snapshot(run),
        "live_seeds": [account for account in story.ledger_of(run) if account.is_live],
        "last_epoch": live.stamp(run).last_epoch,
        "may_stop": "stop" in offered(run),
    }
    return render(request, "runs/_stop.html" if is_fragment(request) else "runs/stop.html", context)


@page(Scope.RUNS_WRITE, methods=("POST",))
def pause(request: HttpRequest, run_id: UUID) -> HttpResponse:
    return _give(request, run_id, services.pause_run)


@page(Scope.RUNS_WRITE, methods=("POST",))
def resume(request: HttpRequest, run_id: UUID) -> HttpResponse:
    return _give(request, run_id, services.resume_run)


def _give(request: HttpRequest, run_id: UUID, command: Callable[..., TrainingRun]) -> HttpResponse:
    """Give a command; then back to the page, or (asked for by htmx) its panels as they are now."""
    run, refusal = _run(run_id), ""
    try:
        command(run=run, actor=actor_of(request), reason=request.POST.get("reason", "").strip()[:MAX_REASON])
    except ServiceError as error:
        refusal = f"Not done: {error.detail}."
    run = _run(run_id)
    status = 409 if refusal else 200
    if is_fragment(request):
        context = panels_of(request, run) | {"is_update": True, "refusal": refusal}
        return render(request, "runs/_panels.html", context, status=status)
    if refusal:
        return render(request, "runs/detail.html", _page_of(request, run) | {"refusal": refusal}, status=status)
    return redirect("dashboards:run", run_id=run_id)


def offered(run: TrainingRun) -> list[str]:
    """The commands that make sense now, the primary one first and the destructive one last."""
    if run.state == RunState.RUNNING:
        if run.command == Command.STOP:
            return []
        return ["resume" if run.command == Command.PAUSE else "pause", "stop"]
    if run.state == RunState.PAUSED:
        return ["resume", "stop"] if run.command != Command.CONTINUE else ["stop"]
    if run.state in {RunState.QUEUED, RunState.RECOVERING}:
        return ["stop"]
    return []


def _page_of(request: HttpRequest, run: TrainingRun) -> dict[str, Any]:
    sites = live.lanes(run)["sites"]
    return panels_of(request, run) | {
        "charts": CHARTS,
        "recorded": recorded.charts(run),
        "stages": SEED_LOOKS,
        "lane_count": min(len(sites), 12),
    }


def panels_of(request: HttpRequest, run: TrainingRun) -> dict[str, Any]:
    """The context of the panels, in a fixed number of queries."""
    stamp = live.stamp(run)
    ledger = story.ledger_of(run)
    names = story.kernel_names(run, [account.seed for account in ledger])
    decisions, decisions_left_out = story.decisions_of(run, names)
    checkpoints, checkpoint_count = story.checkpoints_of(run)
    may_write = viewer(request).has_scope(Scope.RUNS_WRITE)
    watched = watch.watched(run)
    return {
        "run": run,
        "stamp": stamp,
        "health": health.of(stamp, watched.firing),
        "watched": watched,
        "since": story.since(run),
        "asked": story.last_command(run) if run.command != Command.CONTINUE else None,
        "offered": offered(run) if may_write else [],
        "may_write": may_write,
        "is_final": story.is_final(run),
        "ledger": ledger,
        "decisions": decisions,
        "decisions_left_out": decisions_left_out,
        "checkpoints": checkpoints,
        "checkpoint_count": checkpoint_count,
        "recoveries": recovery.recoveries_of(run),
        "comparison": story.comparison_of(run),
        "has_lanes": bool(ledger) or bool(live.sites_of(run)),
        "may_audit": viewer(request).has_scope(Scope.AUDIT_READ),
        "again": "?" + urlencode({name: getattr(run, name) for name in ("task", "host", "epochs", "seed")}),
    }


def _run(run_id: UUID) -> TrainingRun:
    return get_object_or_404(TrainingRun.objects.select_related("owner", "control_of"), pk=run_id)
