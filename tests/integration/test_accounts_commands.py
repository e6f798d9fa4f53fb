"""What operators type: `bootstrap`, `create_user`, `set_password`, `issue_token`."""

import io
import json
import threading
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command
from django.db import connections

from apps.accounts import services
from apps.accounts.models import ApiToken, User
from apps.accounts.roles import ROLE_SCOPES, Role
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


def run_json(*arguments: str) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json").splitlines()[-1])


@pytest.mark.django_db
class TestBootstrap:
    def test_it_makes_an_administrator_whose_printed_password_works(self) -> None:
        answer = run_json("bootstrap")

        user = authenticate(username=answer["username"], password=answer["password"])
        assert user is not None
        assert (user.username, user.role) == ("admin", Role.ADMIN)
        assert user.scopes == ROLE_SCOPES[Role.ADMIN]

    def test_people_read_the_password_once(self) -> None:
        first, second = run("bootstrap"), run("bootstrap")

        assert "administrator: admin\npassword: " in first
        assert second == ""
        assert User.objects.count() == 1

    def test_programs_are_told_that_there_is_one(self) -> None:
        run("bootstrap")

        assert run_json("bootstrap") == {"created": False}

    def test_any_active_administrator_is_enough(self) -> None:
        services.create_user(username="root", role=Role.ADMIN, actor=SYSTEM)

        assert run("bootstrap") == ""

    def test_a_name_that_somebody_has_is_a_helpful_error(self) -> None:
        services.create_user(username="admin", role=Role.VIEWER, actor=SYSTEM)

        with pytest.raises(CommandError, match="username: A user with that username already exists"):
            run("bootstrap")


def test_two_bootstraps_at_once_make_one_administrator(committed_db: str) -> None:
    outputs: list[str] = []
    start = threading.Barrier(2)

    def bootstrap() -> None:
        start.wait(timeout=10)
        try:
            outputs.append(run("bootstrap"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=bootstrap) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert sorted(bool(output) for output in outputs) == [False, True]
    assert User.objects.count() == 1


@pytest.mark.django_db
class TestCreateUser:
    def test_it_prints_a_generated_password_that_works(self) -> None:
        answer = run_json("create_user", "ada", "--role", "curator")

        user = User.objects.get(pk=answer["id"])
        assert (user.role, answer["role"]) == (Role.CURATOR, "curator")
        assert user.check_password(answer["password"])

    def test_a_password_from_standard_input_is_not_printed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))

        answer = run_json("create_user", "ada", "--password-stdin")

        assert "password" not in answer
        assert User.objects.get(username="ada").check_password("correct horse battery")

    def test_an_empty_standard_input_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(""))

        with pytest.raises(CommandError, match="standard input holds no password"):
            run("create_user", "ada", "--password-stdin")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["two words"], "username: Enter a valid username"),
            (["ada", "--role", "king"], "role: Value 'king' is not a valid choice"),
            (["ada", "--email", "nowhere"], "email: Enter a valid email address"),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments: list[str], message: str) -> None:
        with pytest.raises(CommandError, match=message):
            run("create_user", *arguments)

        assert not User.objects.exists()

    def test_the_trail_says_that_the_platform_did_it(self) -> None:
        run("create_user", "ada")

        event = AuditEvent.objects.get(type="access.user_created")
        assert (event.actor_kind, event.actor_id) == ("system", None)


@pytest.mark.django_db
class TestIssueToken:
    @pytest.fixture(autouse=True)
    def _ada(self) -> None:
        services.create_user(username="ada", role=Role.OPERATOR, actor=SYSTEM)

    def test_the_default_is_all_that_the_role_may_do(self) -> None:
        answer = run_json("issue_token", "ada", "--name", "ci")

        assert answer["token"].startswith("esper_")
        assert set(answer["scopes"]) == ROLE_SCOPES[Role.OPERATOR]

    def test_scopes_can_be_narrowed(self) -> None:
        answer = run_json("issue_token", "ada", "--name", "ci", "--scope", "runs:read")

        assert ApiToken.objects.get(id=answer["id"]).scopes == ["runs:read"]

    def test_people_read_secret_scopes_and_expiry(self) -> None:
        output = run("issue_token", "ada", "--name", "ci", "--scope", "runs:read", "--days", "1")

        assert [line.partition(":")[0] for line in output.splitlines()][:3] == ["token", "scopes", "expires"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["bob", "--name", "ci"], "there is no user 'bob'; users: ada"),
            (["ada", "--name", "ci", "--scope", "all"], "scopes: unknown scopes all"),
            (["ada", "--name", "ci", "--scope", "accounts:manage"], "scopes: role operator does not have"),
            (["ada", "--name", "ci", "--days", "0"], "days: must be from 1 to 3650"),
            (["ada", "--name", "x" * 101], "name: Ensure this value has at most 100 characters"),
        ],
    )
    def test_a_wrong_argument_is_named(self, arguments: list[str], message: str) -> None:
        with pytest.raises(CommandError, match=message):
            run("issue_token", *arguments)

        assert not ApiToken.objects.exists()


@pytest.mark.django_db
class TestSetPassword:
    @pytest.fixture(autouse=True)
    def _ada(self) -> None:
        services.create_user(username="ada", actor=SYSTEM)

    def test_the_printed_password_works_and_is_an_event(self) -> None:
        answer = run_json("set_password", "ada", "--reason", "forgot it")

        assert authenticate(username="ada", password=answer["password"]) is not None
        event = AuditEvent.objects.get(type="access.password_changed")
        assert (event.subject_id, event.reason) == (answer["id"], "forgot it")
        assert [change["path"] for change in event.diff] == ["/password"]

    def test_a_given_password_is_not_repeated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))

        assert run("set_password", "ada", "--password-stdin") == "changed the password of ada\n"
        assert authenticate(username="ada", password="correct horse battery") is not None

    def test_a_weak_password_is_refused_by_field(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("ada\n"))

        with pytest.raises(CommandError, match="password: "):
            run("set_password", "ada", "--password-stdin")

    def test_an_unknown_name_is_a_helpful_error(self) -> None:
        with pytest.raises(CommandError, match="there is no user 'grace'; users: ada"):
            run("set_password", "grace")
