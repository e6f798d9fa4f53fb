"""Searching the trail: right, complete while it grows, and bounded, on 20,000 events over six months."""

import random
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connections
from django.http import QueryDict
from pytest_django import DjangoDbBlocker

from apps.audit import services, tasks
from apps.audit.canonical import leaf_digest
from apps.audit.filters import AuditEventFilter
from apps.audit.models import AuditEvent
from apps.audit.search import Found, Position, Search, search
from apps.audit.services import LEAF_COLUMNS
from apps.core.actors import Actor, ActorKind
from benchmarks import audit_rows
from tests.support import databases
from tests.support.audit import backdated, record
from tests.support.factories import UserFactory
from tests.support.stack import Servers

EVENTS, MONTHS, SEED = 20_000, 6, 3
HARD_BOUND = 500


@pytest.fixture(scope="module")
def loaded(servers: Servers, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """A database of this module's own with a trail that nobody changes."""
    shared = connections.settings["default"]["NAME"]
    with servers.clone() as name, django_db_blocker.unblock():
        with psycopg.connect(servers.url("owner", name), autocommit=True) as owner:
            audit_rows.load(owner, events=EVENTS, months=MONTHS, seed=SEED)
        databases._point_django_at(name)
        try:
            yield name
        finally:
            databases._point_django_at(shared)


@pytest.fixture(scope="module")
def events(loaded: str) -> list[AuditEvent]:
    """All of them, newest first."""
    return sorted(AuditEvent.objects.all(), key=lambda event: (event.at, event.pk), reverse=True)


def walk(wanted: Search, *, size: int = 50, newest_first: bool = True, pages: int = 330) -> list[Found]:
    found, after = [], None
    while not found or after is not None:
        found.append(search(wanted, size=size, after=after, newest_first=newest_first, pages=pages))
        after = found[-1].after
    return found


def ids(found: list[Found]) -> list[UUID]:
    return [event.pk for page in found for event in page.events]


def is_wanted(event: AuditEvent, filters: dict[str, Any]) -> bool:
    """The rule itself, in Python."""
    several = {"types": event.type, "subject_types": event.subject_type}
    if any(filters.get(name) and value not in filters[name] for name, value in several.items()):
        return False
    equal = ("subject_id", "actor_id", "actor_kind", "outcome", "request_id", "token_id")
    if any(filters.get(name) and getattr(event, name) != filters[name] for name in equal):
        return False
    if not filters.get("since", event.at) <= event.at < filters.get("until", event.at + timedelta(1)):
        return False
    values = " ".join(str(change["value"]) for change in event.diff)
    text = filters.get("text", "").lower()
    return text in event.reason.lower() or text in values.lower()


def random_filters(events: list[AuditEvent], chance: random.Random) -> dict[str, Any]:
    model = chance.choice(events)
    choices: dict[str, Any] = {
        "types": (model.type, "audit.verified"),
        "subject_types": (model.subject_type,),
        "subject_id": model.subject_id,
        "actor_id": model.actor_id,
        "actor_kind": model.actor_kind,
        "outcome": chance.choice(["failure", "success"]),
        "request_id": model.request_id,
        "token_id": model.token_id,
        "since": model.at - timedelta(days=chance.randrange(1, 90)),
        "until": model.at + timedelta(days=chance.randrange(1, 90)),
        "text": chance.choice(["PLATEAU", "heliotrope", model.reason[:14], "quokka_100%", "e"]),
    }
    chosen = chance.sample(sorted(choices), chance.choice([1, 1, 2, 3]))
    return {name: choices[name] for name in chosen if choices[name]}


# --- What is found


@pytest.mark.parametrize("seed", range(40))
def test_any_filters_find_exactly_what_fits_in_order_and_once(events: list[AuditEvent], seed: int) -> None:
    chance = random.Random(seed)
    filters = random_filters(events, chance)
    newest_first = chance.random() < 0.7
    wanted = [event.pk for event in events if is_wanted(event, filters)]

    size = max(chance.choice([7, 50, 200]), len(wanted) // 100)  # a hundred pages show what a thousand do

    found = ids(walk(Search(**filters), size=size, newest_first=newest_first))

    assert found == (wanted if newest_first else wanted[::-1]), filters


@pytest.mark.parametrize("pages", [30, 80])
def test_short_windows_find_the_same(events: list[AuditEvent], pages: int) -> None:
    for filters in ({"outcome": "failure"}, {"text": "heliotrope"}, {"types": ("run.rollback", "access.login")}):
        wanted = [event.pk for event in events if is_wanted(event, filters)]

        found = walk(Search(**filters), size=20, pages=pages)

        assert ids(found) == wanted
        assert len(found) > len(wanted) / 20


def test_a_short_page_says_how_far_it_looked(loaded: str) -> None:
    found = search(Search(request_id="none"), size=50, pages=60)

    assert found.events == []
    assert found.is_short
    assert found.after is not None
    assert search(Search(request_id="none"), size=50, after=found.after).events == []


@pytest.mark.parametrize("text", ["%", "_", "quokka_100%", "QUOKKA_100%"])
def test_wildcards_are_letters(loaded: str, events: list[AuditEvent], text: str) -> None:
    found = ids(walk(Search(text=text), size=200))

    assert found == [event.pk for event in events if text.lower() in f"{event.reason} {event.diff}".lower()]


def test_a_backslash_is_a_letter(loaded: str) -> None:
    assert ids(walk(Search(text="\\"), size=200)) == []


def test_the_loader_gives_right_leaves(events: list[AuditEvent]) -> None:
    for event in random.Random(1).sample(events, 200):
        assert leaf_digest({name: getattr(event, name) for name in LEAF_COLUMNS}) == bytes(event.leaf)


# --- How much is read


@pytest.mark.parametrize("case", audit_rows.search_cases(), ids=lambda case: case.name)
def test_no_page_reads_more_than_the_bound(loaded: str, case: audit_rows.SearchCase) -> None:
    assert 0 < audit_rows.buffers(case) <= HARD_BOUND


def test_rare_text_is_taken_from_the_index_of_closed_months(events: list[AuditEvent]) -> None:
    rare = SimpleNamespace(name="rare", filters={"text": "heliotrope"}, back=0.4, size=50, oldest_first=False)
    without_words = SimpleNamespace(name="", filters={"text": "q#"}, back=0.4, size=50, oldest_first=False)

    assert audit_rows.buffers(rare) < audit_rows.buffers(without_words) / 2  # type: ignore[arg-type]


# --- While the trail grows


def test_rows_committed_before_the_first_page_come_exactly_once_under_inserts(committed_db: str) -> None:
    before = {record(number).pk for number in range(25)}
    seen: list[UUID] = []
    after: Position | None = None

    while not seen or after is not None:
        found = search(Search(types=("kernel.registered",)), size=4, after=after)
        seen += [event.pk for event in found.events]
        after = found.after
        record(100)

    assert set(seen) >= before
    assert len(seen) == len(set(seen))


def test_closed_months_get_a_text_index_once_and_an_event_each(committed_db: str, servers: Servers) -> None:
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        backdated(owner, "2026-01", 3)
    tasks.index_text()
    tasks.index_text()

    made = AuditEvent.objects.filter(type="audit.text_indexed").values_list("subject_id", flat=True)
    assert list(made) == ["audit_auditevent_2026_01"]
    assert services.index_text() == []


# --- From a query string


def parsed(query: dict[str, Any], user: Any = None) -> Search:
    data = QueryDict(mutable=True)
    for name, value in query.items():
        data.setlist(name, value if isinstance(value, list) else [value])
    filters = AuditEventFilter(data, AuditEvent.objects.all(), request=SimpleNamespace(user=user))
    assert filters.is_valid(), filters.errors
    return filters.qs  # type: ignore[no-any-return]


def test_a_family_a_kind_of_subject_and_types_narrow_each_other() -> None:
    assert parsed({"family": "report"}).types[0] == "report.requested"
    assert parsed(
        {"family": ["run", "seed"], "subject_type": "run", "type": ["run.rollback", "seed.outcome"]}
    ).types == ("run.rollback",)
    assert parsed({"family": "kernel", "type": "run.created"}).is_impossible
    assert parsed({}).types == ()
    assert search(parsed({"family": "kernel", "type": "run.created"}), size=9) == Found([], None, False)


def test_an_actor_is_an_id_a_kind_or_oneself(db: None) -> None:
    user = UserFactory()
    nobody_yet = parsed({"actor": "me"}, user).actor_id
    person = services.record(
        type="access.login",
        subject=user,
        actor=Actor(kind=ActorKind.USER, id=user.pk, name=user.username),
    ).actor_id

    assert nobody_yet == UUID(int=0)
    assert parsed({"actor": "me"}, user).actor_id == person
    assert parsed({"actor": str(person)}).actor_id == person
    assert parsed({"actor": "worker"}).actor_kind == "worker"
