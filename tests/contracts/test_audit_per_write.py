"""Every address that writes owes the audit trail an event: each API method, each form of a page, each admin action.

The list is generated from the URL configuration. For each address the real request is made on real rows: the event that
its case names is there, by the acting user, from one request, and the events together tell exactly what became of every
watched row. An address without a case must change nothing at all.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit.models import AuditEvent, AuditPerson
from tests.contracts.routes import SAMPLES, routes
from tests.contracts.write_cases import EXEMPT, WRITES, Call, World
from tests.support import story, tables
from tests.support.admin_rows import make_rows, pages_of
from tests.support.factories import TokenFactory, UserFactory

pytestmark = pytest.mark.django_db

METHODS = ("POST", "PUT", "PATCH", "DELETE")


def template(path: str) -> str:
    """The path with ``{id}`` for its row."""
    return path.replace(SAMPLES["uuid"], "{id}")


def writing_addresses() -> Iterator[str]:
    """Whatever says that it takes a method that writes: API views and pages by their scopes."""
    for route in routes():
        scopes = getattr(route.view_class, "scopes", None) or getattr(route.view, "scopes", {})
        yield from (f"{method} {template(route.path)}" for method in METHODS if method in scopes)


def admin_addresses() -> dict[str, Any]:
    """Every address of the admin that belongs to a model, and those of the site itself."""
    rows = make_rows()
    found = {}
    for page in pages_of(admin.site):
        url = page.url(rows) if page.model or not page.takes_row else ""
        row = rows.get(page.model)
        key = str(getattr(row, "id", None) or getattr(row, "pk", ""))
        found[f"POST {url.replace(key, '{id}') if key and page.takes_row else url}"] = page
    return found


def sent(client: Client, address: str, call: Call) -> Any:
    method, path = address.split(" ")
    for key in call.id if isinstance(call.id, tuple) else [call.id] * path.count("{id}"):
        path = path.replace("{id}", str(key), 1)
    headers = {}
    if path.startswith("/api/"):
        if call.needs_etag:
            headers["If-Match"] = client.get(path)["ETag"]
        if call.data:
            return client.generic(method, path, call.data, content_type="application/octet-stream", headers=headers)
        return client.generic(method, path, json.dumps(call.body), content_type="application/json", headers=headers)
    return client.post(path, call.body)


def caller_of(address: str) -> tuple[Client, User]:
    """The API by token, pages and the admin by session; both as an administrator."""
    user = UserFactory(username="ada", role=Role.ADMIN)
    if address.split(" ")[1].startswith("/api/"):
        return Client(headers={"Authorization": f"Bearer {TokenFactory(user=user).secret}"}), user
    client = Client()
    if address != "POST /login":
        client.force_login(user)
    return client, user


def event_ids() -> set[Any]:
    return set(AuditEvent.objects.values_list("pk", flat=True))


@pytest.mark.parametrize("address", WRITES)
def test_what_the_address_does_stands_in_its_events(address: str) -> None:
    case = WRITES[address]
    client, user = caller_of(address)
    call = case.arrange(World(caller=user))
    before, known = story.snapshot(), event_ids()

    response = sent(client, address, call)

    assert response.status_code < 400, response.content[:500]
    events = list(AuditEvent.objects.exclude(pk__in=known).order_by("id"))
    assert case.event in {event.type for event in events}
    assert story.untold(before, story.snapshot(), events) == []
    (person,) = AuditPerson.objects.filter(user_id=(call.by or user).pk)
    assert {event.actor_id for event in events} == {person.pk}
    assert len({event.request_id for event in events}) == 1
    assert events[0].request_id


def test_every_api_method_and_every_page_that_writes_has_a_case() -> None:
    assert set(writing_addresses()) - set(WRITES) - set(EXEMPT) == set()


def test_no_case_outlives_its_address() -> None:
    addresses = {f"{method} {template(route.path)}" for route in routes() for method in METHODS}

    assert set(WRITES) - addresses - set(admin_addresses()) == set()


def test_an_admin_address_without_a_case_changes_nothing() -> None:
    """Whatever is posted: nothing, a confirmed reason, or the row's own columns."""
    client, _ = caller_of("POST /admin/")
    addresses = admin_addresses()
    without_case = {address: page for address, page in addresses.items() if address not in {*WRITES, *EXEMPT}}
    rows = make_rows()

    changed = {}
    for address, page in without_case.items():
        before, known = tables.beside_the_trail(), event_ids()
        for body in ({}, {"reason": "because", "confirmed": "1"}, {"reason": "because", "post": "yes"}):
            client.post(page.url(rows), body)
        after = tables.beside_the_trail()
        told = set(AuditEvent.objects.exclude(pk__in=known).values_list("type", flat=True)) - {"access.refused"}
        changed[address] = told | {name for name in after if after[name] != before[name]}

    assert {address: names for address, names in changed.items() if names} == {}


class TestPlantedOffenders:
    def test_a_write_without_a_case_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(WRITES, "POST /api/v1/runs")

        assert "POST /api/v1/runs" in set(writing_addresses()) - set(WRITES) - set(EXEMPT)

    def test_a_change_that_no_event_tells_is_found(self) -> None:
        user = UserFactory()
        before = story.snapshot()
        User.objects.filter(pk=user.pk).update(role=Role.ADMIN)

        (wrong,) = story.untold(before, story.snapshot(), [])
        assert wrong == f"user {user.pk}: role is 'admin', and its events say 'viewer'"

    def test_an_event_that_tells_of_another_value_is_found(self) -> None:
        user = UserFactory()
        before = story.snapshot()
        User.objects.filter(pk=user.pk).update(role=Role.ADMIN)
        event = AuditEvent(
            subject_type="user", subject_id=str(user.pk), diff=[{"op": "replace", "path": "/role", "value": "curator"}]
        )

        assert len(story.untold(before, story.snapshot(), [event])) == 1
