"""Buttons and forms of the admin: each goes through its service, with the acting user; a preview changes nothing."""

import json
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apps.accounts.models import ApiToken, User
from apps.accounts.roles import Role
from apps.audit.models import AuditEvent, AuditPerson
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.core.ids import new_id
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.morphogenesis.protocols import Command
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.support import factories, tables

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada(client: Client) -> User:
    """An administrator, logged in."""
    user = factories.UserFactory(username="ada", role=Role.ADMIN)
    client.force_login(user)
    return user


def url_of(row: Model, button: str = "change") -> str:
    opts = row._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_{button}", args=[str(getattr(row, "id", row.pk))])


def list_url(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def events_since_login() -> list[AuditEvent]:
    return list(AuditEvent.objects.exclude(type="access.login").order_by("id"))


def assert_left_by(user: User, *types: str, reason: str | None = None) -> None:
    """Exactly these events, all of this user, from one request."""
    events = events_since_login()
    pseudonym = AuditPerson.objects.get(user_id=user.pk).pk
    assert [event.type for event in events] == list(types)
    assert {(event.actor_kind, event.actor_id) for event in events} == {("user", pseudonym)}
    assert len({event.request_id for event in events}) == 1
    assert reason is None or events[0].reason == reason


def running() -> TrainingRun:
    return factories.RunFactory(state=RunState.RUNNING)


def paused() -> TrainingRun:
    run = factories.RunFactory(state=RunState.PAUSED)
    TrainingRun.objects.filter(pk=run.pk).update(command=Command.PAUSE)
    return run


def validated() -> Kernel:
    return factories.KernelFactory(state=KernelState.VALIDATED)


def retired() -> Kernel:
    return factories.KernelFactory(state=KernelState.RETIRED)


BUTTONS = {
    "pause": (running, ["run.command"], {"command": Command.PAUSE}),
    "resume": (paused, ["run.command"], {"command": Command.CONTINUE}),
    "stop": (running, ["run.command"], {"command": Command.STOP}),
    "deprecate": (validated, ["kernel.transition"], {"state": KernelState.DEPRECATED}),
    "quarantine": (validated, ["kernel.quarantined"], {"state": KernelState.QUARANTINED}),
    "retire": (validated, ["kernel.transition", "kernel.retired"], {"state": KernelState.RETIRED}),
    "restore": (retired, ["kernel.restored"], {"state": KernelState.VALIDATED}),
}
SCOPELESS = {"pause": Role.VIEWER, "resume": Role.VIEWER, "stop": Role.VIEWER} | {
    "deprecate": Role.OPERATOR,
    "quarantine": Role.OPERATOR,
    "retire": Role.OPERATOR,
    "restore": Role.OPERATOR,
}


@pytest.mark.parametrize("button", BUTTONS)
class TestButtons:
    def test_it_does_what_its_service_does_and_leaves_one_event(self, client: Client, ada: User, button: str) -> None:
        make, types, changed = BUTTONS[button]
        row = make()

        answer = client.post(url_of(row, button), {"reason": "because", "confirmed": "1"})

        assert answer.headers["Location"] == url_of(row)
        row.refresh_from_db()
        assert {name: getattr(row, name) for name in changed} == changed
        assert_left_by(ada, *types, reason="because")

    def test_its_page_shows_what_would_happen_and_changes_nothing(
        self, client: Client, ada: User, button: str, django_capture_on_commit_callbacks: Any
    ) -> None:
        make, types, _ = BUTTONS[button]
        row = make()
        before = tables.digests()

        with django_capture_on_commit_callbacks() as later:
            answer = client.get(url_of(row, button))

        (effect,) = answer.context["effects"]
        assert len(effect.events) == len(types)
        assert effect.refusal == ""
        assert later == []
        assert tables.digests() == before

    def test_it_wants_a_reason(self, client: Client, ada: User, button: str) -> None:
        row = BUTTONS[button][0]()

        answer = client.post(url_of(row, button), {"reason": "  ", "confirmed": "1"})

        assert answer.context["form"].errors["reason"] == ["This field is required."]
        assert events_since_login() == []

    def test_a_role_without_the_scope_is_refused_and_nothing_is_written(self, client: Client, button: str) -> None:
        client.force_login(factories.UserFactory(role=SCOPELESS[button], is_staff=True))
        row = BUTTONS[button][0]()
        before = tables.beside_the_trail()

        answer = client.post(url_of(row, button), {"reason": "because", "confirmed": "1"})

        assert answer.status_code == 403
        assert tables.beside_the_trail() == before
        assert [event.type for event in events_since_login()] == ["access.refused"]

    def test_a_selection_is_previewed_then_changed_row_by_row(self, client: Client, ada: User, button: str) -> None:
        make, types, _ = BUTTONS[button]
        rows = [make(), make()]
        selection = {"action": f"{button}_selected", "_selected_action": [str(row.pk) for row in rows]}

        page = client.post(list_url(type(rows[0])), selection)
        seen = events_since_login()
        client.post(list_url(type(rows[0])), {**selection, "confirmed": "1", "reason": "because"})

        assert [effect.row.pk for effect in page.context["effects"]] == [row.pk for row in reversed(rows)]
        assert seen == []
        assert_left_by(ada, *types, *types, reason="because")

    def test_a_row_that_is_not_there_leads_back_with_a_message(self, client: Client, ada: User, button: str) -> None:
        row = BUTTONS[button][0]()
        url = url_of(row, button).replace(str(row.pk), str(new_id()))

        answer = client.post(url, {"reason": "because", "confirmed": "1"})

        assert answer.status_code == 302
        assert "exist" in str(next(iter(get_messages(answer.wsgi_request))))


class TestRefusals:
    def test_a_step_that_cannot_be_taken_says_why_and_offers_nothing(self, client: Client, ada: User) -> None:
        run = factories.RunFactory(state=RunState.COMPLETED)

        answer = client.get(url_of(run, "stop"))

        assert answer.context["effects"][0].refusal == "the run is COMPLETED already"
        assert not answer.context["can_confirm"]

    def test_what_became_impossible_since_the_page_was_shown_is_refused(self, client: Client, ada: User) -> None:
        run = factories.RunFactory(state=RunState.COMPLETED)

        answer = client.post(url_of(run, "stop"), {"reason": "because", "confirmed": "1"})

        assert answer.status_code == 200
        assert answer.context["form"].non_field_errors() == ["the run is COMPLETED already"]
        assert events_since_login() == []

    def test_one_refusal_in_a_selection_stops_no_other(self, client: Client, ada: User) -> None:
        ended, alive = factories.RunFactory(state=RunState.COMPLETED), running()
        selection = {"action": "pause_selected", "_selected_action": [str(ended.pk), str(alive.pk)]}

        answer = client.post(list_url(TrainingRun), {**selection, "confirmed": "1", "reason": "because"})

        said = {str(message) for message in get_messages(answer.wsgi_request)}
        alive.refresh_from_db()
        assert said == {
            f"{ended}: the run is COMPLETED: only a running run can be paused",
            f"{alive}: asked to pause",
        }
        assert alive.command == Command.PAUSE

    def test_stopping_a_run_that_nobody_trains_ends_it_at_once(self, client: Client, ada: User) -> None:
        run = factories.RunFactory(state=RunState.QUEUED)

        client.post(url_of(run, "stop"), {"reason": "not needed", "confirmed": "1"})

        run.refresh_from_db()
        assert run.state == RunState.CANCELLED
        assert_left_by(ada, "run.command", "run.transition", reason="not needed")

    @pytest.mark.parametrize(
        ("state", "command", "offered"),
        [
            (RunState.QUEUED, Command.CONTINUE, ["stop"]),
            (RunState.RUNNING, Command.CONTINUE, ["pause", "stop"]),
            (RunState.RUNNING, Command.PAUSE, ["resume", "stop"]),
            (RunState.RUNNING, Command.STOP, []),
            (RunState.PAUSED, Command.PAUSE, ["resume", "stop"]),
            (RunState.COMPLETED, Command.CONTINUE, []),
        ],
    )
    def test_a_run_offers_only_what_can_be_done_to_it(
        self, client: Client, ada: User, state: str, command: str, offered: list[str]
    ) -> None:
        run = factories.RunFactory(state=state)
        TrainingRun.objects.filter(pk=run.pk).update(command=command)

        buttons = client.get(url_of(run)).context["buttons"]

        assert [button["path"].rstrip("/").rpartition("/")[2] for button in buttons] == offered


class TestBlueprints:
    def change(self, client: Client, blueprint: Blueprint, **values: Any) -> Any:
        data = {"title": blueprint.title, "card": json.dumps(blueprint.card), "tags": json.dumps(blueprint.tags)}
        return client.post(url_of(blueprint), {**data, "reason": "clearer", **values})

    def test_a_change_of_card_and_tags_is_the_services(self, client: Client, ada: User) -> None:
        blueprint = factories.BlueprintFactory()

        answer = self.change(client, blueprint, card='{"summary": "two layers"}', tags='{"layer": "linear"}')

        blueprint.refresh_from_db()
        assert answer.status_code == 302
        assert (blueprint.card, blueprint.tags) == ({"summary": "two layers"}, {"layer": "linear"})
        assert_left_by(ada, "blueprint.modified", reason="clearer")

    def test_the_name_cannot_be_changed(self, client: Client, ada: User) -> None:
        blueprint = factories.BlueprintFactory(name="before")

        self.change(client, blueprint, name="after", next_number="99")

        blueprint.refresh_from_db()
        assert (blueprint.name, blueprint.next_number) == ("before", 1)

    @pytest.mark.parametrize(
        ("card", "error"),
        [
            ('{"nested": {"a": 1}}', "/card/nested: must be text, a number"),
            ("[1, 2]", "must be an object"),
            ("{not json", "Enter a valid JSON."),
        ],
    )
    def test_what_the_service_refuses_stands_at_its_field(
        self, client: Client, ada: User, card: str, error: str
    ) -> None:
        blueprint = factories.BlueprintFactory()

        answer = self.change(client, blueprint, card=card)

        assert answer.context["adminform"].form.errors["card"][0].startswith(error)
        assert events_since_login() == []

    def test_a_new_blueprint_is_the_services(self, client: Client, ada: User) -> None:
        client.post(
            reverse("admin:blueprints_blueprint_add"), {"name": "mine", "title": "", "card": "{}", "tags": "{}"}
        )

        assert Blueprint.objects.get().name == "mine"
        assert_left_by(ada, "blueprint.created")

    def test_a_name_that_is_taken_is_refused_at_its_field(self, client: Client, ada: User) -> None:
        factories.BlueprintFactory(name="mine")

        answer = client.post(
            reverse("admin:blueprints_blueprint_add"), {"name": "mine", "title": "", "card": "{}", "tags": "{}"}
        )

        assert answer.status_code == 200
        assert answer.context["adminform"].form.errors
        assert Blueprint.objects.count() == 1

    def test_a_spec_becomes_the_next_version(self, client: Client, ada: User) -> None:
        blueprint = factories.BlueprintFactory()

        client.post(url_of(blueprint, "submit_version"), {"spec": json.dumps(factories.residual_spec())})

        assert BlueprintVersion.objects.get().state == VersionState.SUBMITTED
        assert_left_by(ada, "blueprint.version_submitted", "blueprint.version_transition")

    def test_a_wrong_spec_is_refused_with_its_place(self, client: Client, ada: User) -> None:
        blueprint = factories.BlueprintFactory()
        spec = factories.residual_spec()
        spec["nodes"][1]["op"] = "explode"

        answer = client.post(url_of(blueprint, "submit_version"), {"spec": json.dumps(spec)})

        assert answer.context["form"].errors["spec"][0].startswith("/spec/nodes/1/op: ")
        assert not BlueprintVersion.objects.exists()

    def test_the_page_starts_from_the_newest_spec(self, client: Client, ada: User) -> None:
        version = factories.BlueprintVersionFactory()

        answer = client.get(url_of(version.blueprint, "submit_version"))

        assert json.loads(answer.context["form"]["spec"].value()) == version.spec


class TestAccounts:
    def test_a_new_user_gets_a_password_that_is_shown_once(self, client: Client, ada: User) -> None:
        answer = client.post(
            reverse("admin:accounts_user_add"), {"username": "grace", "email": "", "role": Role.CURATOR}
        )

        grace = User.objects.get(username="grace")
        assert grace.check_password(answer.context["secret"])
        assert "no-store" in answer.headers["Cache-Control"]
        assert answer.context["secret"] not in str(answer.cookies)
        assert_left_by(ada, "access.user_created")

    def test_a_role_is_changed_by_the_service(self, client: Client, ada: User) -> None:
        user = factories.UserFactory(role=Role.VIEWER)

        client.post(url_of(user, "set_role"), {"role": Role.OPERATOR, "reason": "on call", "confirmed": "1"})

        user.refresh_from_db()
        assert (user.role, user.is_staff) == (Role.OPERATOR, True)
        assert_left_by(ada, "access.role_changed", reason="on call")

    def test_the_last_administrator_cannot_step_down(self, client: Client, ada: User) -> None:
        answer = client.post(url_of(ada, "set_role"), {"role": Role.VIEWER, "reason": "tired", "confirmed": "1"})

        assert answer.context["form"].errors["role"] == ["this is the last administrator; make another one first"]

    def test_a_token_is_shown_once_and_works(self, client: Client, ada: User) -> None:
        user = factories.UserFactory(role=Role.OPERATOR)

        answer = client.post(
            reverse("admin:accounts_apitoken_add"),
            {"user": str(user.pk), "name": "ci", "scopes": ["runs:read"], "days": "7"},
        )

        token, secret = ApiToken.objects.get(), answer.context["secret"]
        assert (token.user, token.scopes) == (user, ["runs:read"])
        assert secret.startswith("esper_")
        assert "no-store" in answer.headers["Cache-Control"]
        assert secret not in client.get(url_of(token)).content.decode()
        assert_left_by(ada, "access.token_issued")

    def test_a_scope_beyond_the_role_is_refused_at_its_field(self, client: Client, ada: User) -> None:
        user = factories.UserFactory(role=Role.VIEWER)

        answer = client.post(
            reverse("admin:accounts_apitoken_add"),
            {"user": str(user.pk), "name": "ci", "scopes": ["runs:write"], "days": "7"},
        )

        assert answer.context["adminform"].form.errors["scopes"] == ["role viewer does not have: runs:write"]
        assert not ApiToken.objects.exists()

    def test_a_revoked_token_is_gone(self, client: Client, ada: User) -> None:
        token = factories.TokenFactory()

        answer = client.post(url_of(token, "revoke"), {"reason": "leaked", "confirmed": "1"})

        assert answer.headers["Location"] == list_url(ApiToken)
        assert not ApiToken.objects.exists()
        assert_left_by(ada, "access.token_revoked", reason="leaked")

    def test_a_password_cannot_be_changed_without_an_event(self, client: Client, ada: User) -> None:
        answer = client.post(reverse("admin:password_change"), {"old_password": factories.PASSWORD})

        assert answer.status_code == 403
        assert "manage.py set_password NAME" in answer.content.decode()


class TestAnswers:
    @pytest.mark.parametrize(
        "text",
        [
            r'{"a": "\u0000"}',
            r'{"\ud800": 1}',
            "[" * 3000 + "]" * 3000,
            '{"a": ' + "9" * 400 + "}",
            '{"a": ' + "9" * 5000 + "}",
            '{"a": NaN}',
        ],
    )
    def test_json_that_cannot_be_stored_is_refused_at_its_field_as_it_was_typed(
        self, client: Client, ada: User, text: str
    ) -> None:
        answer = client.post(url_of(validated(), "tag"), {"tags": text, "reason": "try", "confirmed": "1"})

        assert answer.context["form"].errors["tags"][0].startswith("Holds a NUL, half of a surrogate pair")
        assert answer.context["form"]["tags"].value() == text

    def test_another_row_of_the_same_name_is_another_answer(self, client: Client, ada: User) -> None:
        version = factories.BlueprintVersionFactory()
        kernel, first, second = (
            factories.KernelFactory(
                name="twin", state=KernelState.VALIDATED, blueprint_version=version, bindings={"n": n}, data=bytes([n])
            )
            for n in range(3)
        )
        url = url_of(kernel, "name_successor")
        seen = client.post(url, {"successor": str(first.pk), "reason": "better", "preview": "1"}).context["answers"]

        client.post(url, {"successor": str(second.pk), "reason": "better", "confirmed": "1", "answers": seen})

        assert seen
        assert Kernel.objects.get(pk=kernel.pk).successor is None
