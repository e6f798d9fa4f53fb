"""Reading the trail."""

from collections.abc import Iterable
from uuid import UUID

from django.db.models import QuerySet

from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue


def events_of(*, subject_type: str, subject_id: str) -> QuerySet[AuditEvent]:
    """The history of one asset, newest first."""
    return AuditEvent.objects.filter(subject_type=subject_type, subject_id=subject_id).order_by("-at", "-id")


def actor_names(person_ids: Iterable[UUID | None]) -> dict[UUID, str]:
    """Pseudonym -> latest known name, for those that were not erased."""
    values = AuditPersonalValue.objects.filter(
        person_id__in={key for key in person_ids if key}, kind="name", value__isnull=False
    ).order_by("id")
    return {value.person_id: value.value or "" for value in values}


def person_named(name: str) -> AuditPerson | None:
    """Who is called so now, or was last; erased people are called nothing."""
    values = AuditPersonalValue.objects.filter(kind__in=("name", "username"), value=name).select_related("person")
    newest = values.order_by("-id").first()
    return newest.person if newest is not None else None


def person_of(user_id: UUID) -> AuditPerson | None:
    """Who stands behind the events of a user; None before the first."""
    return AuditPerson.objects.filter(user_id=user_id).first()
