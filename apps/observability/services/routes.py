"""Routes: whom to tell of which alerts, in what groups and how often."""

import re
import secrets
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid, field_errors
from apps.observability.delivery import addresses, mail, webhooks
from apps.observability.matchers import LABEL, parse, told
from apps.observability.models import DAY, AlertRoute, Channel, Notification

SETTABLE = frozenset(
    {
        "name", "target", "matchers", "group_by", "group_wait_seconds", "group_interval_seconds",
        "repeat_interval_seconds", "send_resolved", "enabled",
    }
)  # fmt: skip
BOUNDS = {
    "group_wait_seconds": (0, 3600),
    "group_interval_seconds": (10, DAY),
    "repeat_interval_seconds": (60, 30 * DAY),
}
"""Column -> its least and greatest value."""
SECRET = re.compile(r"[\x21-\x7e]{16,200}")
MOST_RECIPIENTS = 20
MOST_LABELS = 10
LOOKUP_SECONDS = 2.0
TAKEN = "another route has this name"


def create_route(
    *,
    channel: str,
    actor: Actor,
    secret: str = "",
    workspace: Workspace | None = None,
    reason: str = "",
    **columns: Any,
) -> tuple[AlertRoute, str]:
    """The route, and what its webhooks are signed with: shown this once. E-mail has no secret.

    Raises:
        Invalid: a column is wrong, the target is not one that messages may go to, or no mail server is configured.
        Conflict: another route has this name.
    """
    workspace_id = workspace.pk if workspace else default_workspace_id()
    route = AlertRoute(workspace_id=workspace_id, channel=channel, **_known(columns))
    route.secret = _secret(secret, route)
    _check(route)
    _check_target(route)  # asks name servers: before the transaction
    return _created(route, actor, reason), route.secret


@transaction.atomic
def _created(route: AlertRoute, actor: Actor, reason: str) -> AlertRoute:
    _check_name(route)
    _save(route, force_insert=True)
    audit.record(type="alert_route.created", subject=route, actor=actor, reason=reason, after=image(route))
    return route


def change_route(
    *, route: AlertRoute, actor: Actor, reason: str = "", looked_up: bool = False, **changes: Any
) -> AlertRoute:
    """Change a route; messages that are under way go where it leads then.

    A new target is looked up first (``look_up``), before anything is locked; who holds a lock has done so already, and
    says ``looked_up``.

    Raises:
        Invalid: a column is wrong, or the target is not one that messages may go to. Conflict: the name is taken.
    """
    _known(changes)
    if not looked_up:
        look_up(route=route, changes=changes)
    return _changed(route, actor, reason, changes)


def look_up(*, route: AlertRoute, changes: Mapping[str, Any]) -> None:
    """Ask name servers whether messages may go where the changes lead, which takes up to two seconds.

    Raises:
        Invalid: the target is not one that messages may go to.
    """
    if changes.get("target", route.target) == route.target:
        return
    asked = AlertRoute(workspace_id=route.workspace_id, name=route.name, channel=route.channel)
    asked.target = changes["target"]
    _check(asked)
    _check_target(asked)


@transaction.atomic
def _changed(route: AlertRoute, actor: Actor, reason: str, changes: dict[str, Any]) -> AlertRoute:
    fresh = AlertRoute.objects.select_for_update(of=("self",)).get(pk=route.pk)
    before = image(fresh)
    for name, value in changes.items():
        setattr(fresh, name, value)
    _check(fresh)
    _check_name(fresh)
    if image(fresh) == before:
        return fresh
    _save(fresh)
    audit.record(
        type="alert_route.changed", subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh)
    )
    return fresh


@transaction.atomic
def rotate_secret(*, route: AlertRoute, actor: Actor, secret: str = "", reason: str = "") -> tuple[AlertRoute, str]:
    """Sign with another secret from now on; it is shown this once. What is tried again is signed with it, too.

    Raises:
        Invalid: it is too short. Conflict: the route has none, it sends e-mail.
    """
    fresh = AlertRoute.objects.select_for_update(of=("self",)).get(pk=route.pk)
    if fresh.channel != Channel.WEBHOOK:
        raise Conflict("this route sends e-mail, which is not signed", code="no_secret")
    before = image(fresh)
    fresh.secret = _secret(secret, fresh)
    fresh.save()
    audit.record(
        type="alert_route.secret_rotated", subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh)
    )
    return fresh, fresh.secret


