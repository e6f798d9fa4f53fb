"""What decides who is told of what: the pages of rules, silences, routes with their deliveries, and their steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone

from apps.accounts.admin_steps import REFUSALS, text_of
from apps.accounts.roles import Scope
from apps.core.actors import Actor, actor_of
from apps.core.errors import ServiceError
from apps.core.ids import parse_id
from apps.dashboards.access import is_fragment, page, viewer
from apps.dashboards.alert_forms import NewSilenceForm, RuleForm, refuse
from apps.dashboards.chips import Chip, toggle
from apps.dashboards.selectors import alert_setup as selectors
from apps.dashboards.stages import NOTIFICATION_LOOKS
from apps.observability.matchers import told
from apps.observability.models import AlertRoute, AlertRule, Notification, Silence
from apps.observability.selectors import alerts as observability
from apps.observability.services import delivering, notifying
from apps.observability.services import rules as rule_services
from apps.observability.services import silences as silence_services

MAX_REASON = 500
SILENCE_FIELDS: Mapping[str, str] = {"/comment": "comment", "/matchers": "matchers", "/duration": "hours"}


def _context(request: HttpRequest, tab: str) -> dict[str, Any]:
    who = viewer(request)
    return {"tab": tab, "counts": selectors.counts(), "may_write": who.has_scope(Scope.RUNS_WRITE)}


# --- Rules


@page(Scope.RUNS_READ)
def rules(request: HttpRequest) -> HttpResponse:
    """Every rule in words, with how it stands now."""
    lines = selectors.rules()
    states = [line.state for line in lines]
    return render(request, "alerts/rules.html", _context(request, "rules") | {"lines": lines, "states": states})


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def edit_rule(request: HttpRequest, rule_id: UUID) -> HttpResponse:
    """Its limits and waiting times; a POST changes them."""
    rule = get_object_or_404(AlertRule, pk=rule_id)
    form = RuleForm(request.POST if request.method == "POST" else None, rule=rule)
    context = {"rule": rule, "line": selectors.rule_line(rule), "form": form}
    if request.method != "POST":
        return render(request, "alerts/edit_rule.html", context)
    if not form.is_valid():
        return render(request, "alerts/edit_rule.html", context, status=422)
    try:
        reason = form.cleaned_data["reason"]
        rule_services.change_rule(rule=rule, actor=actor_of(request), reason=reason, **form.changes())
    except ServiceError as error:
        form.refuse(error)
        return render(request, "alerts/edit_rule.html", context, status=422)
    messages.success(request, f"{rule.name}: changed. The next evaluation, within 15 seconds, goes by it.")
    return redirect("dashboards:alert-rules")


# --- Silences


@page(Scope.RUNS_READ)
def silences(request: HttpRequest) -> HttpResponse:
    lines = selectors.silences(timezone.now())
    return render(request, "alerts/silences.html", _context(request, "silences") | {"lines": lines})


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def new_silence(request: HttpRequest) -> HttpResponse:
    """A silence by labels; ``preview`` shows what it would mute and writes nothing."""
    is_post = request.method == "POST"
    form = NewSilenceForm(request.POST if is_post else None)
    context: dict[str, Any] = {"form": form}
    if not is_post:
        return render(request, "alerts/new_silence.html", context)
    if not form.is_valid():
        return render(request, "alerts/new_silence.html", context, status=422)
    wanted = told(form.cleaned_data["matchers"])
    if "preview" in request.POST:
        return render(request, "alerts/new_silence.html", context | {"mutes": observability.matched_by(wanted)})
    try:
        silence_services.create_silence(
            matchers=wanted,
            duration=form.duration(),
            comment=form.cleaned_data["comment"],
            actor=actor_of(request),
        )
    except ServiceError as error:
        refuse(form, error, SILENCE_FIELDS)
        return render(request, "alerts/new_silence.html", context, status=422)
    messages.success(request, f"Silenced for {form.spoken()}: nobody is told of what matches.")
    return redirect("dashboards:silences")


# --- Routes and deliveries


@page(Scope.RUNS_READ)
def routes(request: HttpRequest) -> HttpResponse:
    """Whom to tell of what, and what became of every message. ``?route=`` and ``?state=`` narrow the messages."""
    query = request.GET.dict()
    state = query["state"] if query.get("state") in NOTIFICATION_LOOKS else ""
    route_id, after = parse_id(query.get("route", "")), parse_id(query.get("after", ""))
    kept = {name: str(value) for name, value in (("state", state), ("route", route_id)) if value}
    chips: list[Chip] = [toggle(kept, "state", name, look.word) for name, look in NOTIFICATION_LOOKS.items()]
    context = _context(request, "routes") | {
        "routes": selectors.routes(),
        "found": selectors.messages(route_id=route_id, state=state, after=after),
        "chips": chips,
        "route_chip": toggle(kept, "route", str(route_id), "this route") if route_id else None,
        "narrows": bool(kept or after),
        "after": after,
    }
    return render(request, "alerts/routes.html", context)


# --- Steps: each is shown with what it would do, and taken by a POST


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a person does to a row of ``model``, at ``path``; ``page`` shows it afterwards."""

    path: str
    model: type[Any]
    title: str
    button: str
    done: str
    will: str
    will_not: str
    page: str
    call: Callable[[Any, Actor, str], Any]
    is_grave: bool = False


