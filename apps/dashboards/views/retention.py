"""Retirement of kernels: policies and plans; a plan is looked at, approved, then applied, each after a preview."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone

from apps.accounts.admin_steps import REFUSALS, dry_run, text_of
from apps.accounts.roles import Scope
from apps.audit.models import AuditEvent
from apps.core.actors import Actor, actor_of
from apps.core.ids import parse_id
from apps.dashboards.access import is_fragment, page, viewer
from apps.dashboards.selectors import retention as selectors
from apps.kernels import services
from apps.kernels.models import RetentionPlan, RetentionPolicy

MAX_REASON = 500
PREVIEWED = 100
"""Items whose outcome a preview finds out, by applying them and rolling back."""


@page(Scope.LIBRARY_READ)
def listing(request: HttpRequest) -> HttpResponse:
    after = parse_id(request.GET.get("after", ""))
    context = {
        "policies": selectors.policies(),
        "plans": selectors.plans(after=after),
        "after": after,
        "may_write": viewer(request).has_scope(Scope.LIBRARY_WRITE),
    }
    return render(request, "retention/list.html", context)


@page(Scope.LIBRARY_READ)
def review(request: HttpRequest, plan_id: UUID) -> HttpResponse:
    """A plan with its items, its totals, what it keeps and why."""
    after = parse_id(request.GET.get("after", ""))
    portrait = _portrait(plan_id, after)
    may_audit = viewer(request).has_scope(Scope.AUDIT_READ)
    context = {
        "portrait": portrait,
        "plan": portrait.plan,
        "after": after,
        "may_write": viewer(request).has_scope(Scope.LIBRARY_WRITE),
        "may_audit": may_audit,
        "history": selectors.plan_history(portrait.plan) if may_audit else [],
    }
    return render(request, "retention/plan.html", context)


@page(Scope.LIBRARY_READ)
def explain(request: HttpRequest, kernel_id: UUID) -> HttpResponse:
    """What keeps one kernel and what would retire it: the panel alone for htmx, else a page of its own."""
    found = selectors.explanation(kernel_id, timezone.now())
    if found is None:
        raise Http404
    context = {
        "explanation": found,
        "kernel": found.kernel,
        "may_write": viewer(request).has_scope(Scope.LIBRARY_WRITE),
    }
    return render(request, "retention/_explain.html" if is_fragment(request) else "retention/explain.html", context)


@dataclass(frozen=True, slots=True)
class Step:
    """What a person does to a plan. ``call`` gets the plan, the actor and the reason."""

    title: str
    button: str
    done: str
    call: Callable[[RetentionPlan, Actor, str], Any]
    asks_reason: bool = True


def _approve(plan: RetentionPlan, actor: Actor, reason: str) -> None:
    services.approve_plan(plan=plan, reason=reason, actor=actor)


def _apply(plan: RetentionPlan, actor: Actor, reason: str) -> None:
    services.apply_plan(plan=plan, actor=actor, most=PREVIEWED)


def _discard(plan: RetentionPlan, actor: Actor, reason: str) -> None:
    services.discard_plan(plan=plan, reason=reason, actor=actor)


STEPS: Mapping[str, Step] = {
    "approve": Step("Approve", "Approve the plan", "approved: it may be applied now", _approve),
    "apply": Step("Apply", "Retire them", "applied", _apply, asks_reason=False),
    "discard": Step("Discard", "Discard the plan", "discarded", _discard),
}


@page(Scope.LIBRARY_WRITE, methods=("GET", "HEAD", "POST"))
def take(request: HttpRequest, plan_id: UUID, step: str) -> HttpResponse:
    """What a step (a key of ``STEPS``) would do and what it would not; a POST takes it."""
    portrait, taken = _portrait(plan_id), STEPS[step]
    context: dict[str, Any] = {"portrait": portrait, "plan": portrait.plan, "name": step, "step": taken}
    if request.method != "POST":
        context |= _foreseen(portrait.plan, taken, actor_of(request))
        return render(request, "retention/_step.html" if is_fragment(request) else "retention/step.html", context)
    reason = request.POST.get("reason", "").strip()[:MAX_REASON]
    if taken.asks_reason and not reason:
        context |= _foreseen(portrait.plan, taken, actor_of(request)) | {"problem": "Say why: it stands in the trail."}
        return render(request, "retention/step.html", context, status=422)
    try:
        taken.call(portrait.plan, actor_of(request), reason)
    except REFUSALS as error:
        context["refusal"] = text_of(error)
        return render(request, "retention/step.html", context, status=409)
    messages.success(request, f"{portrait.plan}: {taken.done}.")
    return redirect("dashboards:retention-plan", plan_id=plan_id)


def _foreseen(plan: RetentionPlan, step: Step, actor: Actor) -> dict[str, Any]:
    """What the very call would do, found out by making it and rolling back; or why it is refused."""
    try:
        events = dry_run(lambda: step.call(plan, actor, "preview"))
    except REFUSALS as error:
        return {"refusal": text_of(error)}
    return {"counts": _counts(events)}


def _counts(events: list[AuditEvent]) -> dict[str, int]:
    return next((event.payload for event in events if event.type == "retention.applied"), {})


@page(Scope.LIBRARY_WRITE, methods=("GET", "HEAD", "POST"))
def make(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    """What a plan of this policy would hold now; a POST writes it down. No kernel is touched by either."""
    policy = get_object_or_404(RetentionPolicy, pk=policy_id)
    context: dict[str, Any] = {"policy": policy, "line": selectors.policy_line(policy)}
    if request.method == "POST":
        try:
            reason = request.POST.get("reason", "").strip()[:MAX_REASON]
            plan = services.make_plan(policy=policy, actor=actor_of(request), reason=reason)
        except REFUSALS as error:
            return render(request, "retention/make.html", context | {"refusal": text_of(error)}, status=409)
        return redirect("dashboards:retention-plan", plan_id=plan.pk)
    return render(request, "retention/_make.html" if is_fragment(request) else "retention/make.html", context)


def _portrait(plan_id: UUID, after: UUID | None = None) -> selectors.PlanPortrait:
    portrait = selectors.plan_portrait(plan_id, after=after)
    if portrait is None:
        raise Http404
    return portrait
