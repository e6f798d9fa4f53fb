"""Reads about accounts that join several tables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session

from apps.accounts.models import User
from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue


def sessions_of(user: User) -> list[str]:
    """The keys of the user's sessions. Each session is decoded: only inside stands whose it is."""
    sessions = Session.objects.order_by("session_key").iterator(chunk_size=1000)
    return [session.pk for session in sessions if session.get_decoded().get(SESSION_KEY) == str(user.pk)]


@dataclass(frozen=True, slots=True)
class Traces:
    """What there is of a person: ``values`` (kind -> count), tokens and sessions would go; ``events`` stay."""

    pseudonym: UUID | None
    is_erased: bool
    values: Mapping[str, int]
    tokens: int
    sessions: int
    events: int


def traces_of(user: User) -> Traces:
    """What an erasure of this person would find."""
    person = AuditPerson.objects.filter(user_id=user.pk).first()
    kinds = AuditPersonalValue.objects.filter(person=person).exclude(value=None).values_list("kind", flat=True)
    return Traces(
        pseudonym=person.pk if person else None,
        is_erased=person is not None and person.erased_at is not None,
        values=dict(sorted(Counter(kinds).items())) if person else {},
        tokens=user.auth_token_set.count(),
        sessions=len(sessions_of(user)),
        events=AuditEvent.objects.filter(actor_id=person.pk).count() if person else 0,
    )
