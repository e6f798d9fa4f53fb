"""From a request to the actor that services record."""

from typing import Any

from apps.accounts.models import ApiToken, User
from apps.core.actors import Actor, ActorKind


def actor_of(request: Any) -> Actor:
    """The authenticated user or token behind a Django or DRF request."""
    user: User = request.user
    auth = getattr(request, "auth", None)
    token = auth if isinstance(auth, ApiToken) else None
    return Actor(
        kind=ActorKind.TOKEN if token else ActorKind.USER,
        id=user.pk,
        name=user.get_username(),
        token_id=str(token.id) if token else "",
        address=request.META.get("REMOTE_ADDR") or "",
    )
