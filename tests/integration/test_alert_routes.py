"""Routes as services write them: where messages may go, what they are signed with, and what the trail tells of it."""

from typing import Any

import pytest
from django.conf import LazySettings

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.core.ids import new_id
from apps.observability.delivery import mail
from apps.observability.models import AlertRoute, Notification
from apps.observability.services import notifying, routes
from tests.support.factories import AlertRouteFactory, NotificationFactory
from tests.support.receivers import LOOPBACK

pytestmark = pytest.mark.django_db

URL = "https://93.184.215.14/hook"
"""A public address: nothing is looked up, and nothing is sent."""


def made(**values: Any) -> tuple[AlertRoute, str]:
    return routes.create_route(**{"name": "ops", "channel": "webhook", "target": URL, "actor": SYSTEM, **values})


def events(route: AlertRoute) -> list[str]:
    return list(AuditEvent.objects.filter(subject_id=str(route.pk)).order_by("id").values_list("type", flat=True))


class TestTheSecret:
    def test_is_made_where_none_is_given(self) -> None:
        (_, one), (_, other) = made(), made(name="others")

        assert one != other
        assert len(one) > 40

    def test_can_be_given_and_rotated(self) -> None:
        route, secret = made(secret="chosen-by-the-client")

        rotated, another = routes.rotate_secret(route=route, actor=SYSTEM, reason="it leaked")

        assert secret == "chosen-by-the-client"
        assert rotated.secret == another != secret
        assert events(route) == ["alert_route.created", "alert_route.secret_rotated"]

    @pytest.mark.parametrize("weak", ["short", "with blanks in it yes", "ümlauts-and-more-of-them", "x" * 201])
    def test_is_long_and_visible(self, weak: str) -> None:
        with pytest.raises(Invalid, match="16 to 200 visible") as refusal:
            made(secret=weak)
        assert refusal.value.errors[0].pointer == "/secret"

    def test_stands_nowhere_in_the_trail_and_nor_does_the_target(self) -> None:
        route, secret = made(target=f"{URL}?token=password-of-another")
        routes.rotate_secret(route=route, actor=SYSTEM)
        routes.change_route(route=route, target=f"{URL}?token=password-of-a-third", actor=SYSTEM)

        told = str(list(AuditEvent.objects.values("diff", "payload", "reason")))
        assert secret not in told
        assert "password-of" not in told
        assert "sha256:" in told

    def test_is_none_of_e_mail(self) -> None:
        route, secret = made(channel="email", target="ada@example.org")

        assert secret == ""
        with pytest.raises(Conflict, match="not signed"):
            routes.rotate_secret(route=route, actor=SYSTEM)
        with pytest.raises(Invalid, match="for webhooks"):
            made(name="other", channel="email", target="ada@example.org", secret="chosen-by-the-client")


