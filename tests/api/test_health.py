"""`/healthz`, `/readyz` and `/metrics`: who may ask, and what they say when something is away."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from prometheus_client.core import GaugeMetricFamily
from redis.exceptions import ConnectionError as RedisDown

from apps.core import heartbeats
from apps.core.readiness import CHECKS, readiness
from apps.core.registry import registry
from tests.api.conftest import Caller
from tests.support.problems import assert_problem

OUTSIDE = {"REMOTE_ADDR": "203.0.113.9"}
QUEUES = ("default", "train", "compile")


@pytest.fixture(autouse=True)
def _fresh_readiness() -> Iterator[None]:
    readiness.forget()
    yield
    readiness.forget()


def test_healthz_asks_nobody(committed_db: str, nobody: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    connections.close_all()
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")

    assert nobody.get("/healthz").json() == {"status": "ok"}


def test_ready_when_every_part_answers_and_every_queue_is_served(db: None, nobody: Caller) -> None:
    heartbeats.show_life("node", QUEUES)

    assert nobody.get("/readyz").json() == {"status": "ready"}


def test_the_queues_that_nobody_serves_are_named(db: None, nobody: Caller) -> None:
    heartbeats.show_life("node", ["default"])

    response = nobody.get("/readyz")

    body = assert_problem(response, 503, "not_ready", "/workers")
    assert body["errors"][0]["detail"] == "no worker serves train, compile"
    assert response["Retry-After"] == "2"


def test_a_sign_of_life_is_old_after_fifteen_seconds(db: None) -> None:
    from django_redis import get_redis_connection

    heartbeats.show_life("node", ["default"])

    assert 14 <= get_redis_connection("throttle").ttl(heartbeats.KEY.format(queue="default")) <= 15


def test_a_silent_database_is_named(committed_db: str, nobody: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeats.show_life("node", QUEUES)
    connections.close_all()
    monkeypatch.setitem(connections.settings["default"], "PORT", "1")

    assert_problem(nobody.get("/readyz"), 503, "not_ready", "/database")


def test_many_calls_are_one_question(db: None, nobody: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setitem(registry.readiness, "counted", lambda: asked.append("once") or "")

    for _ in range(20):
        nobody.get("/readyz")

    assert asked == ["once"]


def test_the_checks_are_registered_where_the_pages_find_them() -> None:
    assert registry.readiness.items() >= CHECKS.items()


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
class TestWhoMayAsk:
    def test_a_direct_call_from_an_allowed_network(self, db: None, nobody: Caller, path: str) -> None:
        heartbeats.show_life("node", QUEUES)

        assert nobody.get(path).status_code == 200

    def test_nobody_from_outside(self, db: None, nobody: Caller, path: str) -> None:
        assert_problem(nobody.get(path, **OUTSIDE), 401)

    @pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via"])
    def test_nobody_through_a_proxy_on_this_machine(self, db: None, nobody: Caller, path: str, header: str) -> None:
        assert_problem(nobody.get(path, headers={header: "127.0.0.1"}), 401)

    def test_a_token_with_the_scope_from_anywhere(self, caller: Callable[..., Caller], path: str) -> None:
        heartbeats.show_life("node", QUEUES)

        assert caller("viewer").get(path, **OUTSIDE).status_code == 200

    def test_no_token_without_it(self, caller: Callable[..., Caller], path: str) -> None:
        assert_problem(caller("admin", scopes=["library:read"]).get(path, **OUTSIDE), 403)


def test_metrics_hold_what_the_apps_registered(db: None, nobody: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    family = GaugeMetricFamily("esper_planted", "A planted metric.", value=7)
    monkeypatch.setitem(registry.collectors, "planted", lambda: [family])

    text = nobody.get("/metrics").content.decode()

    assert "esper_planted 7.0" in text
    assert 'esper_collector_up{collector="planted"} 1.0' in text


def test_a_collector_that_fails_is_told_and_not_fatal(
    db: None, nobody: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RedisDown

    monkeypatch.setitem(registry.collectors, "planted", broken)

    response = nobody.get("/metrics")

    assert response.status_code == 200
    assert 'esper_collector_up{collector="planted"} 0.0' in response.content.decode()
