"""Who may see a page: a session, and the scope that the page names. Every view of this app is wrapped by ``page``."""

from collections.abc import Callable
from functools import wraps
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.utils.cache import patch_vary_headers

from apps.accounts.models import User
from apps.accounts.roles import Scope

View = Callable[..., HttpResponseBase]


def viewer(request: HttpRequest) -> User:
    """Who looks: inside a view wrapped by ``page`` it is a user."""
    return cast(User, request.user)


def is_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part to put into the page, not for a page."""
    return request.headers.get("HX-Request") == "true"


def page(scope: Scope, *, methods: tuple[str, ...] = ("GET", "HEAD")) -> Callable[[View], View]:
    """Let in a logged-in user whose role has ``scope``; ``view.scopes`` (method -> scope) says so.

    Nobody is sent to the log-in page (a script gets 401); somebody without the scope gets 403, which names it.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return _to_login(request)
            if not request.user.has_scope(scope):
                raise PermissionDenied(
                    f"This needs the scope {scope}, which the role {request.user.role} does not have. "
                    "An administrator can give you another role."
                )
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            response = view(request, *args, **kwargs)
            patch_vary_headers(response, ["HX-Request"])
            return response

        guarded.scopes = dict.fromkeys(methods, scope)  # type: ignore[attr-defined]
        return guarded

    return decorate


def _to_login(request: HttpRequest) -> HttpResponse:
    is_script = is_fragment(request) or "application/json" in request.headers.get("Accept", "")
    if not is_script:
        back = request.get_full_path() if request.method in {"GET", "HEAD"} else "/"
        return HttpResponseRedirect(f"{settings.LOGIN_URL}?{urlencode({'next': back})}")
    shown = urlsplit(request.headers.get("HX-Current-URL", "/"))
    response = HttpResponse(status=401)
    response["HX-Redirect"] = f"{settings.LOGIN_URL}?{urlencode({'next': shown.path or '/'})}"
    return response
