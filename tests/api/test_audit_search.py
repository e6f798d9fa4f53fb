"""Searching and exporting the trail over the API."""

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from apps.accounts.roles import Role
from apps.audit import services, verifier
from apps.audit.models import AuditCheckpoint, AuditEvent, AuditKey
from apps.core.actors import SYSTEM, Actor, ActorKind
from tests.api.conftest import Caller
from tests.api.test_pagination import next_link, walk
from tests.support.audit import backdated, own_home, record, sealed
from tests.support.factories import TokenFactory, UserFactory
from tests.support.problems import assert_problem
from tests.support.stack import Servers

home = own_home
EVENTS, EXPORT = "/api/v1/audit/events", "/api/v1/audit/export"


@pytest.fixture
def reader(committed_db: str, home: Path) -> Caller:
    """An operator's token, on a database that really commits."""
    user = UserFactory(role=Role.ADMIN)
    client = Caller(TokenFactory(user=user).secret)
    client.user = user
    return client


def body(response: Any) -> str:
    assert response.status_code == 200, response.content
    return b"".join(response.streaming_content).decode()


def lines(response: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body(response).splitlines()]


# --- Search


def test_pages_of_a_search_follow_each_other(reader: Caller) -> None:
    events = [record(number, reason=f"because of {number % 2}") for number in range(9)]

    rows = walk(reader, f"{EVENTS}?q=OF%201&page_size=2")

    assert [row["id"] for row in rows] == [str(event.pk) for event in reversed(events) if event.payload["number"] % 2]


def test_the_oldest_come_first_where_asked(reader: Caller) -> None:
    events = [record(number) for number in range(5)]

    rows = walk(reader, f"{EVENTS}?family=kernel&sort=id&page_size=2")

    assert [row["id"] for row in rows] == [str(event.pk) for event in events]


def test_a_page_that_ends_short_says_how_far_it_looked(reader: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [record(number, reason="needle" if number == 0 else "") for number in range(60)]
    monkeypatch.setattr("apps.audit.search.PAGES", 0)

    first = reader.get(f"{EVENTS}?q=needle&page_size=5")
    rows = walk(reader, next_link(first))

    assert first.json()["results"] == []
    assert first.json()["has_more"] is True
    assert first.json()["searched_to"] is not None
    assert [row["id"] for row in rows] == [str(events[0].pk)]


def test_unsealed_and_sealed_events_are_found_alike(reader: Caller) -> None:
    sealed(2)
    record()

    assert len(walk(reader, f"{EVENTS}?type=kernel.registered")) == 3


def test_me_is_who_asks(reader: Caller) -> None:
    record()
    mine = record(actor=Actor(kind=ActorKind.USER, id=reader.user.pk, name=reader.user.username))

    assert [row["id"] for row in walk(reader, f"{EVENTS}?actor=me&family=kernel")] == [str(mine.pk)]
    assert [row["id"] for row in walk(reader, f"{EVENTS}?actor={mine.actor_id}&family=kernel")] == [str(mine.pk)]
    assert len(walk(reader, f"{EVENTS}?actor=system&family=kernel")) == 1


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("type=kernel", "/type"),
        ("family=kernels", "/family"),
        ("subject_type=x", "/subject_type"),
        (f"subject_id={'x' * 65}", "/subject_id"),
        ("actor=grace", "/actor"),
        ("actor_id=x", "/actor_id"),
        ("outcome=fine", "/outcome"),
        ("since=yesterday", "/since"),
        ("since=2026-02-01T00:00:00Z&until=2026-01-01T00:00:00Z", "/until"),
        ("q=", "/q"),
        (f"q={'x' * 201}", "/q"),
        ("q=%00", "/q"),
        ("count=true", "/count"),
        ("cursor=forged", "/cursor"),
        ("sort=at", "/sort"),
        ("page_size=201", "/page_size"),
    ],
)
def test_a_wrong_filter_is_named(admin: Caller, query: str, pointer: str) -> None:
    assert_problem(admin.get(f"{EVENTS}?{query}"), 400, "", pointer)


def test_a_cursor_belongs_to_its_search(reader: Caller) -> None:
    for number in range(3):
        record(number)
    link = next_link(reader.get(f"{EVENTS}?family=kernel&page_size=1"))

    assert_problem(reader.get(link.replace("kernel", "run")), 400, "cursor", "/cursor")


@pytest.mark.parametrize("text", ["'; --", "\\", "%s", "%(x)s", "\ufffd", "ä", "\U0001f600"])
def test_any_text_can_be_looked_for(reader: Caller, text: str) -> None:
    event = record(reason=f"before {text} after")
    record(reason="before after")

    assert [row["id"] for row in walk(reader, f"{EVENTS}?q={quote(text)}")] == [str(event.pk)]


