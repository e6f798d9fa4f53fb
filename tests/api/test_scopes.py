"""Who may do what: roles, tokens that narrow them, sessions with CSRF."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from apps.accounts.models import ApiToken, User
from apps.accounts.roles import Role
from tests.api.conftest import Caller
from tests.support.factories import RunFactory, TokenFactory, UserFactory
from tests.support.problems import assert_problem

READS = {
    "/api/v1/runs": {"viewer", "operator", "curator", "admin"},
    "/api/v1/kernels": {"viewer", "operator", "curator", "admin"},
    "/api/v1/audit/events": {"operator", "curator", "admin"},
    "/api/v1/users": {"admin"},
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("path", list(READS))
def test_each_role_reads_what_its_scopes_allow(caller: Callable[..., Caller], role: str, path: str) -> None:
    assert caller(role).get(path).status_code == (200 if role in READS[path] else 403)


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("operator", 403), ("curator", 201), ("admin", 201)])
def test_only_curators_and_admins_write_the_library(caller: Callable[..., Caller], role: str, status: int) -> None:
    assert caller(role).post("/api/v1/blueprints", {"name": "wide"}).status_code == status


def test_a_token_narrows_its_user(caller: Callable[..., Caller]) -> None:
    client = caller(Role.ADMIN, scopes=["runs:read"])

    assert client.get("/api/v1/runs").status_code == 200
    assert_problem(client.get("/api/v1/kernels"), 403, "permission_denied")


def test_a_token_never_widens_its_user(caller: Callable[..., Caller]) -> None:
    client = caller(Role.VIEWER, scopes=["runs:read", "runs:write", "accounts:manage"])

    assert_problem(client.get("/api/v1/users"), 403, "permission_denied")


def test_a_token_loses_what_its_users_role_loses(caller: Callable[..., Caller]) -> None:
    client = caller(Role.OPERATOR)
    run = RunFactory()
    User.objects.filter(pk=client.user.pk).update(role=Role.VIEWER)

    assert_problem(client.post(f"/api/v1/runs/{run.pk}/stop"), 403)


def test_a_token_without_scopes_reads_nothing_at_all(caller: Callable[..., Caller]) -> None:
    client = caller(Role.ADMIN, scopes=[])

    for path in ("/api/v1/runs", "/api/v1/catalogue", "/api/v1/schema", "/api/v1/tokens"):
        assert_problem(client.get(path), 403)


def test_an_expired_token_is_refused_and_kept_for_the_trail(caller: Callable[..., Caller]) -> None:
    client = caller(Role.ADMIN)
    ApiToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))

    assert_problem(client.get("/api/v1/runs"), 401, "authentication_failed")
    assert ApiToken.objects.filter(pk=client.token.pk).exists()


def test_the_token_of_a_deactivated_user_is_refused(caller: Callable[..., Caller]) -> None:
    client = caller(Role.ADMIN)
    User.objects.update(is_active=False)

    assert_problem(client.get("/api/v1/runs"), 401, "authentication_failed")


def test_head_needs_the_scope_of_get(caller: Callable[..., Caller]) -> None:
    assert caller(Role.VIEWER).head("/api/v1/runs").status_code == 200
    assert caller(Role.VIEWER).head("/api/v1/audit/events").status_code == 403


def test_a_session_may_write_only_with_its_csrf_token(db: None) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(UserFactory(role=Role.CURATOR))

    assert client.get("/api/v1/runs").status_code == 200
    assert_problem(client.post("/api/v1/blueprints", {"name": "wide"}, format="json"), 403, "permission_denied")


def test_a_token_wins_over_a_session(db: None) -> None:
    client = APIClient()
    client.force_login(UserFactory(role=Role.ADMIN))
    token = TokenFactory(user=UserFactory(role=Role.VIEWER))

    response = client.get("/api/v1/users", headers={"Authorization": f"Bearer {token.secret}"})

    assert_problem(response, 403)
