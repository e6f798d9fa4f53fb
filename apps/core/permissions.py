"""Who may call a view: deny by default, by scope.

A view declares ``scopes = {"GET": "runs:read", "POST": "runs:write"}``. A method without a scope is refused to
everybody, administrators included, and a contract test finds the view.
"""

from collections.abc import Mapping
from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

ANY = "*"
"""For what every caller with at least one scope may read: the catalogue, the schema."""


def scopes_of(request: Any) -> frozenset[str]:
    """What the caller of a Django or DRF request may do: a token's scopes cut down to its user's, or the user's."""
    token = getattr(request, "auth", None)
    holder = token if hasattr(token, "effective_scopes") else None
    user = request.user
    if not user.is_authenticated or not user.is_active:
        return frozenset()
    return frozenset(holder.effective_scopes if holder is not None else user.scopes)


def required_scope(view: Any, method: str) -> str | None:
    """The scope that ``method`` of ``view`` needs; None when the view does not say."""
    scopes: Mapping[str, str] = getattr(view, "scopes", {})
    return scopes.get(method, scopes.get("GET") if method == "HEAD" else None)


class HasScope(BasePermission):
    """The default of the whole API."""

    def has_permission(self, request: Request, view: Any) -> bool:
        granted = scopes_of(request)
        if request.method not in view.allowed_methods:
            return bool(granted)  # goes on to 405
        required = required_scope(view, str(request.method))
        if required == ANY:
            return bool(granted)
        self.message = f"this needs the scope {required}" if required else "this is not open to anybody"
        return required in granted
