"""Logins, logouts and refusals leave events, whichever page or endpoint they come through."""

import pytest
from django.conf import LazySettings
from django.contrib.auth import authenticate, get_user, login, logout
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest

from apps.accounts import services
from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue
from apps.core.actors import SYSTEM

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def ada() -> User:
    user, _ = services.create_user(username="ada", role=Role.OPERATOR, password=PASSWORD, actor=SYSTEM)
    return user


def make_request(address: str = "192.0.2.7") -> HttpRequest:
    request = HttpRequest()
    request.META["REMOTE_ADDR"] = address
    request.session, request.user = SessionStore(), AnonymousUser()
    return request


def only_event(kind: str) -> AuditEvent:
    return AuditEvent.objects.get(type=kind)


def pseudonym_of(user: User) -> AuditPerson:
    return AuditPerson.objects.get(user_id=user.pk)


def test_a_login_names_the_user_by_pseudonym(ada: User) -> None:
    login(make_request(), ada)

    event = only_event("access.login")
    assert (event.subject_type, event.subject_id) == ("user", str(ada.pk))
    assert (event.actor_id, event.actor_kind, event.outcome) == (pseudonym_of(ada).pk, "user", "success")


def test_the_address_of_a_login_stands_only_in_the_side_table(ada: User) -> None:
    login(make_request("192.0.2.7"), ada)

    value = AuditPersonalValue.objects.get(kind="address")
    assert value.value == "192.0.2.7"
    assert only_event("access.login").address_digest == value.digest


def test_a_logout_is_an_event_of_the_user(ada: User) -> None:
    request = make_request()
    login(request, ada)

    logout(request)

    assert only_event("access.logout").actor_id == pseudonym_of(ada).pk


def test_ending_a_session_that_nobody_has_is_no_event() -> None:
    logout(make_request())

    assert not AuditEvent.objects.filter(type="access.logout").exists()


def test_a_wrong_password_is_recorded_against_the_account(ada: User) -> None:
    assert authenticate(make_request("198.51.100.9"), username="ada", password="wrong") is None

    event = only_event("access.login_refused")
    assert (event.subject_id, event.outcome, event.reason) == (str(ada.pk), "refused", "wrong password")
    assert AuditPersonalValue.objects.filter(kind="address", value="198.51.100.9", digest=event.address_digest).exists()


def test_an_inactive_account_says_so(ada: User) -> None:
    User.objects.filter(pk=ada.pk).update(is_active=False)

    authenticate(make_request(), username="ada", password=PASSWORD)

    assert only_event("access.login_refused").reason == "the account is inactive"


def test_a_name_that_nobody_has_is_not_kept() -> None:
    """People type passwords into the wrong field."""
    authenticate(make_request(), username="hunter2", password="wrong")

    event = only_event("access.login_refused")
    assert (event.subject_id, event.actor_id) == ("unknown", None)
    assert "hunter2" not in str(AuditEvent.objects.values())
    assert not AuditPersonalValue.objects.exists()


def test_no_event_holds_the_password(ada: User) -> None:
    authenticate(make_request(), username="ada", password="sesame-open")

    assert "sesame-open" not in str(list(AuditEvent.objects.values()))


def test_an_outdated_hash_is_renewed_at_login_by_an_event_and_the_session_lasts(
    ada: User, settings: LazySettings
) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.PBKDF2PasswordHasher", *settings.PASSWORD_HASHERS]
    request = make_request()

    user = authenticate(request, username="ada", password=PASSWORD)
    assert user is not None
    login(request, user)

    ada.refresh_from_db()
    assert ada.password.startswith("pbkdf2_sha256$")
    assert get_user(request) == ada
    (event,) = AuditEvent.objects.filter(type="access.password_changed")
    assert [change["path"] for change in event.diff] == ["/password"]
