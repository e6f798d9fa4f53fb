"""Users, roles and tokens: every change is an audit event in the same transaction."""

import secrets
from collections.abc import Collection
from datetime import timedelta

from django.contrib.auth.password_validation import validate_password
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q

from apps.accounts import selectors
from apps.accounts.models import ApiToken, User, Workspace, default_workspace_id
from apps.accounts.roles import Role, Scope
from apps.audit import services as audit
from apps.audit.selectors import events_of
from apps.audit.watched import image
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.core.errors import Forbidden, Invalid
from apps.core.models import IdempotencyKey

HUSK_DIGITS = 12
"""Of the pseudonym's end: its beginning is a time, which two people may share."""


@transaction.atomic
def create_user(
    *, username: str, actor: Actor, role: str = Role.VIEWER, password: str | None = None, email: str = ""
) -> tuple[User, str]:
    """A new user and its password (generated when none is given; shown once, stored hashed).

    Raises:
        ValidationError: the name is taken or malformed, the role unknown, the given password weak.
    """
    user = User(username=username, email=email, role=role, is_staff=role != Role.VIEWER)
    if password is None:
        password = secrets.token_urlsafe(16)
    else:
        _require_strong(password, user)
    user.set_password(password)
    user.full_clean()
    user.save()
    audit.record(type="access.user_created", subject=user, actor=actor, after=image(user))
    return user, password


@transaction.atomic
def set_password(*, user: User, actor: Actor, password: str | None = None, reason: str = "") -> tuple[User, str]:
    """Another password (generated when none is given; shown once, stored hashed). Sessions of the old one end.

    Raises:
        ValidationError: the given password is weak.
    """
    user = User.objects.select_for_update().get(pk=user.pk)
    if password is None:
        password = secrets.token_urlsafe(16)
    else:
        _require_strong(password, user)
    return _store_password(user, password, actor, reason), password


@transaction.atomic
def renew_password_hash(*, user: User, password: str) -> User:
    """Hash the same password again, as the settings say now: whoever logs in with an outdated hash gets a new one."""
    user = User.objects.select_for_update().get(pk=user.pk)
    return _store_password(user, password, SYSTEM, "the hash was made by outdated settings")


def _store_password(user: User, password: str, actor: Actor, reason: str) -> User:
    before = image(user)
    user.set_password(password)
    user.save(update_fields=["password"])
    audit.record(
        type="access.password_changed", subject=user, actor=actor, reason=reason, before=before, after=image(user)
    )
    return user


