"""How the trail stands: what is sealed, what waits and for how long, what was copied, and whether it verified."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min
from django.utils import timezone

from apps.audit import keys
from apps.audit.keys import KeyFault
from apps.audit.models import AuditCheckpoint, AuditPending, AuditVerification
from apps.audit.proofs import uncopied_checkpoints

STALE_SECONDS = 60.0
"""Events that wait longer than this tell that nobody seals, or that a transaction has been open for as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailState:
    """``unsealed_age`` in seconds, 0 when nothing waits; ``fault`` says why nothing is sealed, if a key is why."""

    sealed: int
    unsealed: int
    unsealed_age: float
    checkpoint: AuditCheckpoint | None
    uncopied: int
    verification: AuditVerification | None
    fault: str
    at: datetime

    @property
    def is_stale(self) -> bool:
        return self.unsealed_age > STALE_SECONDS


def trail_state() -> TrailState:
    """Five short queries."""
    waiting = AuditPending.objects.aggregate(count=Count("event_id"), oldest=Min("at"))
    checkpoint = AuditCheckpoint.objects.order_by("-size").first()
    now = timezone.now()
    age = max((now - waiting["oldest"]).total_seconds(), 0.0) if waiting["oldest"] else 0.0
    return TrailState(
        sealed=checkpoint.size if checkpoint else 0,
        unsealed=waiting["count"],
        unsealed_age=age,
        checkpoint=checkpoint,
        uncopied=uncopied_checkpoints().count(),
        verification=_standing_verification(),
        fault=_key_fault(checkpoint is not None) if age > STALE_SECONDS else "",
        at=now,
    )


def _standing_verification() -> AuditVerification | None:
    """The newest one; but findings stand until the whole trail has verified without any, whatever later parts say."""
    clean = AuditVerification.objects.filter(first=0, findings_count=0, unchecked_count=0).order_by("-id").first()
    altered = AuditVerification.objects.filter(findings_count__gt=0).order_by("-id")
    if clean is not None:
        altered = altered.filter(id__gt=clean.pk)
    return altered.first() or AuditVerification.objects.order_by("-id").first()


def _key_fault(was_sealed: bool) -> str:
    """What is wrong with the signing key, as this process sees it."""
    try:
        ring = keys.load()
    except KeyFault as error:
        return error.detail
    return "the signing key is gone" if ring is None and was_sealed else ""
