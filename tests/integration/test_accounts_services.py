"""Users, roles and tokens through their services: what they write, what they refuse."""

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from apps.accounts import services
from apps.accounts.models import ApiToken, User
from apps.accounts.roles import ROLE_SCOPES, Role, Scope
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Forbidden, Invalid

pytestmark = pytest.mark.django_db


def make_user(username: str = "ada", role: str = Role.OPERATOR) -> User:
    return services.create_user(username=username, role=role, actor=SYSTEM)[0]


def test_a_user_gets_a_generated_password_that_works() -> None:
    user, password = services.create_user(username="ada", actor=SYSTEM)

    assert len(password) >= 16
    assert User.objects.get(pk=user.pk).check_password(password)


@pytest.mark.parametrize(
    ("role", "is_staff"), [("viewer", False), ("operator", True), ("curator", True), ("admin", True)]
)
def test_only_roles_that_may_change_something_enter_the_admin(role: str, is_staff: bool) -> None:
    assert make_user(role=role).is_staff is is_staff


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"username": ""}, "username"),
        ({"username": "no spaces"}, "username"),
        ({"username": "ada", "role": "king"}, "role"),
        ({"username": "ada", "password": "12345678"}, "password"),
        ({"username": "ada", "password": ""}, "password"),
        ({"username": "ada", "email": "not an address"}, "email"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_written(values: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        services.create_user(**values, actor=SYSTEM)

    assert field in refusal.value.message_dict
    assert not User.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_name_is_given_once() -> None:
    make_user("ada")

    with pytest.raises(ValidationError, match="already exists"):
        make_user("ada")


def test_a_new_role_brings_its_scopes_and_its_way_into_the_admin() -> None:
    user = make_user(role=Role.VIEWER)

    user = services.set_role(user=user, role=Role.CURATOR, reason="promoted", actor=SYSTEM)

    assert user.scopes == ROLE_SCOPES[Role.CURATOR]
    assert user.is_staff


def test_an_unknown_role_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="viewer, operator, curator, admin"):
        services.set_role(user=make_user(), role="king", reason="", actor=SYSTEM)


def test_the_last_administrator_stays_one() -> None:
    only = make_user("root", Role.ADMIN)

    with pytest.raises(Invalid, match="last administrator"):
        services.set_role(user=only, role=Role.VIEWER, reason="", actor=SYSTEM)

    make_user("second", Role.ADMIN)
    assert services.set_role(user=only, role=Role.VIEWER, reason="", actor=SYSTEM).role == Role.VIEWER


def test_an_inactive_administrator_does_not_count_as_another_one() -> None:
    only = make_user("root", Role.ADMIN)
    User.objects.filter(pk=make_user("gone", Role.ADMIN).pk).update(is_active=False)

    with pytest.raises(Invalid, match="last administrator"):
        services.set_role(user=only, role=Role.OPERATOR, reason="", actor=SYSTEM)


def test_a_demoted_superuser_is_none_any_more() -> None:
    make_user("root", Role.ADMIN)
    user = make_user("second", Role.ADMIN)
    User.objects.filter(pk=user.pk).update(is_superuser=True)

    demoted = services.set_role(user=user, role=Role.VIEWER, reason="", actor=SYSTEM)

    assert not demoted.is_superuser
    assert demoted.scopes == ROLE_SCOPES[Role.VIEWER]


def test_a_token_stores_only_a_digest_of_its_secret() -> None:
    token, secret = services.issue_token(user=make_user(), name="ci", scopes=[Scope.RUNS_READ], actor=SYSTEM)

    row = ApiToken.objects.filter(pk=token.pk).values().get()
    assert secret.startswith("esper_")
    assert secret not in str(row)


def test_a_token_never_exceeds_the_role_even_after_the_role_shrank() -> None:
    user = make_user(role=Role.OPERATOR)
    token, _ = services.issue_token(user=user, name="ci", scopes=[Scope.RUNS_READ, Scope.RUNS_WRITE], actor=SYSTEM)

    services.set_role(user=user, role=Role.VIEWER, reason="left the team", actor=SYSTEM)

    assert ApiToken.objects.get(pk=token.pk).effective_scopes == {Scope.RUNS_READ}


def test_a_scope_beyond_the_role_is_refused() -> None:
    with pytest.raises(Forbidden, match="library:write"):
        services.issue_token(user=make_user(), name="ci", scopes=[Scope.LIBRARY_WRITE], actor=SYSTEM)


def test_an_unknown_scope_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match=r"unknown scopes runs:all; scopes: runs:read, "):
        services.issue_token(user=make_user(), name="ci", scopes=["runs:all"], actor=SYSTEM)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1)])
def test_a_token_that_has_expired_already_is_refused(lifetime: timedelta) -> None:
    with pytest.raises(Invalid, match="future"):
        services.issue_token(user=make_user(), name="ci", scopes=[Scope.RUNS_READ], lifetime=lifetime, actor=SYSTEM)


@pytest.mark.parametrize(("name", "scopes"), [("", [Scope.RUNS_READ]), ("ci", [])])
def test_a_token_without_a_name_or_a_scope_leaves_nothing_behind(name: str, scopes: list[str]) -> None:
    user = make_user()

    with pytest.raises(ValidationError):
        services.issue_token(user=user, name=name, scopes=scopes, actor=SYSTEM)

    assert not ApiToken.objects.exists()


def test_a_revoked_token_is_gone_and_its_event_remains() -> None:
    token, _ = services.issue_token(user=make_user(), name="ci", scopes=[Scope.RUNS_READ], actor=SYSTEM)

    services.revoke_token(token=token, actor=SYSTEM, reason="leaked")

    event = AuditEvent.objects.get(type="access.token_revoked")
    assert not ApiToken.objects.exists()
    assert (event.subject_id, event.reason) == (str(token.id), "leaked")


def test_the_default_lifetime_is_thirty_days() -> None:
    token, _ = services.issue_token(user=make_user(), name="ci", scopes=[Scope.RUNS_READ], actor=SYSTEM)

    assert abs(token.expiry - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
    assert not token.is_expired
