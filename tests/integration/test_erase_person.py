"""Erasing a person: nothing of them is left, everything of the trail is; and nobody writes it back."""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import LazySettings
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.db import connection, connections, transaction
from django.test import Client
from django.urls import reverse

from apps.accounts import services as accounts
from apps.accounts.models import ApiToken, User
from apps.accounts.roles import Role
from apps.audit import pseudonyms, services
from apps.audit.canonical import leaf_digest
from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue
from apps.audit.services import LEAF_COLUMNS
from apps.audit.verification import verify
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.core.errors import Conflict, Forbidden, Invalid
from tests.support.audit import record
from tests.support.factories import UserFactory
from tests.support.leftovers import tables_with
from tests.support.stack import Servers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db")

NAME, MAIL, ADDRESS = "lovelace-ada", "countess@example.org", "192.0.2.231"
PASSWORD = "correct horse battery"
WORDS = (NAME, MAIL, ADDRESS, "Augusta")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: LazySettings) -> Path:
    """A data folder of the test's own."""
    settings.ESPER_HOME = tmp_path
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path / "o")}}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    return tmp_path


@pytest.fixture
def database(servers: Servers, committed_db: str) -> "Iterator[psycopg.Connection[Any]]":
    """A connection of somebody who may read everything."""
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as found:
        yield found


@pytest.fixture
def ada() -> User:
    """Somebody who has logged in, been refused, holds a token, and started a run by the API."""
    user, _ = accounts.create_user(username=NAME, role=Role.OPERATOR, password=PASSWORD, email=MAIL, actor=SYSTEM)
    User.objects.filter(pk=user.pk).update(first_name="Augusta")
    client = Client(REMOTE_ADDR=ADDRESS)
    client.post("/login", {"username": NAME, "password": "wrong"})
    client.post("/login", {"username": NAME, "password": PASSWORD})
    _, secret = accounts.issue_token(user=user, name="ci", scopes=["runs:write", "runs:read"], actor=actor_of(user))
    client.post(
        "/api/v1/runs",
        {"settings": {"task": "digits", "epochs": 1, "growth": {"enabled": False}}},
        content_type="application/json",
        headers={"Authorization": f"Bearer {secret}", "Idempotency-Key": "mine"},
    )
    accounts.set_role(user=user, role=Role.CURATOR, reason="joins the library", actor=actor_of(user))
    return user


def actor_of(user: User, address: str = ADDRESS) -> Actor:
    return Actor(kind=ActorKind.USER, id=user.pk, name=user.username, address=address)


def erase(user: User) -> User:
    return accounts.erase_person(user=user, actor=SYSTEM, reason="asked for it")


class TestNothingIsLeft:
    def test_no_table_of_the_database_holds_a_name_or_an_address(
        self, ada: User, database: "psycopg.Connection[Any]"
    ) -> None:
        before = tables_with(database, *WORDS)
        erase(ada)

        assert {"accounts_user", "audit_auditpersonalvalue"} <= before
        assert tables_with(database, *WORDS) == set()

    def test_the_search_finds_a_word_in_text_json_and_bytes(self, database: "psycopg.Connection[Any]") -> None:
        record(reason=f"said {NAME}")
        AuditPersonalValue.objects.create(person=AuditPerson.objects.create(), kind="name", value=MAIL, digest="d")
        AuditPerson.objects.create(salt=ADDRESS.encode())

        assert {*tables_with(database, NAME)} == {f"audit_auditevent_{AuditEvent.objects.all()[0].at:%Y_%m}"}
        assert tables_with(database, MAIL) == {"audit_auditpersonalvalue"}
        assert tables_with(database, ADDRESS) == {"audit_auditperson"}

    def test_the_account_is_closed_and_empty(self, ada: User) -> None:
        pseudonym = pseudonyms.pseudonym_of(ada.pk).id

        husk = erase(ada)

        husk.refresh_from_db()
        assert husk.username == f"erased-{pseudonym.hex[-12:]}"
        assert (husk.email, husk.first_name, husk.last_name) == ("", "", "")
        assert (husk.is_active, husk.is_staff, husk.has_usable_password()) == (False, False, False)
        assert authenticate(username=husk.username, password=PASSWORD) is None

    def test_tokens_and_sessions_end_at_once_each_token_with_its_event(self, ada: User) -> None:
        browser = Client()
        browser.force_login(ada)
        token = ApiToken.objects.get(user=ada)
        other = Client()
        other.force_login(UserFactory(role=Role.VIEWER))

        erase(ada)

        assert browser.get("/runs")["Location"].startswith("/login")
        assert other.get("/runs").status_code == 200
        assert not ApiToken.objects.filter(user_id=ada.pk).exists()
        assert AuditEvent.objects.get(type="access.token_revoked").subject_id == str(token.id)

    def test_the_pages_show_nobody_where_they_showed_a_name(self, ada: User) -> None:
        reader = Client()
        reader.force_login(UserFactory(role=Role.ADMIN))
        before = NAME in reader.get("/audit").content.decode()

        erase(ada)

        assert before
        assert NAME not in reader.get("/audit").content.decode()
        assert NAME not in reader.get(reverse("admin:audit_auditevent_changelist")).content.decode()


