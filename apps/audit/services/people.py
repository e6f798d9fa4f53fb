"""Forgetting who a pseudonym stands for: the side table loses names, addresses and salt; no event changes."""

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.audit import pseudonyms
from apps.audit import services as audit
from apps.audit.models import AuditPerson, AuditPersonalValue
from apps.core.actors import Actor
from apps.core.errors import Conflict


@transaction.atomic
def erase_person(*, user_id: UUID, actor: Actor, reason: str) -> AuditPerson:
    """Erase what the trail keeps of a person beside its events. Every leaf and every proof stays as it is.

    The row keeps ``user_id``, the number of an account that ``accounts.erase_person`` empties: it says that there is
    nothing to remember any more, so that a request that still holds the name stores it under no new pseudonym.

    Raises:
        Conflict: the person was erased before.
    """
    pseudonym = pseudonyms.pseudonym_of(user_id)
    person = AuditPerson.objects.select_for_update().get(pk=pseudonym.id)  # after it, nobody adds a value
    if person.erased_at is not None:
        raise Conflict("this person was erased before", code="erased")
    values = AuditPersonalValue.objects.filter(person=person).exclude(value=None).update(value=None)
    person.salt, person.erased_at = None, timezone.now()
    person.save(update_fields=["salt", "erased_at"])
    pseudonyms.forget()
    transaction.on_commit(pseudonyms.forget)
    audit.record(
        type="access.person_erased",
        subject=("person", str(person.pk)),
        actor=actor,
        reason=reason,
        payload={"values": values},
    )
    return person