@transaction.atomic
def remove_route(*, route: AlertRoute, actor: Actor, reason: str = "") -> None:
    """Remove a route. Its messages stay as the log of what was sent; those that are under way are given up."""
    fresh = AlertRoute.objects.select_for_update(of=("self",)).get(pk=route.pk)
    audit.record(type="alert_route.removed", subject=fresh, actor=actor, reason=reason, before=image(fresh), after=None)
    Notification.objects.filter(route_id=fresh.pk).exclude(open_alerts=[]).update(open_alerts=[])
    fresh.delete()


def _known(columns: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(columns) - SETTABLE:
        raise TypeError(f"an alert route has no {min(unknown)} that can be set")
    return columns


def _secret(given: str, route: AlertRoute) -> str:
    if route.channel != Channel.WEBHOOK:
        if given:
            raise Invalid("is for webhooks: e-mail is not signed", pointer="/secret", code="invalid")
        return ""
    if given and not SECRET.fullmatch(given):
        raise Invalid("must be 16 to 200 visible ASCII characters", pointer="/secret", code="invalid")
    return given or f"whsec_{secrets.token_urlsafe(32)}"


def _check(route: AlertRoute) -> None:
    """Puts a route's texts in order. Raises Invalid, naming the field."""
    route.matchers = told(parse(route.matchers))
    _check_labels(route)
    try:
        route.clean_fields()
    except ValidationError as error:
        errors = field_errors(error)
        raise Invalid(errors[0].detail, errors=errors) from None
    for name, (least, most) in BOUNDS.items():
        if not least <= getattr(route, name) <= most:
            raise Invalid(f"is between {least} and {most}", pointer=f"/{name}", code="out_of_range")
    if not route.name.strip() or not route.name.isprintable():
        raise Invalid("must be one line that says something", pointer="/name", code="invalid")
    CHECKS[Channel(route.channel)](route)


def _check_labels(route: AlertRoute) -> None:
    names = route.group_by
    if not isinstance(names, list) or len(names) > MOST_LABELS or len({*map(str, names)}) < len(names):
        raise Invalid(f"must be at most {MOST_LABELS} different labels", pointer="/group_by", code="invalid")
    for place, name in enumerate(names):
        if not isinstance(name, str) or not LABEL.fullmatch(name):
            raise Invalid(
                "must be a label name: letters, digits, underscores", pointer=f"/group_by/{place}", code="invalid"
            )


def _check_url(route: AlertRoute) -> None:
    route.target = route.target.strip()
    try:
        addresses.parse(route.target)
    except addresses.Refused as error:
        raise Invalid(str(error), pointer="/target", code="invalid_url") from None


def _check_recipients(route: AlertRoute) -> None:
    found = mail.recipients(route.target)
    route.target = "\n".join(found)
    if not 1 <= len(found) <= MOST_RECIPIENTS or len({one.lower() for one in found}) < len(found):
        raise Invalid(
            f"must be 1 to {MOST_RECIPIENTS} different e-mail addresses, one a line", pointer="/target", code="invalid"
        )
    for address in found:
        try:
            validate_email(address)
        except ValidationError:
            raise Invalid(f"{address} is not an e-mail address", pointer="/target", code="invalid_email") from None


CHECKS = {Channel.WEBHOOK: _check_url, Channel.EMAIL: _check_recipients}


def _check_target(route: AlertRoute) -> None:
    """Whether messages can go there from here. A name that has no address now may have one later."""
    if route.channel == Channel.EMAIL:
        if not mail.is_configured():
            raise Invalid(
                "no mail server is configured: set ESPER_EMAIL_URL (docs/configuration.md), or choose a webhook",
                pointer="/channel",
                code="no_mail_server",
            )
        return
    try:
        addresses.check(route.target, allowed=webhooks.allowed_networks(), seconds=LOOKUP_SECONDS)
    except addresses.Refused as error:
        raise Invalid(str(error), pointer="/target", code="refused_address") from None
    except addresses.Unreachable:
        return


def _check_name(route: AlertRoute) -> None:
    others = AlertRoute.objects.filter(workspace=route.workspace, name=route.name).exclude(pk=route.pk)
    if others.exists():
        raise Conflict(TAKEN, pointer="/name", code="duplicate")


def _save(route: AlertRoute, **how: bool) -> None:
    try:
        with transaction.atomic():
            route.save(**how)
    except IntegrityError:  # another one of this name came since it was looked for
        raise Conflict(TAKEN, pointer="/name", code="duplicate") from None