# --- Export


def test_the_sealed_export_verifies_against_the_signed_note(reader: Caller, home: Path) -> None:
    sealed(5, reason="=1+1")
    sealed(4)
    record()  # not sealed
    note = AuditCheckpoint.objects.latest("size")
    file = home / "audit.jsonl"

    file.write_text(body(reader.get(f"{EXPORT}?sealed=true")))

    key = verifier.Verifier.parse(AuditKey.objects.get().verifier)
    with file.open() as events:
        assert "are as they were signed" in verifier.check_events(events, verifier.open_checkpoint(note.note, [key]))
    assert json.loads(file.read_text().splitlines()[-1]) == {"end": True, "events": note.size}


def test_the_sealed_export_holds_archived_months(reader: Caller, servers: Servers, committed_db: str) -> None:
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        backdated(owner, "2026-01", 3)
    services.seal()
    services.archive_partition(partition="audit_auditevent_2026_01", actor=SYSTEM, reason="old")
    services.seal()

    *rows, end = lines(reader.get(f"{EXPORT}?sealed=true"))

    assert [row["index"] for row in rows] == list(range(end["events"]))
    assert sum(row["at"].startswith("2026-01") for row in rows) == 3


def test_a_filtered_export_has_what_fits_with_its_place(reader: Caller) -> None:
    events = [*sealed(3, reason="wanted"), record(reason="wanted")]
    sealed(2)

    *rows, end = lines(reader.get(f"{EXPORT}?q=wanted&sort=id"))

    assert [row["id"] for row in rows] == [str(event.pk) for event in events]
    assert [row["index"] is not None for row in rows] == [True, True, True, True]
    assert end == {"end": True, "events": 4}
    assert all(verifier.event_leaf(row).hex() == row["leaf"] for row in rows)


def test_an_unsealed_event_has_no_place(reader: Caller) -> None:
    record(reason="wanted")

    assert lines(reader.get(f"{EXPORT}?q=wanted"))[0]["index"] is None


def test_csv_has_fixed_columns_safe_cells_and_an_end(reader: Caller) -> None:
    grace = UserFactory(username="=grace")
    record(reason="=HYPERLINK(1)", actor=Actor(kind=ActorKind.USER, id=grace.pk, name=grace.username))

    header, row, end = csv.reader(io.StringIO(body(reader.get(f"{EXPORT}?format=csv&family=kernel"))))

    cells = dict(zip(header, row, strict=True))
    assert cells["reason"] == "'=HYPERLINK(1)"
    assert cells["actor_name"] == "'=grace"
    assert cells["sentence"] == "registered the kernel"
    assert end == ["END", "1"]


def test_an_erased_name_is_not_exported(reader: Caller) -> None:
    grace = UserFactory(username="grace")
    record(actor=Actor(kind=ActorKind.USER, id=grace.pk, name="grace"))
    services.erase_person(user_id=grace.pk, reason="left", actor=SYSTEM)

    assert "grace" not in body(reader.get(f"{EXPORT}?format=csv"))


def test_an_export_is_an_event_with_its_filters_but_without_the_text(reader: Caller) -> None:
    record()

    body(reader.get(f"{EXPORT}?format=csv&family=kernel&q=grace"))

    event = AuditEvent.objects.get(type="access.audit_exported")
    assert event.payload == {"format": "csv", "filters": {"family": ["kernel"]}, "has_text": True}
    assert event.actor_kind == "token"
    assert "grace" not in event.reason


def test_asking_for_the_head_exports_nothing(reader: Caller) -> None:
    response = reader.head(f"{EXPORT}?format=csv")

    assert response["Content-Type"].startswith("text/csv")
    assert not AuditEvent.objects.filter(type="access.audit_exported").exists()


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("format=xml", "/format"),
        ("sealed=yes", "/sealed"),
        ("sealed=true&format=csv", "/sealed"),
        ("sealed=true&family=kernel", "/sealed"),
        ("type=kernel", "/type"),
        ("page_size=10", "/page_size"),
        ("order=tree", "/order"),
    ],
)
def test_a_wrong_export_is_refused_and_is_no_event(admin: Caller, query: str, pointer: str) -> None:
    assert_problem(admin.get(f"{EXPORT}?{query}"), 400, "", pointer)
    assert not AuditEvent.objects.filter(type="access.audit_exported").exists()


def test_nothing_sealed_is_no_sealed_export(admin: Caller) -> None:
    assert_problem(admin.get(f"{EXPORT}?sealed=true"), 404)
