"""Who acts. Every service that writes takes an ``actor``; the audit trail keeps it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
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


def actor_of(request: Any) -> Actor:
    """The authenticated user or token behind a Django or DRF request. A token is what narrows its user's scopes."""
    auth = getattr(request, "auth", None)
    token = auth if hasattr(auth, "effective_scopes") else None
    return Actor(
        kind=ActorKind.TOKEN if token is not None else ActorKind.USER,
        id=request.user.pk,
        name=request.user.get_username(),
        token_id=str(token.id) if token is not None else "",
        address=request.META.get("REMOTE_ADDR") or "",
    )
