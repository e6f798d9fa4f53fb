"""`manage.py audit_report access --param since=2026-01-01T00:00:00Z --out access.jsonl`: a compliance report, now."""

import json
from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path
from typing import Any

from django.core.files.storage import storages
from django.core.management.base import BaseCommand, CommandError

from apps.audit import services
from apps.audit.keys import KeyFault
from apps.audit.lifecycle import ReportState
from apps.audit.models import AuditReport
from apps.audit.reports import QUESTIONS
from apps.audit.selectors import person_named
from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError
from apps.core.objects import STORAGE_FAULTS, get


class Command(BaseCommand):
    help = "Answer a compliance question from the sealed audit trail, store and sign the answer."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        known = "; ".join(f"{kind}: {', '.join(question.names) or 'none'}" for kind, question in QUESTIONS.items())
        parser.add_argument("kind", metavar="KIND", help=", ".join(QUESTIONS))
        parser.add_argument(
            "--param", action="append", default=[], metavar="NAME=VALUE", help=f"may be given several times. {known}"
        )
        parser.add_argument("--person", metavar="NAME", help="a user's name, instead of the parameters person, account")
        parser.add_argument(
            "--as-of", metavar="TIME", help="of the trail as it stood then (with its zone); now by default"
        )
        parser.add_argument("--out", type=Path, metavar="FILE", help="write the answer there, its note to FILE.note")
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        parameters = _parameters(options["kind"], options["param"], options["person"])
        report = _written(options["kind"], parameters, _moment(options["as_of"]))
        if options["out"] is not None:
            _export(report, options["out"])
        answer = {
            "id": str(report.pk),
            "kind": report.kind,
            "as_of": report.as_of.isoformat(),
            "size": report.size,
            "root": bytes(report.root or b"").hex(),
            "rows": report.rows,
            "sha256": report.sha256,
            "name": report.name,
        }
        if options["json"]:
            self.stdout.write(json.dumps({**answer, "note": report.note}))
        else:
            self.stdout.write("\n".join(f"{name:<8}{value}" for name, value in answer.items()))


def _parameters(kind: str, given: list[str], person: str | None) -> dict[str, str]:
    """Raises CommandError: a parameter has no value, or nobody has this name."""
    found = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator:
            raise CommandError(f"--param: {text!r} is not NAME=VALUE")
        found[name] = value
    if person is None:
        return found
    row = person_named(person)
    if row is None:
        raise CommandError(f"--person: the audit trail knows nobody called {person!r}")
    values = {"person": str(row.pk), "account": str(row.user_id)}
    wanted = QUESTIONS[kind].names if kind in QUESTIONS else ()  # type: ignore[index]
    return {**found, **{name: value for name, value in values.items() if name in wanted}}


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise CommandError("--as-of: must be a time with its zone, such as 2026-01-31T12:00:00Z")
    return moment


def _written(kind: str, parameters: dict[str, str], as_of: datetime | None) -> AuditReport:
    """Raises CommandError: what was asked is wrong, or something that is needed is away (beat tries that again)."""
    try:
        services.seal()
        report = services.request_report(kind=kind, parameters=parameters, as_of=as_of, actor=SYSTEM)
    except KeyFault as error:
        raise CommandError(error.detail) from None
    except ServiceError as error:
        lines = [f"{problem.pointer.removeprefix('/')}: {problem.detail}" for problem in error.errors]
        raise CommandError("\n".join(lines) or error.detail) from None
    report = services.write_report(report=report)
    if report.state != ReportState.READY:
        raise CommandError(f"report {report.pk} is {report.state}: {report.failure}")
    return report


def _export(report: AuditReport, path: Path) -> None:
    """Raises CommandError: the storage does not give it back, or the file cannot be written."""
    try:
        path.write_bytes(get(storages["default"], report.name))
        path.with_name(f"{path.name}.note").write_text(report.note, encoding="utf-8")
    except STORAGE_FAULTS as error:
        raise CommandError(f"--out: {error}") from None
