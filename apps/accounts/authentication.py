"""How a request proves who it is: a bearer token (programs) or the session (browser)."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import InternalError
from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed

from apps.accounts.models import ApiToken

USE_RESOLUTION = timedelta(minutes=1)


class Bearer(TokenAuthentication):
    """``Authorization: Bearer esper_...``; the token's row becomes ``request.auth``."""

    def authenticate_credentials(self, token: bytes) -> Any:
        try:
            token.decode("ascii")
        except UnicodeDecodeError:
            raise AuthenticationFailed("Invalid token.") from None
        user, row = super().authenticate_credentials(token)
        _note_use(row)
        return user, row

    def _cleanup_token(self, auth_token: Any) -> bool:
        """Expired tokens are refused, not deleted: a read must not write, and the audit trail refers to them."""
        return bool(auth_token.is_expired)


def _note_use(token: ApiToken) -> None:
    """A sign of life, at most one write a minute for each token; none while the database takes no writes."""
    now = timezone.now()
    if token.last_used_at is None or now - token.last_used_at > USE_RESOLUTION:
        with suppress(InternalError):
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)


class Session(SessionAuthentication):
    """Django's session with CSRF; answers 401 (not 403) to nobody, so that a browser knows to log in."""

    def authenticate_header(self, request: Any) -> str:
        return "Session"