class TestEverythingStays:
    def test_every_leaf_still_fits_and_the_trail_verifies(self, ada: User) -> None:
        services.seal()
        before = {event.pk: event for event in AuditEvent.objects.all()}

        erase(ada)
        services.seal()

        for event in AuditEvent.objects.all():
            assert leaf_digest({name: getattr(event, name) for name in LEAF_COLUMNS}) == bytes(event.leaf)
        for key, event in before.items():
            assert bytes(AuditEvent.objects.get(pk=key).leaf) == bytes(event.leaf)
        assert verify().findings == []

    def test_a_signed_report_is_still_the_same(self, ada: User) -> None:
        report = services.write_report(
            report=services.request_report(kind="access", parameters={}, actor=actor_of(ada))
        )

        erase(ada)

        assert report.state == "READY", report.failure
        assert services.reproduce_report(report=report, actor=SYSTEM).is_same

    def test_the_events_of_the_erasure_name_nobody(self, ada: User) -> None:
        pseudonym = pseudonyms.pseudonym_of(ada.pk).id

        erase(ada)

        erased = AuditEvent.objects.get(type="access.person_erased")
        closed = AuditEvent.objects.get(type="access.account_closed")
        assert (erased.subject_type, erased.subject_id) == ("person", str(pseudonym))
        assert erased.payload["values"] >= 2
        assert closed.subject_id == str(ada.pk)
        assert {"op": "replace", "path": "/is_active", "value": False} in closed.diff


class TestRefusals:
    def test_nobody_erases_themselves(self, ada: User) -> None:
        with pytest.raises(Forbidden, match="themselves"):
            accounts.erase_person(user=ada, actor=actor_of(ada), reason="bye")

    def test_the_last_administrator_stays(self) -> None:
        root = UserFactory(role=Role.ADMIN)

        with pytest.raises(Invalid, match="last administrator"):
            erase(root)

    def test_a_person_is_erased_once(self, ada: User) -> None:
        with pytest.raises(Conflict, match="before"):
            erase(erase(ada))

    def test_somebody_who_never_did_anything_can_be_erased(self, database: "psycopg.Connection[Any]") -> None:
        erase(UserFactory(username=NAME))

        assert tables_with(database, NAME) == set()

    def test_two_people_whose_pseudonyms_were_made_in_one_moment_can_both_be_erased(self) -> None:
        names = {erase(UserFactory()).username for _ in range(20)}

        assert len(names) == 20


class TestOtherProcesses:
    """What another process remembers is put back after the erasure here has made this one forget."""

    def erased_elsewhere(self, user: User) -> None:
        people, digests = dict(pseudonyms._people), dict(pseudonyms._digests)
        erase(user)
        pseudonyms._people.update(people)
        pseudonyms._digests.update(digests)

    @pytest.fixture(autouse=True)
    def forget(self) -> Iterator[None]:
        yield
        pseudonyms.forget()

    def test_what_is_remembered_stores_no_value_again(self, ada: User, database: "psycopg.Connection[Any]") -> None:
        record(actor=actor_of(ada))
        self.erased_elsewhere(ada)

        event = record(actor=actor_of(ada))

        assert event.actor_digest != ""  # under the forgotten salt: nobody can tell what of
        assert tables_with(database, *WORDS) == set()

    def test_a_remembered_salt_stores_no_new_address(self, ada: User, database: "psycopg.Connection[Any]") -> None:
        record(actor=actor_of(ada))
        self.erased_elsewhere(ada)

        event = record(actor=actor_of(ada, address="198.51.100.7"))

        assert event.address_digest == ""
        assert tables_with(database, "198.51.100.7", *WORDS) == set()

    def test_a_request_that_still_holds_the_name_makes_no_new_pseudonym(
        self, ada: User, database: "psycopg.Connection[Any]"
    ) -> None:
        actor = actor_of(ada)
        pseudonym = pseudonyms.pseudonym_of(ada.pk).id
        erase(ada)

        event = record(actor=actor)

        assert (event.actor_id, event.actor_digest, event.address_digest) == (pseudonym, "", "")
        assert tables_with(database, *WORDS) == set()

    def test_an_erasure_waits_for_who_is_just_storing_a_value_and_takes_it_too(
        self, ada: User, database: "psycopg.Connection[Any]"
    ) -> None:
        with closing(Background(lambda: erase(ada))) as erasure:
            with transaction.atomic():
                services.record(
                    type="kernel.registered", subject=("kernel", "k"), actor=actor_of(ada, address="198.51.100.7")
                )
                erasure.start()
                wait_until(lambda: is_blocked(database), seconds=10)
            erasure.finish()

        assert AuditPersonalValue.objects.filter(person__user_id=ada.pk, kind="address").count() >= 2
        assert tables_with(database, "198.51.100.7", *WORDS) == set()

    def test_who_wants_to_store_a_value_waits_for_an_erasure_and_stores_nothing(
        self, ada: User, database: "psycopg.Connection[Any]"
    ) -> None:
        record(actor=actor_of(ada))
        people, digests = dict(pseudonyms._people), dict(pseudonyms._digests)

        def record_elsewhere() -> None:
            pseudonyms._people.update(people)
            pseudonyms._digests.update(digests)
            record(actor=actor_of(ada, address="198.51.100.7"))

        with closing(Background(record_elsewhere)) as recording:
            with transaction.atomic():
                erase(ada)
                recording.start()
                wait_until(lambda: is_blocked(database), seconds=10)
            recording.finish()

        assert tables_with(database, "198.51.100.7", *WORDS) == set()


