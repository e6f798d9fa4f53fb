"""The pages of the trail: sentences, filters with their faults, one event with its proof, and the state line."""

import pytest
from django.test import Client

from apps.accounts.models import User
from apps.audit import services as audit
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.training import services
from tests.support.audit import own_home, record, sealed
from tests.support.factories import UserFactory
from tests.support.run_rows import make_user

home = own_home
UNKNOWN = "01a20a70-2988-776d-9050-9998b8fb74a9"
pytestmark = pytest.mark.usefixtures("committed_db", "home")


@pytest.fixture
def ada(committed_db: str) -> User:
    return make_user(role="admin")


@pytest.fixture
def client(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


def text_of(client: Client, path: str, **headers: str) -> str:
    response = client.get(path, headers=headers)
    assert response.status_code == 200
    return response.content.decode()


# --- The list


def test_an_empty_trail_teaches(client: Client) -> None:
    page = text_of(client, "/audit?type=kernel.quarantined")

    assert "No event fits" in page
    assert "Show all events" in page


def test_each_row_leads_to_its_subject_and_to_its_proof(client: Client, ada: User) -> None:
    actor = Actor(kind=ActorKind.USER, id=ada.pk, name="ada")
    run = services.create_run(settings={"task": "digits"}, name="my-run", actor=actor)
    event = AuditEvent.objects.filter(subject_id=str(run.pk)).latest("id")

    page = text_of(client, f"/audit?subject_id={run.pk}")

    assert f'<a href="/runs/{run.pk}">my-run</a>' in page
    assert f'href="/audit/events/{event.pk}"' in page


def test_somebody_is_found_by_name(client: Client, ada: User) -> None:
    grace = UserFactory(username="grace")
    record(reason="by grace", actor=Actor(kind=ActorKind.USER, id=grace.pk, name="grace"))
    record(reason="by nobody")

    page = text_of(client, "/audit?actor=grace")

    assert "by grace" in page
    assert "by nobody" not in page
    assert 'value="grace"' in page


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        ("since=yesterday", "id_since", "valid date"),
        ("actor=nobody-of-that-name", "id_actor", "Nobody whom the trail knows"),
        ("type=nonsense", "id_type", "nonsense"),
        ("since=2026-02-01T00:00&until=2026-01-01T00:00", "id_until", "must be after since"),
        (f"q={'x' * 201}", "id_q", "200"),
        ("q=%00", "id_q", "Null characters"),
    ],
)
def test_a_wrong_filter_is_shown_at_its_field(client: Client, query: str, field: str, said: str) -> None:
    record()

    page = text_of(client, f"/audit?{query}")

    error = page.partition(f'<span class="error" id="{field}_error">')[2].partition("</span>")[0]
    assert said in error
    assert 'aria-invalid="true"' in page
    assert "kernel.registered</a>" not in page


def test_a_wrong_family_is_shown_too(client: Client) -> None:
    assert "family: " in text_of(client, "/audit?family=nonsense")


def test_a_short_page_offers_to_search_further_back(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    record(reason="needle")
    for number in range(60):
        record(number)
    monkeypatch.setattr("apps.audit.search.PAGES", 0)

    page = text_of(client, "/audit?q=needle")
    while "needle</p>" not in page and "Search further back" in page:
        assert "Nothing found so far" in page
        link = page.partition("after=")[2].partition('"')[0]
        page = text_of(client, f"/audit?q=needle&after={link}")

    assert ": needle" in page


def test_filters_go_along_with_chips_pages_and_exports(client: Client) -> None:
    for number in range(60):
        record(number, reason="needle")

    page = text_of(client, "/audit?q=needle&family=kernel")

    assert 'href="/api/v1/audit/export?format=csv&amp;q=needle&amp;family=kernel"' in page
    assert '<input type="hidden" name="family" value="kernel">' in page
    assert "family=kernel&amp;after=" in page


@pytest.mark.parametrize(
    "after", ["x", "~", "2026-01-01~x", "2026-01-01T00:00:00~01a20a70-2988-776d-9050-9998b8fb74a9"]
)
def test_a_place_that_is_none_begins_at_the_newest(client: Client, after: str) -> None:
    record()

    assert "kernel.registered</a>" in text_of(client, f"/audit?after={after}")


def test_the_state_of_the_trail_stands_on_top(client: Client) -> None:
    before = text_of(client, "/audit")
    sealed(2)
    audit.verify_trail(actor=SYSTEM)
    after = text_of(client, "/audit")

    assert "Nothing is sealed yet" in before
    assert "not verified yet" in before
    assert "events sealed, the last" in after
    assert "verified</span>" in after


# --- One event


def test_an_event_shows_old_and_new(client: Client) -> None:
    subject = ("kernel", UNKNOWN)
    record(subject=subject, after={"state": "DRAFT", "size": 3})
    record(subject=subject, before={"state": "DRAFT", "size": 3}, after={"state": "READY", "size": 3})
    event = AuditEvent.objects.latest("id")

    page = text_of(client, f"/audit/events/{event.pk}")

    row = page.partition('title nowrap id">state</td>')[2].partition("</tr>")[0]
    assert "DRAFT" in row
    assert "READY" in row
    assert "not sealed yet" in page


def test_a_sealed_event_is_proven_on_request(client: Client) -> None:
    (event,) = sealed(1)

    page = text_of(client, f"/audit/events/{event.pk}")
    verdict = text_of(client, f"/audit/events/{event.pk}/proof", HX_Request="true")

    assert "Verify now" in page
    assert "proven</span>" in verdict
    assert "<html" not in verdict
    assert "Its values give its leaf." in verdict


def test_without_scripts_the_verdict_comes_on_the_page(client: Client) -> None:
    (event,) = sealed(1)

    page = text_of(client, f"/audit/events/{event.pk}/proof")

    assert "<html" in page
    assert "proven</span>" in page


def test_an_unsealed_event_is_not_wrong_but_not_proven_yet(client: Client) -> None:
    event = record()

    verdict = text_of(client, f"/audit/events/{event.pk}/proof")

    assert "not proven yet" in verdict
    assert "WRONG" not in verdict


def test_the_events_of_one_request_are_one_click_away(client: Client) -> None:
    client.post("/runs/new", {"task": "digits", "host": "mlp", "seed": 0})
    event = AuditEvent.objects.exclude(request_id="").latest("id")

    page = text_of(client, f"/audit/events/{event.pk}")

    link = page.partition('<a class="small" href="/audit?request_id=')[2].partition('"')[0]
    assert event.type in text_of(client, f"/audit?request_id={link.replace('&amp;', '&')}")


@pytest.mark.parametrize("path", ["", "/proof"])
def test_an_event_that_is_not_there_is_not_found(client: Client, path: str) -> None:
    assert client.get(f"/audit/events/{UNKNOWN}{path}").status_code == 404


# --- The search box


def test_an_events_id_leads_to_it(client: Client) -> None:
    event = record()

    assert client.get(f"/search?q={event.pk}")["Location"] == f"/audit/events/{event.pk}"


def test_the_id_of_what_has_no_page_finds_its_events(client: Client) -> None:
    event = record(reason="needle")

    assert "Events about it" in text_of(client, f"/search?q={event.subject_id}")


def test_without_the_scope_the_search_box_finds_no_events(committed_db: str) -> None:
    event = record()
    viewer = Client()
    viewer.force_login(UserFactory(role="viewer"))

    page = text_of(viewer, f"/search?q={event.subject_id}")

    assert "Events about it" not in page
    assert viewer.get(f"/search?q={event.pk}").status_code == 200