def _enable(rule: AlertRule, actor: Actor, reason: str) -> None:
    rule_services.change_rule(rule=rule, actor=actor, reason=reason, enabled=True)


def _disable(rule: AlertRule, actor: Actor, reason: str) -> None:
    rule_services.change_rule(rule=rule, actor=actor, reason=reason, enabled=False)


def _reset(rule: AlertRule, actor: Actor, reason: str) -> None:
    rule_services.reset_rule(rule=rule, actor=actor, reason=reason)


def _end(silence: Silence, actor: Actor, reason: str) -> None:
    silence_services.end_silence(silence=silence, actor=actor, reason=reason)


def _test(route: AlertRoute, actor: Actor, reason: str) -> None:
    notifying.send_test(route=route, actor=actor, reason=reason)


def _retry(message: Notification, actor: Actor, reason: str) -> None:
    delivering.retry_notification(notification=message, actor=actor, reason=reason)


STEPS: Mapping[str, Step] = {
    "rule-enable": Step(
        path="rules/<uuid:row_id>/enable",
        model=AlertRule,
        title="Apply the rule",
        button="Apply it",
        done="applied from the next evaluation on",
        will="from the next evaluation on, within 15 seconds, it looks at every series that it is about.",
        will_not="no other rule is touched.",
        page="dashboards:alert-rules",
        call=_enable,
    ),
    "rule-disable": Step(
        path="rules/<uuid:row_id>/disable",
        model=AlertRule,
        title="Switch the rule off",
        button="Switch it off",
        done="switched off, its open alerts are resolved",
        will="it is not applied any more, and its open alerts are resolved with that reason.",
        will_not="nothing is deleted: its settings and its past alerts stay.",
        page="dashboards:alert-rules",
        call=_disable,
        is_grave=True,
    ),
    "rule-reset": Step(
        path="rules/<uuid:row_id>/reset",
        model=AlertRule,
        title="Set the rule back to how it came",
        button="Set it back",
        done="is again as it came with the platform",
        will="condition, limits, severity, texts and name are again as they came with the platform.",
        will_not="past alerts stay; if the condition changes, open ones are resolved and begin anew.",
        page="dashboards:alert-rules",
        call=_reset,
        is_grave=True,
    ),
    "silence-end": Step(
        path="silences/<uuid:row_id>/end",
        model=Silence,
        title="End the silence",
        button="End it now",
        done="ended",
        will="people are told again of what it mutes, with the next message of their routes.",
        will_not="no alert is changed.",
        page="dashboards:silences",
        call=_end,
    ),
    "route-test": Step(
        path="routes/<uuid:row_id>/test",
        model=AlertRoute,
        title="Send a test over the route",
        button="Send a test",
        done="a test is on its way: its delivery stands below",
        will="a message about a test alert is sent, also over a route that is switched off.",
        will_not="no alert begins, and no other route is used.",
        page="dashboards:alert-routes",
        call=_test,
    ),
    "message-retry": Step(
        path="messages/<uuid:row_id>/retry",
        model=Notification,
        title="Send the message again",
        button="Send it again",
        done="is sent again",
        will="it is tried again now, and as often as a new one.",
        will_not="it is not told twice: the other side knows it by its id.",
        page="dashboards:alert-routes",
        call=_retry,
    ),
}


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def take(request: HttpRequest, row_id: UUID, step: str) -> HttpResponse:
    """What a step (a key of ``STEPS``) would do and what it would not; a POST takes it."""
    taken = STEPS[step]
    row = get_object_or_404(taken.model, pk=row_id)
    context: dict[str, Any] = {"row": row, "step": taken}
    if request.method == "POST":
        try:
            taken.call(row, actor_of(request), request.POST.get("reason", "").strip()[:MAX_REASON])
        except REFUSALS as error:
            return render(request, "alerts/step.html", context | {"refusal": text_of(error)}, status=409)
        messages.success(request, f"{row}: {taken.done}.")
        return redirect(taken.page)
    return render(request, "alerts/_step.html" if is_fragment(request) else "alerts/step.html", context)
