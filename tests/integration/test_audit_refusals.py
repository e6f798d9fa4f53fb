"""Refused access is an event: who asked for what, and which scope they lack; once a minute for each address."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from tests.support.factories import RunFactory, TokenFactory, UserFactory

pytestmark = pytest.mark.django_db


def refusals() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(type="access.refused").order_by("id"))


@pytest.fixture
def viewer(client: Client) -> Any:
    user = UserFactory(role=Role.VIEWER)
    client.force_login(user)
    return user


def test_a_token_without_the_scope_is_refused_by_name(client: Client) -> None:
    token = TokenFactory(user=UserFactory(role=Role.ADMIN), scopes=["runs:read"])

    response = client.get("/api/v1/audit/events", headers={"Authorization": f"Bearer {token.secret}"})

    assert response.status_code == 403
    (event,) = refusals()
    assert (event.subject_id, event.token_id, event.outcome) == (str(token.user_id), str(token.id), "refused")
    assert event.reason == "this needs the scope audit:read"
    assert event.payload == {"method": "GET", "route": "api/v1/audit/events"}


def test_a_page_and_the_admin_tell_too(client: Client, viewer: Any) -> None:
    run = RunFactory()

    assert client.get("/audit").status_code == 403
    assert client.post(reverse("admin:training_trainingrun_stop", args=[run.pk]), {"reason": "x"}).status_code in {
        302,
        403,
    }

    assert refusals()[0].payload["route"] == "audit"


def test_the_same_refusal_is_told_once_a_minute(client: Client, viewer: Any) -> None:
    for _ in range(5):
        client.get("/audit")

    assert len(refusals()) == 1


def test_nobody_leaves_no_event(client: Client) -> None:
    client.get("/api/v1/audit/events")

    assert refusals() == []
