"""`/alert-routes` and `/notifications`: whom to tell of which alerts, and what became of the messages."""

from collections.abc import Callable
from typing import Any

import pytest

from apps.core.ids import new_id
from apps.observability.api.routing import RouteView
from apps.observability.delivery import addresses
from apps.observability.models import AlertRoute, DeliveryAttempt, Notification
from tests.api.conftest import Caller
from tests.support.factories import AlertRouteFactory, NotificationFactory
from tests.support.problems import assert_problem

pytestmark = pytest.mark.django_db

ROUTES, NOTIFICATIONS = "/api/v1/alert-routes", "/api/v1/notifications"
HOOK = {"name": "ops", "channel": "webhook", "target": "https://93.184.215.14/hook"}


class TestRoutes:
    def test_one_is_made_and_its_secret_shown_this_once(self, admin: Caller) -> None:
        response = admin.post(ROUTES, HOOK, format="json")

        secret = response.json()["secret"]
        assert (response.status_code, response["Cache-Control"]) == (201, "no-store")
        assert secret == AlertRoute.objects.get().secret
        detail, listed = admin.get(response["Location"]), admin.get(ROUTES)
        assert detail.json()["has_secret"] is True
        assert secret not in detail.content.decode() + listed.content.decode()

    @pytest.mark.parametrize(
        ("change", "status", "pointer"),
        [
            ({"target": "http://127.0.0.1:8000/"}, 400, "/target"),
            ({"target": "http://[::ffff:10.0.0.1]/"}, 400, "/target"),
            ({"target": 5}, 400, "/target"),
            ({"channel": "pigeon"}, 400, "/channel"),
            ({"channel": "email"}, 400, "/target"),
            ({"matchers": [{"label": "host", "op": "~", "value": "x"}]}, 400, "/matchers/0/op"),
            ({"matchers": [{"label": "host", "op": "=~", "value": "(a+)+"}]}, 400, "/matchers/0/value"),
            ({"matchers": {}}, 400, "/matchers"),
            ({"group_by": ["not a label"]}, 400, "/group_by/0"),
            ({"group_by": ["alertname"] * 2}, 400, "/group_by"),
            ({"group_wait_seconds": 1.5}, 400, "/group_wait_seconds"),
            ({"repeat_interval_seconds": 10**30}, 400, "/repeat_interval_seconds"),
            ({"secret": "short"}, 400, "/secret"),
            ({"unknown": 1}, 400, "/unknown"),
        ],
    )
    def test_a_wrong_member_is_named(self, admin: Caller, change: dict[str, Any], status: int, pointer: str) -> None:
        response = admin.post(ROUTES, HOOK | change, format="json")

        assert_problem(response, status, "", pointer)
        assert not AlertRoute.objects.exists()

    def test_name_servers_are_asked_before_the_route_is_locked(
        self, admin: Caller, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Alerts are told under a lock of all routes: they would wait for the answer."""
        route: Any = AlertRouteFactory()
        order: list[str] = []
        lock = RouteView.matched
        monkeypatch.setattr(addresses, "check", lambda *given, **more: order.append("look up"))
        monkeypatch.setattr(RouteView, "matched", lambda view: order.append("lock") or lock(view))
        path = f"{ROUTES}/{route.pk}"
        etag = admin.get(path)["ETag"]

        response = admin.patch(path, {"target": HOOK["target"]}, format="json", headers={"If-Match": etag})

        assert (response.status_code, order) == (200, ["look up", "lock"])

    def test_names_are_unique(self, admin: Caller) -> None:
        AlertRouteFactory(name="ops")

        assert_problem(admin.post(ROUTES, HOOK, format="json"), 409, "duplicate", "/name")

    def test_one_is_changed_by_who_has_seen_it(self, admin: Caller) -> None:
        path = f"{ROUTES}/{AlertRouteFactory().pk}"
        etag = admin.get(path)["ETag"]
        matchers = [{"label": "severity", "op": "=", "value": "critical"}, {"label": "run", "op": "=", "value": ""}]

        changed = admin.patch(path, {"matchers": matchers}, format="json", headers={"If-Match": etag})
        late = admin.patch(path, {"enabled": False}, format="json", headers={"If-Match": etag})

        assert (changed.status_code, changed.json()["matchers"]) == (200, matchers)
        assert_problem(late, 412, "if_match")

    def test_a_new_target_is_not_looked_up_for_who_has_not_seen_the_route(self, admin: Caller) -> None:
        path = f"{ROUTES}/{AlertRouteFactory().pk}"

        assert_problem(admin.patch(path, {"target": "http://10.0.0.1/"}, format="json"), 428, "if_match_required")

    def test_one_is_removed(self, admin: Caller) -> None:
        path = f"{ROUTES}/{AlertRouteFactory().pk}"

        response = admin.delete(f"{path}?reason=tidy", headers={"If-Match": admin.get(path)["ETag"]})

        assert response.status_code == 204
        assert not AlertRoute.objects.exists()

    def test_another_secret_is_shown_once(self, admin: Caller) -> None:
        route: Any = AlertRouteFactory()

        response = admin.post(f"{ROUTES}/{route.pk}/rotate-secret", {"reason": "it leaked"}, format="json")

        route.refresh_from_db()
        assert response.json()["secret"] == route.secret != "a-secret-of-the-tests"
        assert response["Cache-Control"] == "no-store"

    def test_a_test_is_sent_once_for_a_key(self, admin: Caller) -> None:
        path = f"{ROUTES}/{AlertRouteFactory().pk}/test"

        first, again = (admin.post(path, format="json", headers={"Idempotency-Key": "k1"}) for _ in range(2))

        assert (first.status_code, first.json()["state"]) == (202, "PENDING")
        assert first.json() == again.json()
        assert admin.get(first["Location"]).json()["payload"]["commonLabels"]["alertname"] == "Test"

    def test_who_may_only_read_changes_nothing(self, caller: Callable[..., Caller]) -> None:
        viewer, route = caller("viewer"), AlertRouteFactory()

        assert viewer.get(ROUTES).status_code == 200
        assert_problem(viewer.post(ROUTES, HOOK, format="json"), 403)
        assert_problem(viewer.post(f"{ROUTES}/{route.pk}/test", format="json"), 403)
        assert_problem(viewer.post(f"{ROUTES}/{route.pk}/rotate-secret", format="json"), 403)

    def test_who_may_only_read_sees_the_url_of_a_webhook_up_to_its_host(self, caller: Callable[..., Caller]) -> None:
        route: Any = AlertRouteFactory(target="https://hooks.example.org:8443/T0/a-token?key=b-token")
        viewer, operator = caller("viewer"), caller("operator")

        answers = [viewer.get(ROUTES).json()["results"][0], viewer.get(f"{ROUTES}/{route.pk}").json()]

        assert [answer["target"] for answer in answers] == ["https://hooks.example.org:8443"] * 2
        assert operator.get(f"{ROUTES}/{route.pk}").json()["target"] == route.target


class TestNotifications:
    def test_are_listed_with_their_tries_by_state_and_route(self, admin: Caller) -> None:
        route_id = new_id()
        mine: Any = NotificationFactory(route_id=route_id, state="FAILED", problem="500")
        NotificationFactory(state="FAILED"), NotificationFactory(route_id=route_id)
        for status in (None, 500):
            DeliveryAttempt.objects.create(notification=mine, seconds=0.5, status=status, problem="it did not work")

        (found,) = admin.get(f"{NOTIFICATIONS}?state=FAILED&route={route_id}").json()["results"]

        assert (found["id"], found["problem"]) == (str(mine.pk), "500")
        assert [each["status"] for each in found["tries"]] == [None, 500]
        assert "payload" not in found

    def test_that_failed_are_tried_again(self, admin: Caller) -> None:
        route = AlertRouteFactory()
        failed, done = (NotificationFactory(route_id=route.pk, state=state) for state in ("FAILED", "DELIVERED"))

        response = admin.post(f"{NOTIFICATIONS}/{failed.pk}/retry", {"reason": "it is back"}, format="json")

        assert (response.status_code, response.json()["state"]) == (202, "PENDING")
        assert Notification.objects.get(pk=failed.pk).attempts == 0
        assert_problem(admin.post(f"{NOTIFICATIONS}/{done.pk}/retry", format="json"), 409, "not_failed")

    @pytest.mark.parametrize("query", ["state=LOST", "route=x", "route=", "colour=red"])
    def test_a_wrong_parameter_is_named(self, admin: Caller, query: str) -> None:
        assert_problem(admin.get(f"{NOTIFICATIONS}?{query}"), 400, "", f"/{query.partition('=')[0]}")
