"""Compliance reports as people look through them: what was asked, in words, by whom, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from apps.accounts.models import User
from apps.audit import selectors as audit
from apps.audit.lifecycle import ReportKind, ReportState
from apps.audit.models import AuditReport
from apps.audit.reports import QUESTIONS
from apps.core.ids import parse_id
from apps.kernels.models import Kernel

PAGE_SIZE = 30
WORDS: Mapping[str, str] = {
    "since": "from",
    "until": "before",
    "person": "by",
    "account": "about",
    "subject_type": "kind",
    "subject_id": "only",
    "kernel": "of",
}
"""Parameter -> the word before its value."""


@dataclass(frozen=True, slots=True)
class ReportFilter:
    kind: str = ""
    before: UUID | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "ReportFilter":
        kind = query.get("kind", "")
        return cls(kind=kind if kind in set(ReportKind) else "", before=parse_id(query.get("before", "")))


@dataclass(frozen=True, slots=True)
class Line:
    """``asked`` are (word, value) of its parameters, with names where somebody or something has one."""

    report: AuditReport
    title: str
    asked: Sequence[tuple[str, str]]
    who: str

    @property
    def is_ready(self) -> bool:
        return self.report.state == ReportState.READY


@dataclass(frozen=True, slots=True)
class ReportPage:
    lines: Sequence[Line]
    next_before: UUID | None

    @property
    def is_waiting(self) -> bool:
        return any(line.report.state == ReportState.QUEUED for line in self.lines)


def page(wanted: ReportFilter) -> ReportPage:
    """The newest reports that fit. A fixed number of queries."""
    reports = AuditReport.objects.order_by("-id")
    if wanted.kind:
        reports = reports.filter(kind=wanted.kind)
    if wanted.before is not None:
        reports = reports.filter(id__lt=wanted.before)
    rows = list(reports.defer("note")[: PAGE_SIZE + 1])
    shown = rows[:PAGE_SIZE]
    return ReportPage(lines=_lines(shown), next_before=shown[-1].pk if len(rows) > PAGE_SIZE else None)


def _lines(reports: Sequence[AuditReport]) -> list[Line]:
    people = audit.actor_names(
        [report.requested_by for report in reports] + [parse_id(report.parameters.get("person")) for report in reports]
    )
    names = {str(key): name for key, name in people.items()} | _names(reports)
    return [
        Line(
            report=report,
            title=QUESTIONS[ReportKind(report.kind)].title,
            asked=_asked(report, names),
            who=people.get(report.requested_by, "somebody erased") if report.requested_by else "the system",
        )
        for report in reports
    ]


def _names(reports: Sequence[AuditReport]) -> dict[str, str]:
    accounts = User.objects.filter(pk__in=_ids(reports, "account")).values_list("pk", "username")
    kernels = Kernel.objects.filter(pk__in=_ids(reports, "kernel")).values_list("pk", "name")
    return {str(key): name for key, name in (*accounts, *kernels)}


def _ids(reports: Sequence[AuditReport], name: str) -> list[str]:
    return [report.parameters[name] for report in reports if name in report.parameters]


def _asked(report: AuditReport, names: Mapping[str, str]) -> list[tuple[str, str]]:
    given = dict(report.parameters)
    account = given.get("account", "")
    if "person" in given and account:  # one person, two numbers: the account has the name of now
        names = {**names, given["person"]: names.get(account, given["person"])}
        del given["account"]
    return [(word, names.get(given[name], given[name])) for name, word in WORDS.items() if name in given]


def statement_of(kernel_id: UUID) -> AuditReport | None:
    """The newest provenance report of a kernel, if nothing has happened to the kernel since."""
    found = AuditReport.objects.filter(
        kind=ReportKind.PROVENANCE,
        parameters={"kernel": str(kernel_id)},
        state__in=[ReportState.QUEUED, ReportState.READY],
    ).first()
    last = audit.events_of(subject_type="kernel", subject_id=str(kernel_id)).values_list("at", flat=True).first()
    return found if found is not None and (last is None or last <= found.as_of) else None
