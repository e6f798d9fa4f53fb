"""Alerts: what fires now and what was, one alert whole, and the two answers to it: acknowledge, or silence."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from apps.accounts.admin_steps import REFUSALS, text_of
from apps.accounts.roles import Scope
from apps.core.actors import actor_of
from apps.dashboards import alert_forms
from apps.dashboards.access import is_fragment, page, viewer
from apps.dashboards.chips import alert_chips
from apps.dashboards.selectors import alert_setup, alert_story, alerts
from apps.dashboards.selectors.alert_story import Portrait
from apps.dashboards.selectors.alerts import AlertFilter
from apps.observability.matchers import MOST, Matcher, told
from apps.observability.models import Alert, AlertRule
from apps.observability.selectors import alerts as observability
from apps.observability.services import alerts as services
from apps.observability.services import silences


@page(Scope.RUNS_READ)
def listing(request: HttpRequest) -> HttpResponse:
    """Open alerts the worst first; with ``?state=RESOLVED`` those that are over."""
    wanted = AlertFilter.of(request.GET.dict())
    found, totals = alerts.page(wanted), alerts.totals()
    context = {
        "now": timezone.now(),
        "page": found,
        "totals": totals,
        "counts": alert_setup.counts(),
        "wanted": wanted,
        "chips": alert_chips(wanted),
        "tab": "alerts",
        "has_rules": bool(found.lines) or AlertRule.objects.filter(enabled=True).exists(),
        "may_write": viewer(request).has_scope(Scope.RUNS_WRITE),
    }
    return render(request, "alerts/list.html", context)


@page(Scope.RUNS_READ)
def detail(request: HttpRequest, alert_id: UUID) -> HttpResponse:
    """What it is, the curve around the moment, why, who was told, what to do."""
    found = _portrait(alert_id)
    may_audit = viewer(request).has_scope(Scope.AUDIT_READ)
    context = {
        "portrait": found,
        "alert": found.alert,
        "rule_line": alert_setup.rule_line(found.rule) if found.rule else None,
        "may_write": viewer(request).has_scope(Scope.RUNS_WRITE),
        "may_audit": may_audit,
        "history": alert_story.history(found.alert) if may_audit else [],
    }
    return render(request, "alerts/detail.html", context)


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def acknowledge(request: HttpRequest, alert_id: UUID) -> HttpResponse:
    """Say that somebody looks at it; a POST does it."""
    found = _portrait(alert_id)
    context: dict[str, Any] = {"portrait": found, "alert": found.alert, "most": services.LONGEST_NOTE}
    if request.method != "POST":
        return _step(request, "acknowledge", context)
    try:
        services.acknowledge(alert=found.alert, note=request.POST.get("note", "").strip(), actor=actor_of(request))
    except REFUSALS as error:
        return _step(request, "acknowledge", context | {"refusal": text_of(error)}, status=409)
    messages.success(request, f"Acknowledged: {found.alert.summary}")
    return _back(request, found)


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def silence(request: HttpRequest, alert_id: UUID) -> HttpResponse:
    """Tell nobody of it for a while, nor of others with the labels that are ticked; a POST does it."""
    found = _portrait(alert_id)
    chosen = _chosen(request, found.alert)
    matchers = told([Matcher(name, "=", str(found.alert.labels[name])) for name in chosen])
    form = alert_forms.SilenceForm(request.POST if request.method == "POST" else None)
    context: dict[str, Any] = {
        "portrait": found,
        "alert": found.alert,
        "form": form,
        "chosen": chosen,
        "mutes": observability.matched_by(matchers) if matchers else [],
    }
    if request.method != "POST":
        if "chosen" in request.GET and is_fragment(request):
            return render(request, "alerts/_mutes.html", context)
        return _step(request, "silence", context)
    if not form.is_valid():
        return _step(request, "silence", context, status=422)
    try:
        silences.create_silence(
            matchers=matchers,
            duration=form.duration(),
            workspace=found.alert.workspace,
            comment=form.cleaned_data["comment"],
            actor=actor_of(request),
        )
    except REFUSALS as error:
        return _step(request, "silence", context | {"refusal": text_of(error)}, status=409)
    messages.success(request, f"Silenced for {form.spoken()}: nobody is told meanwhile.")
    return _back(request, found)


def _chosen(request: HttpRequest, alert: Alert) -> list[str]:
    """The labels that a silence goes by: those that are ticked, at first all."""
    if request.method != "POST" and "chosen" not in request.GET:
        return sorted(alert.labels)[:MOST]
    asked = request.POST if request.method == "POST" else request.GET
    return sorted({name for name in asked.getlist("label") if name in alert.labels})[:MOST]


def _step(request: HttpRequest, name: str, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    template = f"alerts/_{name}.html" if is_fragment(request) else f"alerts/{name}.html"
    return render(request, template, context, status=status)


def _back(request: HttpRequest, found: Portrait) -> HttpResponse:
    """To the list, if the step was taken there, else to the alert."""
    if request.POST.get("back") == "list":
        return redirect("dashboards:alerts")
    return redirect("dashboards:alert", alert_id=found.alert.pk)


def _portrait(alert_id: UUID) -> Portrait:
    found = alert_story.portrait(alert_id)
    if found is None:
        raise Http404
    return found
