"""The admin of routes and of what was sent over them."""

from typing import Any

import pytest
from django.test import Client

from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from apps.observability.models import AlertRoute, DeliveryAttempt, Notification
from tests.support import factories
from tests.support.curating import YES, messages_of, url_of

pytestmark = pytest.mark.django_db

ROUTES = "/admin/observability/alertroute/"
ANSWERS = {
    "name": "operators", "channel": "webhook", "target": "https://93.184.215.14/hook", "matchers": "",
    "group_by": "alertname,host", "group_wait_seconds": 30, "group_interval_seconds": 300,
    "repeat_interval_seconds": 3600, "send_resolved": "on", "enabled": "on", "reason": "a new team",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _operator(client: Client) -> None:
    client.force_login(factories.UserFactory(username="olga", role=Role.OPERATOR))  # type: ignore[arg-type]


def offered(client: Client, row: Any) -> set[str]:
    return {button["path"].split("/")[-2] for button in client.get(url_of(row)).context["buttons"]}


class TestRoutes:
    def test_one_is_made_and_its_secret_is_shown_this_once(self, client: Client) -> None:
        answer = client.post(f"{ROUTES}add/", ANSWERS)

        route = AlertRoute.objects.get()
        page = answer.content.decode()
        assert route.secret in page
        assert "Messages are signed with it" in page
        assert "no-store" in answer["Cache-Control"]
        assert (route.group_by, route.matchers) == (["alertname", "host"], [])
        assert route.secret not in client.get(url_of(route)).content.decode()
        assert AuditEvent.objects.get(type="alert_route.created").reason == "a new team"

    def test_one_of_e_mail_has_no_secret_to_show(self, client: Client) -> None:
        answer = client.post(f"{ROUTES}add/", {**ANSWERS, "channel": "email", "target": "ada@example.org"})

        assert answer.status_code == 302
        assert AlertRoute.objects.get().secret == ""

    @pytest.mark.parametrize(
        ("field", "value", "says"),
        [
            ("target", "http://169.254.169.254/", "link-local"),
            ("matchers", '[{"label": "a", "op": "like", "value": "b"}]', "must be one of"),
            ("matchers", "{", "JSON"),
            ("group_by", "not a label", "label name"),
            ("group_interval_seconds", 1, "is between 10"),
            ("secret", "short", "16 to 200"),
        ],
    )
    def test_what_is_refused_stands_at_its_field(self, client: Client, field: str, value: Any, says: str) -> None:
        form = client.post(f"{ROUTES}add/", {**ANSWERS, field: value}).context["adminform"].form

        assert says in form.errors[field][0]
        assert not AlertRoute.objects.exists()

    def test_one_is_changed_and_keeps_its_secret_and_its_channel(self, client: Client) -> None:
        route: Any = factories.AlertRouteFactory()

        client.post(url_of(route), {**ANSWERS, "channel": "email", "name": "renamed"})

        route.refresh_from_db()
        assert (route.name, route.channel, route.secret) == ("renamed", "webhook", "a-secret-of-the-tests")

    def test_another_secret_is_shown_this_once(self, client: Client) -> None:
        route: Any = factories.AlertRouteFactory()

        page = client.post(url_of(route, "rotate_secret"), YES)

        route.refresh_from_db()
        assert route.secret in page.content.decode()
        assert route.secret != "a-secret-of-the-tests"

    def test_a_test_is_sent(self, client: Client) -> None:
        route: Any = factories.AlertRouteFactory()

        answer = client.post(url_of(route, "test"), YES)

        assert Notification.objects.get().route_id == route.pk
        assert any("a test is on its way" in said for said in messages_of(answer))

    def test_buttons_are_those_that_work(self, client: Client) -> None:
        email = factories.AlertRouteFactory(channel="email", target="ada@example.org")

        assert offered(client, factories.AlertRouteFactory()) == {"test", "rotate_secret", "remove"}
        assert offered(client, email) == {"test", "remove"}
        client.force_login(factories.UserFactory(role=Role.VIEWER, is_staff=True))  # type: ignore[arg-type]
        assert offered(client, email) == set()

    def test_who_may_only_read_sees_the_url_of_a_webhook_up_to_its_host(self, client: Client) -> None:
        route = factories.AlertRouteFactory(target="https://hooks.example.org/T0/a-token")
        client.force_login(factories.UserFactory(role=Role.VIEWER, is_staff=True))  # type: ignore[arg-type]

        pages = [client.get(url).content.decode() for url in (ROUTES, url_of(route))]

        assert all("https://hooks.example.org" in page for page in pages)
        assert not any("a-token" in page for page in pages)


class TestNotifications:
    def test_one_shows_what_became_of_each_try(self, client: Client) -> None:
        row: Any = factories.NotificationFactory()
        DeliveryAttempt.objects.create(notification=row, seconds=0.25, status=500, problem="500: <b>out of order</b>")

        page = client.get(url_of(row)).content.decode()

        assert "0.25 s: 500: &lt;b&gt;out of order" in page
        assert "operators" in client.get("/admin/observability/notification/").content.decode()

    def test_one_that_was_given_up_is_tried_again(self, client: Client) -> None:
        route: Any = factories.AlertRouteFactory()
        row: Any = factories.NotificationFactory(route_id=route.pk, state="FAILED")
        done = factories.NotificationFactory(route_id=route.pk, state="DELIVERED")

        before = offered(client, row), offered(client, done)
        client.post(url_of(row, "retry"), YES)

        row.refresh_from_db()
        assert before == ({"retry"}, set())
        assert row.state == "PENDING"
