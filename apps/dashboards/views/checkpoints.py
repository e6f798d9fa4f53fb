"""Checkpoints: what there is and what it takes, one of them in full, and what a person can have done to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from apps.accounts.admin_steps import REFUSALS, dry_run, text_of
from apps.accounts.roles import Scope
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind, Location
from apps.checkpoints.services import jobs, pinning
from apps.core.actors import Actor, actor_of
from apps.core.errors import Unavailable
from apps.core.ids import parse_id
from apps.dashboards.access import is_fragment, page, viewer
from apps.dashboards.cells import csv_file_of
from apps.dashboards.chips import checkpoint_chips
from apps.dashboards.selectors import checkpoints as selectors
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, TrainingRun

MAX_REASON = 500


FILE_COLUMNS = (
    "id", "run_id", "epoch", "step", "state", "reason", "location", "pinned", "size", "stored_bytes", "shared_bytes",
    "digest", "created_at", "verified_at", "stall_seconds", "save_seconds", "problem",
)  # fmt: skip


@page(Scope.RUNS_READ)
def listing(request: HttpRequest) -> HttpResponse:
    """``?run=<id>`` shows those of one run, over its steps; chips narrow the list, ``?after=<id>`` shows older ones."""
    wanted = selectors.CheckpointFilter.parse(request.GET)
    run = selectors.run_portrait(wanted.run_id) if wanted.run_id else None
    may_write = viewer(request).has_scope(Scope.RUNS_WRITE)
    context = {
        "found": selectors.page(wanted),
        "wanted": wanted,
        "chips": checkpoint_chips(wanted),
        "totals": selectors.totals(wanted.run_id),
        "troubles": selectors.troubles(wanted.run_id),
        "run_id": wanted.run_id,
        "portrait": run,
        "retention": selectors.retention(wanted.run_id) if wanted.run_id else None,
        "may_write": may_write,
        "may_save": may_write and run is not None and saves_itself(run.run),
    }
    return render(request, "checkpoints/list.html", context)


@page(Scope.RUNS_READ)
def csv_file(request: HttpRequest) -> StreamingHttpResponse:
    """Every checkpoint that fits the filters of the list, the newest first; sizes in bytes, times in UTC."""
    rows = selectors.CheckpointFilter.parse(request.GET).fitting().order_by("-id").values_list(*FILE_COLUMNS)
    return csv_file_of("checkpoints.csv", FILE_COLUMNS, rows.iterator(chunk_size=2000))


@page(Scope.RUNS_READ)
def detail(request: HttpRequest, checkpoint_id: UUID) -> HttpResponse:
    """One checkpoint; while work is done to it, htmx asks for its progress again and again."""
    portrait = _portrait(checkpoint_id)
    who = viewer(request)
    may_audit = who.has_scope(Scope.AUDIT_READ)
    context = {
        "portrait": portrait,
        "checkpoint": portrait.checkpoint,
        "verdict": selectors.verdict(portrait.checkpoint),
        "steps": _offered(portrait.checkpoint) if who.has_scope(Scope.RUNS_WRITE) else {},
        "may_write": who.has_scope(Scope.RUNS_WRITE),
        "may_audit": may_audit,
        "history": selectors.history(portrait.checkpoint) if may_audit else [],
    }
    return render(request, "checkpoints/detail.html", context)


@page(Scope.RUNS_READ)
def diff(request: HttpRequest, checkpoint_id: UUID) -> HttpResponse:
    """``?with=<id>``: what differs between it and another, by component and by size; without, its parent."""
    checkpoint = get_object_or_404(Checkpoint, pk=checkpoint_id)
    other_id = parse_id(request.GET.get("with", "")) or checkpoint.parent_id
    other = Checkpoint.objects.filter(pk=other_id).first() if other_id else None
    context: dict[str, Any] = {
        "checkpoint": checkpoint,
        "other": other,
        "run": TrainingRun.objects.filter(pk=checkpoint.run_id).first(),
        "others": selectors.comparable(checkpoint),
    }
    status = 200
    if other is None:
        context["problem"] = "There is none to compare it with." if not other_id else "There is no such checkpoint."
        status = 404 if other_id else 200
    else:
        try:
            context["difference"] = selectors.difference(checkpoint, other)
        except REFUSALS as error:
            context["problem"] = text_of(error)
            status = 503 if isinstance(error, Unavailable) else 409
    return render(request, "checkpoints/diff.html", context, status=status)


# --- What a person can have done to one


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """``call`` gets the checkpoint, the actor and the answers: the reason, and what the step asks for beside it."""

    title: str
    button: str
    done: str
    call: Callable[[Checkpoint, Actor, Mapping[str, Any]], Any]
    offered: Callable[[Checkpoint], bool]
    icon: str = ""
    tone: str = ""
    """Class of its buttons: primary, danger, or none."""
    asks_step: bool = False


def _work(kind: JobKind) -> Callable[[Checkpoint, Actor, Mapping[str, Any]], Any]:
    def ask(checkpoint: Checkpoint, actor: Actor, answers: Mapping[str, Any]) -> CheckpointJob:
        parameters = {name: value for name, value in answers.items() if name != "reason"}
        return jobs.request_job(
            kind=kind, checkpoint=checkpoint, parameters=parameters, actor=actor, reason=answers["reason"]
        )

    return ask


def _is_complete(checkpoint: Checkpoint) -> bool:
    return checkpoint.state == CheckpointState.COMMITTED


STEPS: Mapping[str, Step] = {
    "restore": Step(
        title="Restore",
        button="Set the run back",
        done="the run is set back to it as soon as its bytes are verified",
        call=_work(JobKind.RESTORE),
        offered=_is_complete,
        icon="back",
        tone="primary",
    ),
    "verify": Step(
        title="Verify",
        button="Read every byte",
        done="a worker reads and checks every byte now",
        call=_work(JobKind.VERIFY),
        offered=lambda checkpoint: checkpoint.state in selectors.KEPT,
        icon="check",
    ),
    "pin": Step(
        title="Pin",
        button="Keep it",
        done="pinned: it stays until it is unpinned",
        call=lambda checkpoint, actor, answers: pinning.pin(
            checkpoint=checkpoint, actor=actor, reason=answers["reason"]
        ),
        offered=lambda checkpoint: _is_complete(checkpoint) and not checkpoint.pinned,
    ),
    "unpin": Step(
        title="Unpin",
        button="Leave it to the policy",
        done="unpinned: the policy decides whether it stays",
        call=lambda checkpoint, actor, answers: pinning.unpin(
            checkpoint=checkpoint, actor=actor, reason=answers["reason"]
        ),
        offered=lambda checkpoint: checkpoint.pinned,
    ),
    "archive": Step(
        title="Archive",
        button="Move it to the object storage",
        done="a worker moves its bytes to the object storage",
        call=_work(JobKind.ARCHIVE),
        offered=lambda checkpoint: _is_complete(checkpoint) and checkpoint.location == Location.LOCAL,
    ),
    "recall": Step(
        title="Recall",
        button="Bring it back",
        done="a worker brings its bytes back into the checkpoint folder",
        call=_work(JobKind.RECALL),
        offered=lambda checkpoint: _is_complete(checkpoint) and checkpoint.location == Location.ARCHIVED,
    ),
    "replay": Step(
        title="Replay",
        button="Train to that step",
        done="a worker trains from it to that step and saves there",
        call=_work(JobKind.REPLAY),
        offered=_is_complete,
        asks_step=True,
    ),
}


def _offered(checkpoint: Checkpoint) -> dict[str, Step]:
    return {name: step for name, step in STEPS.items() if step.offered(checkpoint)}


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def take(request: HttpRequest, checkpoint_id: UUID, step: str) -> HttpResponse:
    """What a step (a key of ``STEPS``) would do and what it would not; a POST takes it."""
    portrait, taken = _portrait(checkpoint_id), STEPS[step]
    context: dict[str, Any] = {
        "portrait": portrait,
        "checkpoint": portrait.checkpoint,
        "run": portrait.run,
        "name": step,
        "step": taken,
    }
    if request.method != "POST":
        if not taken.asks_step:
            context["refusal"] = _refusal(
                lambda: taken.call(portrait.checkpoint, actor_of(request), {"reason": "preview"})
            )
        template = "checkpoints/_step.html" if is_fragment(request) else "checkpoints/step.html"
        return render(request, template, context)
    answers: dict[str, Any] = {"reason": _reason(request)}
    if taken.asks_step:
        try:
            answers["step"] = int(request.POST.get("step", ""))
        except ValueError:
            context["problem"] = "A whole number: the step to train to."
            return render(request, "checkpoints/step.html", context, status=422)
    if refusal := _refused(lambda: taken.call(portrait.checkpoint, actor_of(request), answers)):
        return render(request, "checkpoints/step.html", context | {"refusal": refusal}, status=409)
    messages.success(request, f"Checkpoint at step {portrait.checkpoint.step:,}: {taken.done}.")
    return redirect("dashboards:checkpoint", checkpoint_id=checkpoint_id)


# --- Work on a run


def saves_itself(run: TrainingRun | None) -> bool:
    """Whether asking for a checkpoint makes sense: a worker of ours trains it now."""
    return run is not None and run.state == RunState.RUNNING and run.kind != RunKind.EXTERNAL


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def save(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """What saving a run now would do; a POST asks for it."""
    run = get_object_or_404(TrainingRun, pk=run_id)

    def ask(reason: str) -> CheckpointJob:
        return jobs.request_job(kind=JobKind.CREATE, run_id=run.pk, actor=actor_of(request), reason=reason)

    context: dict[str, Any] = {"run": run}
    if request.method != "POST":
        context |= {"refusal": _refusal(lambda: ask("preview")), "totals": selectors.totals(run_id)}
        return render(request, "checkpoints/_save.html" if is_fragment(request) else "checkpoints/save.html", context)
    if refusal := _refused(lambda: ask(_reason(request))):
        return render(request, "checkpoints/save.html", context | {"refusal": refusal}, status=409)
    messages.success(request, f"{run.name} saves itself at the end of its current step.")
    return redirect(f"{reverse('dashboards:checkpoints')}?run={run_id}")


@page(Scope.RUNS_WRITE, methods=("POST",))
def cancel(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Give up work that was asked for; back to where it is shown."""
    job = get_object_or_404(CheckpointJob, pk=job_id)
    words = selectors.KINDS.get(job.kind, job.kind)
    refusal = _refused(lambda: jobs.cancel_job(job=job, actor=actor_of(request), reason=_reason(request)))
    if refusal:
        messages.warning(request, f"Not done: {refusal}.")
    else:
        messages.success(request, f"“{words}” was given up; what is done stays done.")
    return redirect(selectors.page_of_job(job))


def _refused(call: Callable[[], Any]) -> str:
    """Make the call; why it was refused, or nothing."""
    try:
        call()
    except REFUSALS as error:
        return text_of(error)
    return ""


def _refusal(call: Callable[[], Any]) -> str:
    """Why the call would be refused, found out by making it and rolling back."""
    return _refused(lambda: dry_run(call))


def _portrait(checkpoint_id: UUID) -> selectors.Portrait:
    portrait = selectors.portrait(checkpoint_id)
    if portrait is None:
        raise Http404
    return portrait


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()[:MAX_REASON]
