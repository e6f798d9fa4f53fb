"""Who acts. Every service that writes takes an ``actor``; the audit trail keeps it."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class ActorKind(StrEnum):
    USER = "user"
    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    WORKER = "worker"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """``id`` is the user's (None for the platform itself); ``name`` and ``address`` are personal data."""

    kind: ActorKind
    id: UUID | None = None
    name: str = ""
    token_id: str = ""
    address: str = ""


SYSTEM = Actor(kind=ActorKind.SYSTEM, name="system")
WORKER = Actor(kind=ActorKind.WORKER, name="worker")
