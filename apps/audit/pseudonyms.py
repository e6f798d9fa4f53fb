"""Pseudonyms: who stands behind an event is a row of the side table, and names are committed as HMACs under its salt.

Both are remembered for a minute in this process, once their rows are committed: they stand in nearly every event.
A value is stored only while its person's row, locked, has a salt: after an erasure has committed, no process stores a
name or an address of that person again. For up to a minute other processes may still put digests under the forgotten
salt into events; nobody can tell what those stand for.
"""

import hmac
import secrets
import time
from dataclasses import dataclass
from uuid import UUID

from django.db import connection, transaction

from apps.audit.models import AuditPerson, AuditPersonalValue
from apps.core.ids import new_id

REMEMBER_SECONDS = 60.0
MAX_REMEMBERED = 10_000
SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pseudonym:
    """``salt`` is None once the person was erased."""

    id: UUID
    salt: bytes | None

    def digest(self, kind: str, value: str) -> str:
        """HMAC-SHA256(salt, kind NUL value) in hex; empty for nothing, or for somebody who was erased."""
        if self.salt is None or not value:
            return ""
        return hmac.digest(self.salt, f"{kind}\0{value}".encode(), "sha256").hex()


_people: dict[tuple[str, UUID], tuple[float, Pseudonym]] = {}
_digests: dict[tuple[str, UUID, str, str], tuple[float, str]] = {}


def pseudonym_of(user_id: UUID) -> Pseudonym:
    """The pseudonym of a user; made at the first event."""
    key = (_database(), user_id)
    until, found = _people.get(key, (0.0, None))
    if found is not None and until > time.monotonic():
        return found
    person, _ = AuditPerson.objects.get_or_create(
        user_id=user_id, defaults={"id": new_id(), "salt": secrets.token_bytes(SALT_BYTES)}
    )
    pseudonym = Pseudonym(id=person.pk, salt=bytes(person.salt) if person.salt is not None else None)
    transaction.on_commit(lambda: _remember_person(key, pseudonym))
    return pseudonym


def commit(person: Pseudonym | None, kind: str, value: str) -> str:
    """The digest that stands for a personal value in an event; the value itself goes to the side table."""
    if person is None or person.salt is None or not value:
        return ""
    key = (_database(), person.id, kind, value)
    until, digest = _digests.get(key, (0.0, ""))
    if until > time.monotonic():
        return digest
    digest = person.digest(kind, value)
    known = AuditPersonalValue.objects.filter(person_id=person.id, kind=kind, digest=digest)
    if not known.exists():
        if not _keep_salt(person.id):
            return ""
        AuditPersonalValue.objects.get_or_create(
            person_id=person.id, kind=kind, digest=digest, defaults={"value": value}
        )
    transaction.on_commit(lambda: _remember_digest(key, digest))
    return digest


def _keep_salt(person_id: UUID) -> bool:
    """Whether the person was not erased; from here to the end of the transaction nobody can erase them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT salt IS NOT NULL FROM audit_auditperson WHERE id = %s FOR SHARE", [person_id])
        found = cursor.fetchone()
    return found is not None and bool(found[0])


def forget() -> None:
    """Forget what is remembered, in this process."""
    _people.clear()
    _digests.clear()


def _remember_person(key: tuple[str, UUID], pseudonym: Pseudonym) -> None:
    if len(_people) >= MAX_REMEMBERED:
        _people.clear()
    _people[key] = (time.monotonic() + REMEMBER_SECONDS, pseudonym)


def _remember_digest(key: tuple[str, UUID, str, str], digest: str) -> None:
    if len(_digests) >= MAX_REMEMBERED:
        _digests.clear()
    _digests[key] = (time.monotonic() + REMEMBER_SECONDS, digest)


def _database() -> str:
    return str(connection.settings_dict["NAME"])
