"""What is written down to be told, from alerts, routes, silences and earlier messages: once, whoever comes first."""

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from apps.accounts.models import Workspace
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import Alert, Notification
from apps.observability.services.notifying import notify
from tests.support.factories import (
    AlertFactory,
    AlertRouteFactory,
    AlertRuleFactory,
    NotificationFactory,
    SilenceFactory,
)

NOW = timezone.now()


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session may have begun long before: alerts fire at the time of the test."""
    monkeypatch.setitem(globals(), "NOW", timezone.now())


@pytest.fixture
def now(db: None) -> datetime:
    return timezone.now()


def delivered() -> None:
    """All that is under way has arrived."""
    for state in (NotificationState.SENDING, NotificationState.DELIVERED):
        Notification.objects.filter(state__in=("PENDING", "SENDING")).update(state=state)


def resolved(alert: Alert, when: datetime) -> None:
    Alert.objects.filter(pk=alert.pk).update(state=AlertState.RESOLVED, resolved_at=when)


def test_alerts_go_to_the_routes_whose_matchers_admit_them(now: datetime) -> None:
    mill: Any = AlertFactory(labels={"alertname": "Busy", "host": "mill"})
    barn: Any = AlertFactory(labels={"alertname": "Busy", "host": "barn"})
    everything: Any = AlertRouteFactory()
    of_mill: Any = AlertRouteFactory(matchers=[{"label": "host", "op": "=~", "value": "mi.*"}])
    AlertRouteFactory(matchers=[{"label": "host", "op": "=", "value": "elsewhere"}])
    AlertRouteFactory(enabled=False)

    assert notify(now) == 2

    told = {row.route_id: row.alerts for row in Notification.objects.all()}
    assert told == {everything.pk: [mill.pk, barn.pk], of_mill.pk: [mill.pk]}


def test_alerts_of_other_workspaces_are_none_of_a_routes_business(now: datetime) -> None:
    AlertFactory(workspace=Workspace.objects.create(name="another"))
    AlertRouteFactory()

    assert notify(now) == 0


def test_a_group_is_what_agrees_in_its_labels(now: datetime) -> None:
    for host in ("mill", "barn", "mill"):
        AlertFactory(labels={"alertname": "Busy", "host": host})
    AlertFactory(labels={"alertname": "Alone"})
    AlertRouteFactory(group_by=["host"])

    notify(now)

    groups = {str(row.payload["groupLabels"]): len(row.alerts) for row in Notification.objects.all()}
    assert groups == {"{'host': 'mill'}": 2, "{'host': 'barn'}": 1, "{}": 1}


def test_pending_silenced_and_inhibited_alerts_are_not_told_of(now: datetime) -> None:
    rule: Any = AlertRuleFactory(inhibited_by=[{"rule": "Host down", "equal": ["host"]}])
    labels = {"host": "barn"}
    cause: Any = AlertFactory(rule_name="Host down", labels=labels)
    AlertFactory(rule_id=rule.pk, rule_name=rule.name, labels=labels)
    AlertFactory(labels={"host": "mill"})
    SilenceFactory(matchers=[{"label": "host", "op": "=", "value": "mill"}])
    AlertFactory(state=AlertState.PENDING)
    AlertRouteFactory()

    notify(now)

    assert Notification.objects.get().alerts == [cause.pk]


def test_the_same_is_not_told_twice(now: datetime) -> None:
    AlertFactory()
    AlertRouteFactory()

    assert [notify(now), notify(now)] == [1, 0]
    delivered()
    assert notify(now + timedelta(hours=3)) == 0
    assert notify(now + timedelta(hours=4)) == 1


def test_an_end_is_told_once_and_a_new_beginning_is_a_new_group(now: datetime) -> None:
    alert: Any = AlertFactory()
    AlertRouteFactory()
    notify(now)
    delivered()

    resolved(alert, now + timedelta(minutes=6))
    assert notify(now + timedelta(minutes=6)) == 1
    delivered()
    assert notify(now + timedelta(days=1)) == 0
    AlertFactory(started_at=now + timedelta(days=2))
    assert notify(now + timedelta(days=2)) == 1

    newest, end, first = Notification.objects.order_by("-pk")
    assert [row.payload["status"] for row in (first, end, newest)] == ["firing", "resolved", "firing"]
    assert end.alerts == [alert.pk]
    assert (first.open_alerts, end.open_alerts) == ([], [])


def test_a_group_that_ended_untold_is_looked_at_no_more(now: datetime) -> None:
    alert: Any = AlertFactory()
    AlertRouteFactory(send_resolved=False)
    notify(now)
    delivered()
    resolved(alert, now + timedelta(minutes=1))

    assert notify(now + timedelta(minutes=6)) == 0

    assert Notification.objects.get().open_alerts == []


def test_a_route_that_cannot_be_read_keeps_no_other_from_hearing(now: datetime) -> None:
    AlertFactory()
    AlertRouteFactory(matchers=[{"label": "host", "op": "=~", "value": "(a+)+"}])  # from before that was refused
    good: Any = AlertRouteFactory()

    assert notify(now) == 1
    assert Notification.objects.get().route_id == good.pk


def test_a_silence_that_cannot_be_read_silences_nothing(now: datetime) -> None:
    AlertFactory()
    AlertRouteFactory()
    SilenceFactory(matchers=[{"label": "host", "op": "=~", "value": "(a+)+"}])

    assert notify(now) == 1


def test_news_wait_for_the_message_before_them(now: datetime) -> None:
    first: Any = AlertFactory()
    AlertRouteFactory()
    notify(now)

    resolved(first, now)
    assert notify(now + timedelta(hours=1)) == 0
    delivered()
    assert notify(now + timedelta(hours=1)) == 1


def test_a_test_message_is_no_group(now: datetime) -> None:
    route: Any = AlertRouteFactory()
    NotificationFactory(route_id=route.pk, group_key="test")
    AlertFactory()

    assert notify(now) == 1


def test_many_alerts_and_routes_take_few_queries(now: datetime, django_assert_num_queries: Any) -> None:
    for _ in range(5):
        AlertRouteFactory(group_by=["host"])
    for _ in range(20):
        AlertFactory()
    SilenceFactory()

    # A savepoint and its end; routes, alerts, silences, rules, messages, one write.
    with django_assert_num_queries(8):
        assert notify(now) == 100


@pytest.mark.usefixtures("committed_db")
def test_two_evaluators_write_one_message() -> None:
    AlertFactory()
    AlertRouteFactory()
    together, written = threading.Barrier(2), []

    def evaluate() -> None:
        try:
            together.wait(10)
            written.append(notify(NOW + timedelta(minutes=5)))
        finally:
            connection.close()

    threads = [threading.Thread(target=evaluate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(written) == [0, 1]
    assert Notification.objects.count() == 1