class TestTheTarget:
    @pytest.mark.parametrize(
        ("target", "code"),
        [
            ("http://127.1/", "refused_address"),
            ("http://[::ffff:10.0.0.1]/", "refused_address"),
            ("http://169.254.169.254/latest", "refused_address"),
            ("http://localhost:8000/", "refused_address"),
            ("ftp://example.org/", "invalid_url"),
            ("https://user:secret@example.org/", "invalid_url"),
            ("", "invalid"),
            ("https://example.org/\x00", "invalid_url"),
        ],
    )
    def test_of_a_webhook_is_public(self, target: str, code: str) -> None:
        with pytest.raises(Invalid) as refusal:
            made(target=target)

        assert (refusal.value.errors[0].pointer, refusal.value.errors[0].code) == ("/target", code)
        assert not AlertRoute.objects.exists()

    def test_may_lie_inside_where_the_configuration_says_so(self, settings: LazySettings) -> None:
        settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK

        assert made(target="http://127.0.0.1:9/hook")[0].pk

    def test_may_have_no_address_yet(self) -> None:
        assert made(target=f"https://{'a' * 70}.example.org/")[0].pk

    def test_is_checked_anew_when_it_changes(self) -> None:
        route, _ = made()

        with pytest.raises(Invalid, match="this machine"):
            routes.change_route(route=route, target="http://127.0.0.1/", actor=SYSTEM)
        route.refresh_from_db()
        assert route.target == URL

    def test_of_e_mail_is_one_address_a_line(self) -> None:
        route, _ = made(channel="email", target=" ada@example.org \n\n grace@example.org")

        assert mail.recipients(route.target) == ["ada@example.org", "grace@example.org"]

    @pytest.mark.parametrize(
        "target",
        ["nobody", "ada@example.org,grace@example.org", "ada@example.org\nADA@example.org", "\n", "a@b.org\n" * 21,
         "Ada <ada@example.org>", "ada@example.org\rBcc: eve"],
    )  # fmt: skip
    def test_of_e_mail_is_nothing_else(self, target: str) -> None:
        with pytest.raises(Invalid) as refusal:
            made(channel="email", target=target)
        assert refusal.value.errors[0].pointer == "/target"

    def test_of_e_mail_needs_a_mail_server(self, settings: LazySettings) -> None:
        settings.EMAIL_BACKEND, settings.EMAIL_HOST = mail.SMTP, ""

        with pytest.raises(Invalid, match="ESPER_EMAIL_URL") as refusal:
            made(channel="email", target="ada@example.org")
        assert refusal.value.errors[0].pointer == "/channel"


@pytest.mark.parametrize(
    ("column", "value", "pointer"),
    [
        ("name", "", "/name"),
        ("name", "two\nlines", "/name"),
        ("name", "x" * 81, "/name"),
        ("channel", "pigeon", "/channel"),
        ("matchers", [{"label": "a"}], "/matchers/0"),
        ("matchers", [{"label": "a", "op": "=~", "value": "("}], "/matchers/0/value"),
        ("group_by", ["a b"], "/group_by/0"),
        ("group_by", ["a", "a"], "/group_by"),
        ("group_by", "alertname", "/group_by"),
        ("group_wait_seconds", -1, "/group_wait_seconds"),
        ("group_interval_seconds", 0, "/group_interval_seconds"),
        ("repeat_interval_seconds", 10**9, "/repeat_interval_seconds"),
        ("repeat_interval_seconds", float("nan"), "/repeat_interval_seconds"),
    ],
)
def test_a_wrong_column_is_named(column: str, value: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as refusal:
        made(**{column: value})

    assert refusal.value.errors[0].pointer == pointer
    assert not AlertRoute.objects.exists()


def test_names_are_unique() -> None:
    made()
    other, _ = made(name="other")

    with pytest.raises(Conflict, match="has this name"):
        made()
    with pytest.raises(Conflict, match="has this name"):
        routes.change_route(route=other, name="ops", actor=SYSTEM)


def test_a_change_without_a_difference_is_no_event() -> None:
    route, _ = made(group_by=["alertname"])

    routes.change_route(route=route, group_by=["alertname"], enabled=True, actor=SYSTEM)
    routes.change_route(route=route, enabled=False, actor=SYSTEM)

    assert events(route) == ["alert_route.created", "alert_route.changed"]


def test_one_that_is_removed_leaves_its_log() -> None:
    route: Any = AlertRouteFactory()
    row: Any = NotificationFactory(route_id=route.pk, open_alerts=[new_id()])

    routes.remove_route(route=route, actor=SYSTEM)

    row.refresh_from_db()
    assert row.open_alerts == []
    assert not AlertRoute.objects.exists()


def test_a_test_goes_over_the_route_and_is_an_event() -> None:
    route: Any = AlertRouteFactory(name="operators", enabled=False)

    row = notifying.send_test(route=route, actor=SYSTEM)

    assert row.payload["commonLabels"] == {"alertname": "Test", "severity": "info"}
    assert events(route) == ["alert_route.tested"]
    for _ in range(4):
        notifying.send_test(route=route, actor=SYSTEM)
    with pytest.raises(Conflict, match="under way"):
        notifying.send_test(route=route, actor=SYSTEM)
    assert Notification.objects.count() == 5
