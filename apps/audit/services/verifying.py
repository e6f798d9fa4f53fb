"""Verifying the trail as a service: what was found is kept, recorded, and told as an alert if it is anything."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import structlog
from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.models import AuditCheckpoint, AuditVerification
from apps.audit.verification import Outcome, verify
from apps.audit.verifier import Verifier
from apps.core.actors import Actor
from apps.core.errors import NotFound

log = structlog.get_logger(__name__)

KEPT_FINDINGS = 100
TOLD_FINDINGS = 10
TRAIL = ("trail", "audit")


def verify_trail(
    *,
    actor: Actor,
    since: int = 0,
    trusted: Sequence[Verifier] = (),
    notes: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Verify the trail (``verification.verify``) and keep the result. A verification that breaks off is a finding too.

    Raises:
        NotFound: no checkpoint was signed at ``since`` leaves.
    """
    try:
        outcome = verify(since=since, trusted=trusted, notes=notes, progress=progress)
    except (NotFound, DatabaseError, InterfaceError):
        raise
    except Exception as error:
        log.exception("audit_verification_broke_off", since=since)
        outcome = Outcome(first=since, size=since)
        outcome.wrong("verification", since, f"broke off: {type(error).__name__}: {error}")
    _keep(outcome, actor)
    return outcome


@transaction.atomic
def _keep(outcome: Outcome, actor: Actor) -> None:
    AuditVerification.objects.create(
        at=timezone.now(),
        first=outcome.first,
        size=outcome.size,
        findings_count=outcome.findings_count,
        unchecked_count=len(outcome.unchecked),
        findings=[asdict(finding) for finding in outcome.findings[:KEPT_FINDINGS]],
        seconds=outcome.seconds,
    )
    payload = {"first": outcome.first, "size": outcome.size, "findings": outcome.findings_count}
    audit.record(
        type="audit.verified",
        subject=TRAIL,
        actor=actor,
        outcome="success" if outcome.is_right else "failure",
        reason="" if outcome.is_right else f"{outcome.findings_count} findings",
        payload={**payload, "unchecked": outcome.unchecked[:TOLD_FINDINGS]},
    )
    if not outcome.is_right:
        audit.record(
            type="alert.verification",
            subject=TRAIL,
            actor=actor,
            outcome="failure",
            reason=str(outcome.findings[0]),
            payload={**payload, "first_findings": [str(finding) for finding in outcome.findings[:TOLD_FINDINGS]]},
        )


def verified_size() -> int:
    """Up to where clean verifications reached without a gap: the next one may begin there; 0 if none did."""
    covered = 0
    clean = AuditVerification.objects.filter(findings_count=0, unchecked_count=0).order_by("at", "id")
    for first, size in clean.values_list("first", "size"):
        if first <= covered:
            covered = max(covered, size)
    return covered if AuditCheckpoint.objects.filter(size=covered).exists() else 0
