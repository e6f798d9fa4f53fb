"""How a request proves who it is: a bearer token (programs) or the session (browser)."""

from typing import Any

from knox.auth import TokenAuthentication
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed


class Bearer(TokenAuthentication):
    """``Authorization: Bearer esper_...``; the token's row becomes ``request.auth``."""

    def authenticate_credentials(self, token: bytes) -> Any:
        try:
            token.decode("ascii")
        except UnicodeDecodeError:
            raise AuthenticationFailed("Invalid token.") from None
        return super().authenticate_credentials(token)

    def _cleanup_token(self, auth_token: Any) -> bool:
        """Expired tokens are refused, not deleted: a read must not write, and the audit trail refers to them."""
        return bool(auth_token.is_expired)


class Session(SessionAuthentication):
    """Django's session with CSRF; answers 401 (not 403) to nobody, so that a browser knows to log in."""

    def authenticate_header(self, request: Any) -> str:
        return "Session"
