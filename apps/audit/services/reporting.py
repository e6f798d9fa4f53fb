"""Compliance reports: asked for, written from the sealed trail, stored, signed, and computed again to be compared.

A report is its question, its time, and the checkpoint that it is answered from. The checkpoint is fixed first: from
then on the answer is the same whoever writes it, however often, so a writer may be killed anywhere and be repeated.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Any
from uuid import UUID

from django.core.files.storage import storages
from django.db import transaction
from django.utils import timezone

from apps.audit import archives, keys, pseudonyms
from apps.audit import services as audit
from apps.audit.canonical import canonical_json
from apps.audit.keys import KeyFault, SigningKey, sign_note
from apps.audit.lifecycle import REPORT_LIFECYCLE, ReportState
from apps.audit.merkle import Tree
from apps.audit.models import AuditArchive, AuditCheckpoint, AuditEvent, AuditKey, AuditPending, AuditReport
from apps.audit.proofs import read_tile
from apps.audit.reports import answer, question_of
from apps.audit.sealed import UnreadableArchive, reader
from apps.audit.services.sealing import seal
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.core.actors import WORKER, Actor
from apps.core.errors import Conflict, Invalid
from apps.core.objects import STORAGE_FAULTS, delete, exists, put
from apps.core.queue import enqueue_after_commit

WRITE_TASK = "apps.audit.tasks.write_report"
NAME = "audit/reports/{id}.jsonl"
PATIENCE = timedelta(hours=1)
"""How long a report waits for a storage or a key that is away, before it fails."""


@transaction.atomic
def request_report(
    *, kind: str, parameters: Mapping[str, Any], actor: Actor, as_of: datetime | None = None
) -> AuditReport:
    """Ask for a report of the trail as it stood at ``as_of`` (now by default). It is written in the background.

    Raises:
        Invalid: the kind is unknown, a parameter is wrong, ``as_of`` is in the future, or the trail has no such kernel.
    """
    now = timezone.now()
    checked = question_of(kind).checked(parameters)
    if as_of is not None and as_of > now:
        raise Invalid("must not be in the future", pointer="/as_of", code="future")
    if "kernel" in checked:
        _require_history("kernel", checked["kernel"])
    report = AuditReport(kind=kind, parameters=checked, as_of=as_of or now, requested_by=_pseudonym(actor))
    report.full_clean()
    report.save(force_insert=True)
    audit.record(type="report.requested", subject=report, actor=actor, after=image(report))
    enqueue_after_commit(WRITE_TASK, str(report.pk))
    return report


def _pseudonym(actor: Actor) -> UUID | None:
    return pseudonyms.pseudonym_of(actor.id).id if actor.id is not None else None


def _require_history(subject_type: str, subject_id: str) -> None:
    """Refuse a mistyped id. Archived months are not searched for it: then the report itself says that it is empty."""
    known = AuditEvent.objects.filter(subject_type=subject_type, subject_id=subject_id).exists()
    if not known and not AuditArchive.objects.exists():
        raise Invalid(f"the trail knows no {subject_type} {subject_id}", pointer=f"/parameters/{subject_type}")


# --- Writing


def write_report(*, report: AuditReport) -> AuditReport:
    """Answer, store and sign a QUEUED report; any other is returned as it is. Safe to repeat, and to run twice at once.

    What is away (the sealer, an archive, the storage, the key) leaves the report QUEUED with ``failure`` saying what;
    beat tries again, and after ``PATIENCE`` the report fails.
    """
    try:
        report = _fix_checkpoint(report)
        if report.state != ReportState.QUEUED:
            return report
        with tempfile.TemporaryFile() as file:
            written = _compute(report, file)
            name = _store(report, file, written)
        note = _signed(report, written)
    except (KeyFault, Conflict, UnreadableArchive) as error:
        return _postpone(report, error.detail)
    except STORAGE_FAULTS as error:
        return _postpone(report, f"the object storage does not take the report: {error}")
    return _finish(report, written, name=name, note=note)


def _fix_checkpoint(report: AuditReport) -> AuditReport:
    """Choose the tree that the report is answered from, once: the newest whose events reach ``as_of``.

    Raises:
        Conflict: events up to ``as_of`` are not sealed yet. KeyFault: and they cannot be.
    """
    if report.size is None and not _is_sealed(report.as_of):
        seal()
        if not _is_sealed(report.as_of):
            raise Conflict("events up to the time of the report are not sealed yet: they are within seconds")
    with transaction.atomic():
        fresh = AuditReport.objects.select_for_update().get(pk=report.pk)
        if fresh.state == ReportState.QUEUED and fresh.size is None:
            checkpoint = AuditCheckpoint.objects.order_by("-size")[0]
            before = image(fresh)
            fresh.size, fresh.root = checkpoint.size, bytes(checkpoint.root)
            fresh.save(update_fields=["size", "root"])
            audit.record(type="report.begun", subject=fresh, actor=WORKER, before=before, after=image(fresh))
    return fresh


def _is_sealed(moment: datetime) -> bool:
    return AuditCheckpoint.objects.exists() and not AuditPending.objects.filter(at__lte=moment).exists()


@dataclass(frozen=True, slots=True)
class Written:
    """What an answer came to: its digest and how many lines stand between its header and its summary."""

    sha256: str
    rows: int


def _compute(report: AuditReport, file: IO[bytes] | None = None) -> Written:
    """Compute the answer line by line, into ``file`` if there is one."""
    digest, count = hashlib.sha256(), 0
    for line in _lines(report):
        data = canonical_json(line) + b"\n"
        digest.update(data)
        count += 1
        if file is not None:
            file.write(data)
    return Written(sha256=digest.hexdigest(), rows=count - 2)


def _lines(report: AuditReport) -> Iterator[Mapping[str, Any]]:
    yield _header(report)
    read = reader(size=_size(report), at=report.as_of)
    yield from answer(read, kind=report.kind, parameters=report.parameters, as_of=report.as_of)


def _header(report: AuditReport) -> dict[str, Any]:
    return {
        "kind": report.kind,
        "parameters": report.parameters,
        "as_of": report.as_of,
        "size": _size(report),
        "root": bytes(report.root or b"").hex(),
    }


def _size(report: AuditReport) -> int:
    if report.size is None:
        raise Conflict("the report is not written yet", code="not_ready")
    return int(report.size)


def _store(report: AuditReport, file: IO[bytes], written: Written) -> str:
    """Put the answer into the object storage. What an interrupted writer left there is replaced, unless it is whole."""
    storage, name = storages["default"], NAME.format(id=report.pk)
    if exists(storage, name):
        if archives.sha256_of(name) == written.sha256:
            return name
        delete(storage, name)
    file.seek(0)
    put(storage, name, file)
    return name


def _signed(report: AuditReport, written: Written) -> str:
    """The note over what the report says, with its digest: ``verifier.check_report`` reads it."""
    key = _key()
    statement = {**_header(report), "rows": written.rows, "sha256": written.sha256}
    return sign_note(f"{key.name}\nreport\n{canonical_json(statement).decode()}\n", key)


def _key() -> SigningKey:
    """The current key, once a checkpoint has admitted it. Raises KeyFault."""
    ring = keys.load()
    if ring is None:
        raise KeyFault("there is no audit key to sign the report with: put it back from a backup")
    if not AuditKey.objects.filter(pk=ring.current.id, verifier=str(ring.current.verifier)).exists():
        raise KeyFault(f"the audit key {ring.current.id} has signed no checkpoint yet: the next one admits it")
    return ring.current


def _finish(report: AuditReport, written: Written, *, name: str, note: str) -> AuditReport:
    with transaction.atomic():
        fresh = AuditReport.objects.select_for_update().get(pk=report.pk)
        if fresh.state != ReportState.QUEUED:
            return fresh  # another writer was first, with the same answer
        values = {"name": name, "sha256": written.sha256, "rows": written.rows, "note": note}
        return move(
            fresh,
            lifecycle=REPORT_LIFECYCLE,
            to=ReportState.READY,
            event="report.written",
            actor=WORKER,
            reason="",
            changes={**values, "failure": "", "finished_at": timezone.now()},
            payload={**_header(report), "rows": written.rows},
        )


@transaction.atomic
def _postpone(report: AuditReport, failure: str) -> AuditReport:
    """Tell what is missing and wait for it; give up after ``PATIENCE``."""
    fresh = AuditReport.objects.select_for_update().get(pk=report.pk)
    if fresh.state != ReportState.QUEUED:
        return fresh
    if timezone.now() - fresh.created_at < PATIENCE:
        if fresh.failure != failure:
            before = image(fresh)
            fresh.failure = failure
            fresh.save(update_fields=["failure"])
            audit.record(
                type="report.postponed",
                subject=fresh,
                actor=WORKER,
                reason=failure,
                before=before,
                after=image(fresh),
            )
        return fresh
    return move(
        fresh,
        lifecycle=REPORT_LIFECYCLE,
        to=ReportState.FAILED,
        event="report.failed",
        actor=WORKER,
        reason=failure,
        changes={"failure": failure, "finished_at": timezone.now()},
    )


# --- Computing it again


@dataclass(frozen=True, slots=True)
class Reproduction:
    """``sha256`` is what the trail answers now; ``stored`` that of the bytes in the object storage ("" if unread)."""

    signed: str
    sha256: str
    stored: str
    has_root: bool
    """Whether the tree still has the root that the report names."""

    @property
    def is_same(self) -> bool:
        return self.has_root and self.signed == self.sha256 == self.stored


def reproduce_report(*, report: AuditReport, actor: Actor) -> Reproduction:
    """Answer the report again from the trail as it is now, and compare: with the signed digest and the stored bytes.

    Raises:
        Conflict: the report is not READY.
    """
    if report.state != ReportState.READY:
        raise Conflict(f"the report is {report.state}: only a written one can be reproduced", code="not_ready")
    found = Reproduction(
        signed=report.sha256,
        sha256=_recomputed(report),
        stored=_stored_digest(report),
        has_root=_has_root(report),
    )
    with transaction.atomic():
        audit.record(
            type="report.reproduced",
            subject=report,
            actor=actor,
            outcome="success" if found.is_same else "failure",
            payload={"sha256": found.sha256, "stored": found.stored, "has_root": found.has_root},
        )
    return found


def _recomputed(report: AuditReport) -> str:
    """The digest of the answer as the trail gives it now; "" if an archived month cannot be read."""
    try:
        return _compute(report).sha256
    except UnreadableArchive:
        return ""


def _stored_digest(report: AuditReport) -> str:
    try:
        return archives.sha256_of(report.name)
    except STORAGE_FAULTS:
        return ""


def _has_root(report: AuditReport) -> bool:
    try:
        return Tree(read_tile).root(_size(report)) == bytes(report.root or b"")
    except LookupError:
        return False
