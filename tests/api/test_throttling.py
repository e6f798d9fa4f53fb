"""Limits count in Redis; a silent Redis costs little, admits reads and writes, and refuses logins."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import override_settings
from rest_framework.settings import api_settings

from apps.core.errors import Unavailable
from apps.core.throttling import UNCOUNTED, LoginThrottle, ReadThrottle, WindowThrottle
from tests.api.conftest import Caller
from tests.support.problems import assert_problem


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        api_settings,
        "DEFAULT_THROTTLE_RATES",
        {"read": "5/hour", "write": "2/hour", "login": "3/hour", "login_address": "5/hour"},
    )
    monkeypatch.setattr(WindowThrottle, "_silent_until", 0.0)


@pytest.fixture
def silent_redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that accepts connections and never answers, as a frozen one does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        from django.conf import settings

        frozen = {
            **settings.CACHES,
            "throttle": {**settings.CACHES["throttle"], "LOCATION": f"redis://127.0.0.1:{port}/0"},
        }
        with override_settings(CACHES=frozen):
            _forget_connections()
            yield
        _forget_connections()


def _forget_connections() -> None:
    if hasattr(caches._connections, "throttle"):
        del caches["throttle"]


def test_reads_over_the_limit_are_told_when_to_come_back(caller: Callable[..., Caller]) -> None:
    client = caller("viewer")
    answers = [client.get("/api/v1/runs") for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert_problem(answers[-1], 429, "throttled")
    assert 1 <= int(answers[-1]["Retry-After"]) <= 3600


def test_each_user_has_its_own_limit_and_writes_have_theirs(caller: Callable[..., Caller]) -> None:
    first, second = caller("curator"), caller("curator")
    for _ in range(6):
        first.get("/api/v1/runs")

    assert second.get("/api/v1/runs").status_code == 200
    assert [first.post("/api/v1/blueprints", {"name": name}).status_code for name in "abc"] == [201, 201, 429]


def test_the_window_slides(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start = 1_000_000 * 3600.0
    clock = [start + 1800]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    throttle = ReadThrottle()
    used = [throttle.admit("somebody") for _ in range(5)]

    clock[0] = start + 3600 + 900  # a quarter into the next window: three quarters of the five still count

    assert all(used)
    assert [throttle.admit("somebody") for _ in range(2)] == [True, False]


def test_a_silent_redis_admits_counts_and_is_not_asked_again_at_once(
    silent_redis: None, caller: Callable[..., Caller]
) -> None:
    client = caller("viewer")
    before = _uncounted()

    began = time.monotonic()
    answers = [client.get("/api/v1/runs").status_code for _ in range(20)]
    took = time.monotonic() - began

    assert answers == [200] * 20
    assert _uncounted() - before == 20
    assert took < 2.0  # 20 x 50 ms alone would be 1 s; every request waiting for retries would be many


def _uncounted() -> float:
    return UNCOUNTED.labels("read")._value.get()


def test_the_first_answer_of_a_silent_redis_is_given_up_after_50_ms(silent_redis: None, db: None) -> None:
    began = time.monotonic()

    assert ReadThrottle().admit("somebody")

    assert time.monotonic() - began < 0.25


def test_no_login_is_taken_while_logins_cannot_be_counted(silent_redis: None, db: None) -> None:
    with pytest.raises(Unavailable):
        LoginThrottle().admit("127.0.0.1 ada")


def test_logins_over_the_limit_are_refused(db: None) -> None:
    admitted: list[Any] = [LoginThrottle().admit("127.0.0.1 ada") for _ in range(4)]

    assert admitted == [True, True, True, False]
    assert LoginThrottle().admit("127.0.0.1 eve")


def test_an_address_cannot_try_one_password_on_many_names(db: None) -> None:
    admitted = [LoginThrottle().admit_login("127.0.0.1", f"name-{number}") for number in range(6)]

    assert admitted == [True] * 5 + [False]
    assert LoginThrottle().admit_login("127.0.0.2", "name-0")
