"""The kernel cache: whether it does its job, and plans to move bytes, each looked at before it is applied."""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from apps.accounts.admin_steps import REFUSALS, text_of
from apps.accounts.roles import Scope
from apps.core.actors import Actor, actor_of
from apps.core.errors import Unavailable
from apps.core.ids import parse_id
from apps.dashboards.access import is_fragment, page, viewer
from apps.dashboards.chips import Chip
from apps.dashboards.selectors import cache as selectors
from apps.kernels import services
from apps.kernels.cache.config import config
from apps.kernels.cache.segments import TierName
from apps.kernels.models import CachePlan, CachePlanKind

MAX_REASON = 500


@page(Scope.LIBRARY_READ)
def overview(request: HttpRequest) -> HttpResponse:
    """``window`` is one of ``selectors.WINDOWS``. For htmx: what was counted, again."""
    window = selectors.window_of(request.GET.get("window"))
    chips = [Chip(name, name == window, f"window={name}") for name in selectors.WINDOWS]
    context: dict[str, Any] = {"now": selectors.now(window), "chips": chips, "words": selectors.WINDOWS[window]}
    if is_fragment(request):
        return render(request, "cache/_now.html", context | {"oob": True})
    who, after = viewer(request), parse_id(request.GET.get("after", ""))
    may_audit = who.has_scope(Scope.AUDIT_READ)
    context |= {
        "pinned": selectors.pinned(),
        "places": selectors.places(),
        "plans": selectors.plans(after=after),
        "after": after,
        "may_write": who.has_scope(Scope.LIBRARY_WRITE),
        "may_audit": may_audit,
        "movements": selectors.movements() if may_audit else [],
    }
    return render(request, "cache/overview.html", context)


@page(Scope.LIBRARY_READ)
def table(request: HttpRequest, tier: str) -> HttpResponse:
    """The hits of a tier by how long they took, as a table."""
    context: dict[str, Any] = {"tier": _tier(tier), "window": selectors.window_of(request.GET.get("window"))}
    try:
        context["buckets"] = selectors.latencies(context["tier"], context["window"])
    except Unavailable as error:
        context["silence"] = error.detail
    return render(request, "cache/_table.html" if is_fragment(request) else "cache/table.html", context)


@page(Scope.LIBRARY_READ)
def csv_file(request: HttpRequest, tier: str) -> HttpResponse:
    """The same as a file, in milliseconds. 503 while the counts cannot be read."""
    name, window = _tier(tier), selectors.window_of(request.GET.get("window"))
    try:
        buckets = selectors.latencies(name, window)
    except Unavailable as error:
        return HttpResponse(error.detail, status=503, content_type="text/plain")
    response = HttpResponse(content_type="text/csv")
    response["Content-Disposition"] = f'attachment; filename="cache-{name}-{window}.csv"'
    writer = csv.writer(response)
    writer.writerow(["above_ms", "at_most_ms", "hits"])
    writer.writerows((f"{bucket.low_ms:.6g}", f"{bucket.high_ms:.6g}", bucket.hits) for bucket in buckets)
    return response


def _tier(name: str) -> TierName:
    try:
        return TierName(name)
    except ValueError:
        raise Http404 from None


# --- Plans


@page(Scope.LIBRARY_WRITE, methods=("GET", "HEAD", "POST"))
def make(request: HttpRequest, kind: str) -> HttpResponse:
    """What a plan of this kind would look at; a POST writes it down. Nothing is moved by either."""
    context: dict[str, Any] = {"kind": CachePlanKind(kind), "settings": config()}
    if request.method == "POST":
        try:
            plan = services.plan_cache(kind=kind, actor=actor_of(request), reason=_reason(request))
        except REFUSALS as error:
            return render(request, "cache/make.html", context | {"refusal": text_of(error)}, status=409)
        return redirect("dashboards:cache-plan", plan_id=plan.pk)
    return render(request, "cache/_make.html" if is_fragment(request) else "cache/make.html", context)


@page(Scope.LIBRARY_READ)
def review(request: HttpRequest, plan_id: UUID) -> HttpResponse:
    """A plan with each of its moves; while it is carried out, htmx asks for its progress again and again."""
    portrait = _portrait(plan_id)
    who = viewer(request)
    may_audit = who.has_scope(Scope.AUDIT_READ)
    context = {
        "portrait": portrait,
        "plan": portrait.plan,
        "steps": STEPS,
        "may_write": who.has_scope(Scope.LIBRARY_WRITE),
        "may_audit": may_audit,
        "history": selectors.plan_history(portrait.plan) if may_audit else [],
    }
    return render(request, "cache/plan.html", context)


@dataclass(frozen=True, slots=True)
class Step:
    """What a person does to a plan."""

    title: str
    button: str
    done: str
    call: Callable[[CachePlan, Actor, str], Any]


def _apply(plan: CachePlan, actor: Actor, reason: str) -> None:
    services.apply_cache_plan(plan=plan, actor=actor, reason=reason)


def _cancel(plan: CachePlan, actor: Actor, reason: str) -> None:
    services.cancel_cache_plan(plan=plan, actor=actor, reason=reason)


STEPS: Mapping[str, Step] = {
    "apply": Step("Apply", "Make the moves", "a worker makes its moves now", _apply),
    "cancel": Step("Cancel", "Give it up", "given up", _cancel),
}


@page(Scope.LIBRARY_WRITE, methods=("GET", "HEAD", "POST"))
def take(request: HttpRequest, plan_id: UUID, step: str) -> HttpResponse:
    """What a step (a key of ``STEPS``) would do and what it would not; a POST takes it."""
    portrait, taken = _portrait(plan_id), STEPS[step]
    context: dict[str, Any] = {"portrait": portrait, "plan": portrait.plan, "name": step, "step": taken}
    if request.method != "POST":
        if step not in portrait.steps:
            context["refusal"] = _why_not(portrait)
        return render(request, "cache/_step.html" if is_fragment(request) else "cache/step.html", context)
    try:
        taken.call(portrait.plan, actor_of(request), _reason(request))
    except REFUSALS as error:
        return render(request, "cache/step.html", context | {"refusal": text_of(error)}, status=409)
    messages.success(request, f"{str(portrait.plan).capitalize()}: {taken.done}.")
    return redirect("dashboards:cache-plan", plan_id=plan_id)


def _why_not(portrait: selectors.PlanPortrait) -> str:
    if portrait.steps:
        return "the plan has expired" if portrait.is_expired else "there is nothing to move"
    return f"the plan is {portrait.plan.state}"


def _portrait(plan_id: UUID) -> selectors.PlanPortrait:
    portrait = selectors.plan_portrait(plan_id)
    if portrait is None:
        raise Http404
    return portrait


def _reason(request: HttpRequest) -> str:
    return request.POST.get("reason", "").strip()[:MAX_REASON]
