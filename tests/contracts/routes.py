"""Every address that the site answers, read from the URL configuration, and how each treats a stranger."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from apps.core.ids import new_id

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OUTSIDE = "203.0.113.9"
"""A client on no allow-listed network (RFC 5737)."""

PUBLIC = {"/healthz", "/login"}
LOGIN = {"/login", "/admin/login/"}
"""Static files are public too, but they are no routes: WhiteNoise answers before the URL configuration is asked."""

SAMPLES = {"uuid": str(new_id()), "int": "1", "slug": "sample", "str": "sample", "path": "sample"}
PARAMETER = re.compile(r"<(?:(?P<kind>\w+):)?\w+>")
GROUP = re.compile(r"\(\?P<\w+>[^)]*\)")


@dataclass(frozen=True)
class Route:
    path: str
    view: Any

    @property
    def view_class(self) -> Any:
        return getattr(self.view, "cls", None) or getattr(self.view, "view_class", None)


def routes(urlconf: str | None = None) -> list[Route]:
    """Each pattern once, with sample values for its parameters."""
    return list(_walk(get_resolver(urlconf), ""))


def _walk(resolver: URLResolver, prefix: str) -> Iterator[Route]:
    for pattern in resolver.url_patterns:
        path = prefix + _sample(str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern, path)
        elif isinstance(pattern, URLPattern):
            yield Route("/" + path.lstrip("/"), pattern.callback)


def _sample(pattern: str) -> str:
    text = GROUP.sub("sample", pattern)
    text = PARAMETER.sub(lambda found: SAMPLES[found["kind"] or "str"], text)
    return text.replace("^", "").replace("$", "").replace(r"\Z", "")


def is_refused(client: Client, response: Any) -> bool:
    """Did this answer keep its caller out? A method that the resource lacks keeps everybody out."""
    if response.status_code not in {301, 302, 303}:
        return response.status_code in {401, 403, 405}
    target = urlsplit(response["Location"]).path
    return target in LOGIN or is_refused(client, client.get(target, REMOTE_ADDR=OUTSIDE))


def let_in(client: Client, urlconf: str | None = None) -> set[str]:
    """ "METHOD path" of all that is not public and does not refuse ``client``."""
    return {
        f"{method} {route.path}"
        for route in routes(urlconf)
        if route.path not in PUBLIC
        for method in METHODS
        if not is_refused(client, client.generic(method, route.path, REMOTE_ADDR=OUTSIDE))
    }