def _require_strong(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise ValidationError({"password": error.messages}) from None


@transaction.atomic
def create_first_admin(*, actor: Actor, username: str = "admin") -> tuple[User, str] | None:
    """The first administrator and its generated password; None where an active administrator exists.

    Raises:
        ValidationError: the name belongs to somebody who is not an administrator.
    """
    workspace = Workspace.objects.select_for_update().get(pk=default_workspace_id())  # one bootstrap at a time
    _record_workspace(workspace, actor)
    if User.objects.filter(Q(role=Role.ADMIN) | Q(is_superuser=True), is_active=True).exists():
        return None
    return create_user(username=username, role=Role.ADMIN, actor=actor)


def _record_workspace(workspace: Workspace, actor: Actor) -> None:
    """Tell the trail of the default workspace, once: the first migration made its row, before there was a trail."""
    if not events_of(subject_type="workspace", subject_id=str(workspace.pk)).exists():
        audit.record(type="workspace.created", subject=workspace, actor=actor, after=image(workspace))


@transaction.atomic
def set_role(*, user: User, role: str, reason: str, actor: Actor) -> User:
    """Give ``user`` another role. Nobody takes the last active admin away."""
    user = User.objects.select_for_update().get(pk=user.pk)
    before = image(user)
    if role not in set(Role):
        raise Invalid(f"{role!r} is not a role; roles: {', '.join(Role)}", pointer="/role")
    if user.role == Role.ADMIN and role != Role.ADMIN and _is_last_admin(user):
        raise Invalid("this is the last administrator; make another one first", pointer="/role", code="last_admin")
    user.role = role
    user.is_staff = role != Role.VIEWER
    user.is_superuser = user.is_superuser and role == Role.ADMIN
    user.full_clean()
    user.save()
    audit.record(type="access.role_changed", subject=user, actor=actor, reason=reason, before=before, after=image(user))
    return user


def _is_last_admin(user: User) -> bool:
    admins = User.objects.select_for_update().filter(role=Role.ADMIN, is_active=True)
    return not any(admin.pk != user.pk for admin in admins)


@transaction.atomic
def erase_person(*, user: User, actor: Actor, reason: str) -> User:
    """Close an account for good and forget whose it was. What they made stays, under the account's new, empty name.

    Raises:
        Forbidden: an administrator erases themselves. Invalid: it is the last administrator.
        Conflict: the person was erased before.
    """
    user = User.objects.select_for_update().get(pk=user.pk)
    if actor.id == user.pk:
        raise Forbidden("nobody erases themselves: ask another administrator", code="oneself")
    if user.role == Role.ADMIN and user.is_active and _is_last_admin(user):
        raise Invalid("this is the last administrator; make another one first", code="last_admin")
    for token in user.auth_token_set.all():
        revoke_token(token=token, actor=actor, reason=reason)
    Session.objects.filter(pk__in=selectors.sessions_of(user)).delete()
    IdempotencyKey.objects.filter(user_id=user.pk).delete()  # stored answers may show the name
    before = audit.told(image(user))  # in digests, while there is a salt
    person = audit.erase_person(user_id=user.pk, actor=actor, reason=reason)
    _empty(user, name=f"erased-{person.pk.hex[-HUSK_DIGITS:]}")
    audit.record(
        type="access.account_closed", subject=user, actor=actor, reason=reason, before=before, after=image(user)
    )
    return user


def _empty(user: User, *, name: str) -> None:
    """Leave the row, which runs and assets point to, with nothing of the person in it."""
    user.username, user.email, user.first_name, user.last_name = name, "", "", ""
    user.is_active = user.is_staff = user.is_superuser = False
    user.set_unusable_password()
    user.full_clean()
    user.save()


@transaction.atomic
def issue_token(
    *, user: User, name: str, scopes: Collection[str], actor: Actor, lifetime: timedelta | None = timedelta(days=30)
) -> tuple[ApiToken, str]:
    """A new token and its secret, which is shown this once: only its digest is stored.

    Raises:
        Invalid: an unknown scope. Forbidden: a scope that the user's role does not have. ValidationError: the name
            is missing or too long, or there is no scope.
    """
    unknown = sorted(set(scopes) - set(Scope))
    if unknown:
        raise Invalid(f"unknown scopes {', '.join(unknown)}; scopes: {', '.join(Scope)}", pointer="/scopes")
    beyond = sorted(set(scopes) - user.scopes)
    if beyond:
        raise Forbidden(f"role {user.role} does not have: {', '.join(beyond)}", pointer="/scopes")
    if lifetime is not None and lifetime <= timedelta(0):
        raise Invalid("must be in the future", pointer="/expiry")
    values = {"name": name, "scopes": sorted(set(scopes))}
    ApiToken(user=user, **values).clean_fields(exclude=["digest", "token_key"])
    token, secret = ApiToken.objects.create(user, expiry=lifetime, **values)
    audit.record(type="access.token_issued", subject=token, actor=actor, after=image(token))
    return token, secret


@transaction.atomic
def revoke_token(*, token: ApiToken, actor: Actor, reason: str = "") -> None:
    audit.record(type="access.token_revoked", subject=token, actor=actor, reason=reason, before=image(token))
    token.delete()


@transaction.atomic
def record_login(*, user: User, actor: Actor) -> None:
    """A session has begun."""
    audit.record(type="access.login", subject=user, actor=actor)


@transaction.atomic
def record_logout(*, user: User, actor: Actor) -> None:
    """A session was ended by its user."""
    audit.record(type="access.logout", subject=user, actor=actor)


@transaction.atomic
def record_refused_access(*, user: User, method: str, route: str, reason: str, actor: Actor) -> None:
    """Somebody known asked for what their role or token does not allow."""
    audit.record(
        type="access.refused",
        subject=user,
        actor=actor,
        outcome="refused",
        reason=reason,
        payload={"method": method, "route": route},
    )


@transaction.atomic
def record_refused_login(*, username: str, address: str) -> None:
    """Somebody gave a wrong name or password. The event's actor is who they claimed to be.

    A name that nobody has is not kept: people type passwords into the wrong field.
    """
    user = User.objects.filter(username=username).first()
    if user is None:
        nobody = Actor(kind=ActorKind.USER)
        audit.record(
            type="access.login_refused",
            subject=("user", "unknown"),
            actor=nobody,
            outcome="refused",
            reason="nobody has this name",
        )
        return
    audit.record(
        type="access.login_refused",
        subject=user,
        actor=Actor(kind=ActorKind.USER, id=user.pk, name=user.username, address=address),
        outcome="refused",
        reason="wrong password" if user.is_active else "the account is inactive",
    )
