"""Compliance reports: asked for, listed with what became of them, computed again."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from apps.accounts.roles import Scope
from apps.audit import services
from apps.audit.lifecycle import ReportKind
from apps.audit.models import AuditReport
from apps.audit.reports import QUESTIONS
from apps.audit.services.reporting import Reproduction
from apps.core.actors import actor_of
from apps.core.errors import ServiceError
from apps.dashboards.access import page
from apps.dashboards.chips import toggle
from apps.dashboards.report_forms import ReportForm
from apps.dashboards.selectors import reports as selectors


@page(Scope.AUDIT_READ, methods=("GET", "HEAD", "POST"))
def listing(request: HttpRequest) -> HttpResponse:
    """The list, and above it the form of one question. POST asks it."""
    kind = request.POST.get("kind") or request.GET.get("ask") or ReportKind.ACCESS
    kind = kind if kind in set(ReportKind) else ReportKind.ACCESS
    if request.method != "POST":
        return _page(request, ReportForm(kind))
    form = ReportForm(kind, request.POST)
    report = _ask(request, form) if form.is_valid() else None
    return _page(request, form, status=422) if report is None else redirect(_place(report))


def _page(request: HttpRequest, form: ReportForm, *, status: int = 200) -> HttpResponse:
    wanted = selectors.ReportFilter.parse(request.GET)
    kept = {"kind": wanted.kind} if wanted.kind else {}
    found = selectors.page(wanted)
    context = {
        "page": found,
        "is_asking": form.is_bound or "ask" in request.GET or not found.lines,
        "wanted": wanted,
        "form": form,
        "questions": [(str(kind), question) for kind, question in QUESTIONS.items()],
        "chips": [toggle(kept, "kind", kind, question.title) for kind, question in QUESTIONS.items()],
    }
    return render(request, "audit/reports.html", context, status=status)


def _ask(request: HttpRequest, form: ReportForm) -> AuditReport | None:
    try:
        return services.request_report(
            kind=form.kind,
            parameters=form.parameters(),
            as_of=form.cleaned_data["as_of"],
            actor=actor_of(request),
        )
    except ServiceError as error:
        form.refuse(error)
        return None


def _place(report: AuditReport) -> str:
    return f"{reverse('dashboards:reports')}#r-{report.pk}"


@page(Scope.AUDIT_READ, methods=("POST",))
def statement(request: HttpRequest, kernel_id: UUID) -> HttpResponse:
    """The provenance statement of a kernel: the one that there is, unless something has happened to it since."""
    report = selectors.statement_of(kernel_id) or services.request_report(
        kind=ReportKind.PROVENANCE, parameters={"kernel": str(kernel_id)}, actor=actor_of(request)
    )
    return redirect(_place(report))


@page(Scope.AUDIT_READ, methods=("POST",))
def reproduce(request: HttpRequest, report_id: UUID) -> HttpResponse:
    """Compute a report again; the page then says what came out."""
    report = get_object_or_404(AuditReport, pk=report_id)
    found = services.reproduce_report(report=report, actor=actor_of(request))
    say = messages.success if found.is_same else messages.error
    say(
        request,
        f"{QUESTIONS[ReportKind(report.kind)].title} as of {report.as_of:%Y-%m-%d %H:%M} UTC: {_verdict(found)}",
    )
    return redirect(_place(report))


def _verdict(found: Reproduction) -> str:
    if found.is_same:
        return f"computed again, the same to the last byte (sha256 {found.sha256[:16]}…)."
    faults = [
        (not found.has_root, "the tree no longer has the root that the report names"),
        (found.sha256 != found.signed, "the trail gives another answer than the one that was signed"),
        (found.stored != found.signed, "the stored file is gone or is not what was signed"),
    ]
    return f"NOT the same: {'; '.join(text for is_so, text in faults if is_so)}. Run manage.py verify_audit."