class Background:
    """A call in a thread with a database connection of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self._error = call, None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:
            self._error = error
        finally:
            connections.close_all()

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(30)


def is_blocked(database: "psycopg.Connection[Any]") -> bool:
    """Whether a session of this database waits for another one's lock."""
    query = (
        "SELECT 1 FROM pg_locks AS waits JOIN pg_stat_activity AS session USING (pid) "
        "WHERE NOT waits.granted AND session.datname = current_database()"
    )
    return database.execute(query).fetchone() is not None


# --- At the terminal and in the admin


def run(*arguments: str, typed: str = "", monkeypatch: pytest.MonkeyPatch | None = None) -> str:
    output = io.StringIO()
    if monkeypatch is not None:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    call_command("erase_person", *arguments, stdout=output)
    return output.getvalue()


class TestCommand:
    def test_it_shows_what_goes_and_what_stays_and_erases_when_the_name_is_typed(
        self, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = run(NAME, "--reason", "asked for it", typed=f"{NAME}\n", monkeypatch=monkeypatch)

        assert "Goes, and cannot be brought back:" in said
        assert "1 tokens, 1 sessions" in said
        assert "Stays:" in said
        assert "erased: the account is erased-" in said
        assert not User.objects.filter(username=NAME).exists()

    @pytest.mark.parametrize("typed", ["", "\n", "yes\n"])
    def test_anything_else_leaves_all_as_it_is(self, ada: User, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CommandError, match="nothing was erased"):
            run(NAME, "--reason", "asked for it", typed=typed, monkeypatch=monkeypatch)

        assert User.objects.get(username=NAME).is_active

    def test_programs_get_one_object_and_are_not_asked(self, ada: User) -> None:
        answer = json.loads(run(NAME, "--reason", "asked for it", "--yes", "--json"))

        assert answer["username"].startswith("erased-")
        assert (answer["id"], answer["tokens"], answer["sessions"]) == (str(ada.pk), 1, 1)
        assert answer["values"] >= 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nobody", "--reason", "r", "--yes"], "there is no user"),
            ([NAME, "--reason", " ", "--yes"], "reason: must have"),
            ([NAME, "--reason", f"{NAME} left", "--yes"], "reason: names the person"),
            ([NAME, "--reason", "r", "--json"], "--yes"),
        ],
    )
    def test_wrong_use_is_a_sentence_and_erases_nothing(self, ada: User, arguments: list[str], message: str) -> None:
        with pytest.raises(CommandError, match=message):
            run(*arguments)

        assert User.objects.get(username=NAME).is_active


def test_the_admin_previews_and_erases(ada: User, client: Client) -> None:
    client.force_login(UserFactory(role=Role.ADMIN))
    url = reverse("admin:accounts_user_erase", args=[ada.pk])

    page = client.get(url).content.decode()
    assert "erased the person" in page
    assert User.objects.get(pk=ada.pk).username == NAME
    client.post(url, {"reason": "asked for it"})

    assert User.objects.get(pk=ada.pk).username.startswith("erased-")
    assert connection.in_atomic_block is False
