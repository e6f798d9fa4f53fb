"""Tokens are everybody's own; users are the administrators' business."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from apps.accounts.models import ApiToken, User
from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from tests.api.conftest import Caller
from tests.support.factories import TokenFactory, UserFactory
from tests.support.problems import assert_problem


@pytest.fixture
def browser(db: None) -> Callable[[str], APIClient]:
    """A logged-in user of this role."""

    def make(role: str) -> APIClient:
        client = APIClient()
        client.force_login(UserFactory(role=role))
        return client

    return make


def issue(client: Any, **changes: Any) -> Any:
    return client.post("/api/v1/tokens", {"name": "ci", "scopes": ["runs:read"], **changes}, format="json")


def test_a_new_tokens_secret_is_shown_once_and_works(browser: Callable[[str], APIClient]) -> None:
    client = browser(Role.VIEWER)

    response = issue(client)

    assert response.status_code == 201
    assert response["Cache-Control"] == "no-store"
    assert Caller(response.json()["token"]).get("/api/v1/runs").status_code == 200
    assert "token" not in client.get(response["Location"]).json()
    assert AuditEvent.objects.filter(type="access.token_issued").count() == 1


def test_a_token_expires_when_asked(browser: Callable[[str], APIClient]) -> None:
    expiry = timezone.now() + timedelta(hours=2)

    token = issue(browser(Role.VIEWER), expiry=expiry.isoformat()).json()

    stored = ApiToken.objects.get(id=token["id"])
    assert stored.expiry is not None
    assert abs(stored.expiry - expiry) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("changes", "status", "pointer"),
    [
        ({"scopes": ["runs:write"]}, 403, "/scopes"),
        ({"scopes": ["everything"]}, 400, "/scopes"),
        ({"scopes": []}, 400, "/scopes"),
        ({"name": ""}, 400, "/name"),
        ({"expiry": "yesterday"}, 400, "/expiry"),
        ({"expiry": "2020-01-01T00:00:00Z"}, 400, "/expiry"),
        ({"expiry": "2999-01-01T00:00:00Z"}, 400, "/expiry"),
        ({"user": "somebody"}, 400, "/user"),
    ],
)
def test_a_wrong_token_request_names_its_field_and_issues_nothing(
    browser: Callable[[str], APIClient], changes: dict[str, Any], status: int, pointer: str
) -> None:
    body = assert_problem(issue(browser(Role.VIEWER), **changes), status)

    assert body["errors"][0]["pointer"].startswith(pointer)
    assert not ApiToken.objects.exists()


def test_a_token_issues_no_tokens_without_managing_accounts(caller: Callable[..., Caller]) -> None:
    assert_problem(issue(caller(Role.OPERATOR)), 403, "token_issue")


def test_a_managing_token_issues_nothing_beyond_itself(caller: Callable[..., Caller]) -> None:
    client = caller(Role.ADMIN, scopes=["accounts:manage"])

    assert_problem(issue(client, scopes=["runs:write"]), 403, "forbidden", "/scopes")
    assert issue(client, scopes=["accounts:manage"]).status_code == 201


def test_people_see_and_revoke_only_their_own(caller: Callable[..., Caller]) -> None:
    mine, other = caller(Role.OPERATOR), TokenFactory()

    assert [row["id"] for row in mine.get("/api/v1/tokens").json()["results"]] == [str(mine.token.id)]
    assert_problem(mine.get(f"/api/v1/tokens/{other.id}"), 404)
    assert_problem(mine.delete(f"/api/v1/tokens/{other.id}"), 404)
    assert mine.delete(f"/api/v1/tokens/{mine.token.id}").status_code == 204
    assert_problem(mine.get("/api/v1/tokens"), 401)


def test_an_administrator_revokes_anybodys(admin: Caller) -> None:
    other = TokenFactory(user=UserFactory())

    assert admin.delete(f"/api/v1/tokens/{other.id}").status_code == 204
    assert AuditEvent.objects.filter(type="access.token_revoked").count() == 1


def test_an_administrator_changes_a_role_with_a_reason(admin: Caller) -> None:
    path = f"/api/v1/users/{UserFactory(role=Role.VIEWER).pk}"
    etag = admin.get(path)["ETag"]

    response = admin.patch(path, {"role": "curator", "reason": "joins the library team"}, headers={"If-Match": etag})

    assert response.status_code == 200
    assert response.json()["role"] == "curator"
    assert response["ETag"] != etag
    assert AuditEvent.objects.get(type="access.role_changed").reason == "joins the library team"


def test_the_last_administrator_stays(admin: Caller) -> None:
    path = f"/api/v1/users/{admin.user.pk}"

    response = admin.patch(path, {"role": "viewer", "reason": "bye"}, headers={"If-Match": admin.get(path)["ETag"]})

    assert_problem(response, 400, "last_admin", "/role")
    assert User.objects.get(pk=admin.user.pk).role == Role.ADMIN


def test_a_role_change_says_why(admin: Caller) -> None:
    path = f"/api/v1/users/{UserFactory().pk}"

    response = admin.patch(path, {"role": "admin"}, headers={"If-Match": admin.get(path)["ETag"]})

    assert_problem(response, 400, "invalid", "/reason")
