"""Telling that the trail was exported: who took what, and by which filters."""

from collections.abc import Mapping, Sequence

from django.db import transaction

from apps.audit import services as audit
from apps.audit.models import AuditEvent
from apps.core.actors import Actor

TRAIL = ("trail", "audit")


@transaction.atomic
def record_export(*, format: str, filters: Mapping[str, Sequence[str]], actor: Actor) -> AuditEvent:
    """Record an export before its first line goes out. Free text may hold a name: only that there was one is kept."""
    kept = {name: list(values) for name, values in filters.items() if name != "q"}
    return audit.record(
        type="access.audit_exported",
        subject=TRAIL,
        actor=actor,
        payload={"format": format, "filters": kept, "has_text": "q" in filters},
    )
