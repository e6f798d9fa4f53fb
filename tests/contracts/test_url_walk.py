"""Deny by default, proven on every address that the site answers: nobody and the under-privileged are refused.

The walk is generated from the URL configuration, so that a new address is tested before anybody thinks of it. The last
tests plant offenders and show that the walk finds them.
"""

from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from apps.accounts.roles import ROLE_SCOPES, Role, Scope
from apps.core.api import ApiView
from apps.core.permissions import ANY, required_scope
from tests.contracts.planted_urls import PREFIX
from tests.contracts.routes import OUTSIDE, PUBLIC, Route, let_in, routes
from tests.support.factories import TokenFactory, UserFactory

PLANTED = "tests.contracts.planted_urls"
HANDLERS = ("get", "post", "put", "patch", "delete")


def bearer(scopes: list[str]) -> APIClient:
    client = APIClient(raise_request_exception=False)
    token = TokenFactory(user=UserFactory(role=Role.ADMIN), scopes=scopes)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token.secret}")
    return client


def without_scopes(monkeypatch: pytest.MonkeyPatch) -> Client:
    """A logged-in person whose role allows nothing."""
    monkeypatch.setitem(ROLE_SCOPES, Role.VIEWER, frozenset())
    client = Client(raise_request_exception=False)
    client.force_login(UserFactory(role=Role.VIEWER))
    return client


def api_routes(urlconf: str | None = None) -> list[Route]:
    return [
        route
        for route in routes(urlconf)
        if isinstance(route.view_class, type) and issubclass(route.view_class, ApiView)
    ]


def undeclared(urlconf: str | None = None) -> set[str]:
    """Methods of API views that do not say which known scope they need."""
    known = {ANY, *Scope}
    return {
        f"{handler.upper()} {route.path}"
        for route in api_routes(urlconf)
        for handler in HANDLERS
        if hasattr(route.view_class, handler)
        and handler in route.view_class.http_method_names
        and required_scope(route.view_class, handler.upper()) not in known
    }


def too_open(urlconf: str | None = None) -> set[str]:
    """Methods of API views that let in a token with every scope but the one they declare."""
    found = set()
    for missing in [*Scope, ANY]:
        client = bearer([str(scope) for scope in Scope if missing not in (scope, ANY)])
        for route in api_routes(urlconf):
            for method in getattr(route.view_class, "scopes", {}):
                if required_scope(route.view_class, method) == missing:
                    response = client.generic(method, route.path, REMOTE_ADDR=OUTSIDE)
                    found |= {f"{method} {route.path}"} if response.status_code != 403 else set()
    return found


def test_the_walk_sees_the_api_the_pages_the_probes_and_the_admin() -> None:
    paths = {route.path for route in routes()}

    assert {"/api/v1/runs", "/runs", "/readyz", "/metrics", "/healthz", "/login", "/admin/"} <= paths
    assert len(paths) > 60


def test_every_address_but_the_public_ones_refuses_nobody(db: None) -> None:
    assert let_in(Client(raise_request_exception=False)) == set()


def test_the_public_ones_are_open(db: None) -> None:
    client = Client()

    assert {path: client.get(path, REMOTE_ADDR=OUTSIDE).status_code for path in PUBLIC} == dict.fromkeys(PUBLIC, 200)


def test_every_address_refuses_a_person_whose_role_allows_nothing(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert let_in(without_scopes(monkeypatch)) <= {"POST /logout"}


def test_every_address_refuses_a_token_without_scopes(db: None) -> None:
    assert let_in(bearer([])) == set()


def test_every_api_method_declares_its_scope() -> None:
    assert undeclared() == set()


def test_every_api_method_refuses_a_token_that_lacks_only_its_scope(db: None) -> None:
    assert too_open() == set()


# --- The walk can fail


@pytest.fixture
def planted(settings: Any) -> str:
    settings.ROOT_URLCONF = PLANTED
    return PLANTED


def test_an_open_view_is_found(db: None, planted: str) -> None:
    found = let_in(Client(raise_request_exception=False), planted)

    assert {path.split("/")[-1] for path in found} == {"plain", "open"}
    assert f"GET /{PREFIX}open" in found


def test_a_view_open_to_all_tokens_is_found(db: None, planted: str) -> None:
    assert too_open(planted) == {f"GET /{PREFIX}open"}


def test_a_view_without_a_known_scope_is_found(planted: str) -> None:
    assert undeclared(planted) == {f"GET /{PREFIX}without-scopes", f"POST /{PREFIX}wrong-scope"}


def test_a_view_without_scopes_refuses_even_an_administrator(db: None, planted: str) -> None:
    client = bearer([str(scope) for scope in Scope])

    assert client.get(f"/{PREFIX}without-scopes").status_code == 403
    assert client.post(f"/{PREFIX}wrong-scope").status_code == 403
