"""The pages that decide who is told of what: rules, silences, routes and their deliveries."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.dashboards import rule_words
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import AlertRule, Notification, RuleKind, Silence
from apps.observability.rules.shipped import SHIPPED
from apps.observability.services import rules
from tests.integration.test_pages_alerts import client
from tests.support.alert_rows import message
from tests.support.factories import (
    AlertFactory,
    AlertRouteFactory,
    AlertRuleFactory,
    NotificationFactory,
    SilenceFactory,
)
from tests.support.pages import page_of, words_of

__all__ = ["client"]
pytestmark = pytest.mark.django_db

THRESHOLD = {"op": ">", "value": 0.9, "reading": "mean", "window_seconds": 600, "least_samples": 1}


def form_of(**changes: Any) -> dict[str, Any]:
    """What the form of a rule sends."""
    given = {f"parameter_{name}": value for name, value in (THRESHOLD | changes.pop("parameters", {})).items()}
    plain = {"enabled": "on", "severity": "warning", "for_seconds": 0, "keep_firing_seconds": 0, "reason": "too early"}
    return {**plain, **given, **changes}


# --- Rules


def test_a_rule_is_told_in_words_with_how_it_stands(client: Client) -> None:
    rule: Any = AlertRuleFactory(name="Busy", parameters=THRESHOLD, for_seconds=120)
    AlertFactory(rule_id=rule.pk)
    AlertFactory(rule_id=rule.pk, state=AlertState.PENDING)

    page = words_of(page_of(client, "/alerts/rules"))

    assert "Busy firing alerts of Busy 1 firing, 1 pending warning mean of 10 min > 90.0 % esper_host_cpu_ratio" in page
    assert "2 min" in page


def test_rules_that_are_quiet_or_off_say_so(client: Client) -> None:
    AlertRuleFactory(name="Asleep", enabled=False)
    AlertRuleFactory(name="Awake")

    page = words_of(page_of(client, "/alerts/rules"))

    assert "Awake quiet" in page
    assert "Asleep off" in page


def test_every_shipped_rule_has_its_condition_in_words() -> None:
    told = {
        key: rule_words.condition(AlertRule(kind=rule.kind, metric=rule.metric, parameters=dict(rule.parameters)))
        for key, rule in SHIPPED.items()
    }

    assert {key: words for key, words in told.items() if not words or words in RuleKind.labels} == {}


def test_a_condition_that_is_not_of_its_kind_shows_as_the_kind() -> None:
    rule = AlertRule(kind=RuleKind.THRESHOLD, metric="mine", parameters={"value": None})

    assert rule_words.condition(rule) == "above or below a value"


def test_the_limits_of_a_rule_are_changed(client: Client) -> None:
    rule: Any = AlertRuleFactory(parameters=THRESHOLD)

    answer = client.post(f"/alerts/rules/{rule.pk}", form_of(parameters={"value": "0.8"}, for_seconds=60))

    rule.refresh_from_db()
    assert (answer.status_code, answer["Location"]) == (302, "/alerts/rules")
    assert (rule.parameters["value"], rule.for_seconds) == (0.8, 60)
    assert AuditEvent.objects.get(type="alert_rule.changed").reason == "too early"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parameters": {"value": "much"}}, "Enter a number"),
        ({"parameters": {"value": "nan"}}, "Enter a number"),
        ({"parameters": {"window_seconds": "1"}}, "must be between 15 and 21600"),
        ({"for_seconds": "-1"}, "greater than or equal to 0"),
        ({"severity": "dire"}, "not one of the available choices"),
    ],
)
def test_a_limit_that_is_wrong_is_told_at_its_field(client: Client, changes: dict[str, Any], says: str) -> None:
    rule: Any = AlertRuleFactory(parameters=THRESHOLD)

    answer = client.post(f"/alerts/rules/{rule.pk}", form_of(**changes))

    assert answer.status_code == 422
    assert says in answer.content.decode()
    assert 'aria-invalid="true"' in answer.content.decode()
    assert AlertRule.objects.get().parameters == THRESHOLD


def test_the_form_of_every_kind_takes_what_it_shows(client: Client) -> None:
    for rule in {rule.kind: rule for rule in rules.install_shipped(actor=SYSTEM)}.values():
        form = client.get(f"/alerts/rules/{rule.pk}").context["form"]
        given = {name: form[name].value() for name in form.fields}

        answer = client.post(
            f"/alerts/rules/{rule.pk}", {name: value for name, value in given.items() if value not in (None, "")}
        )

        assert answer.status_code == 302, (rule.kind, answer.context["form"].errors)


@pytest.mark.parametrize("step", ["disable", "enable", "reset"])
def test_a_step_is_shown_before_it_is_taken(client: Client, step: str) -> None:
    shipped = SHIPPED["disk-nearly-full"]
    rule: Any = AlertRuleFactory(shipped=shipped.key, enabled=step != "enable")

    shown = client.get(f"/alerts/rules/{rule.pk}/{step}").content.decode()
    before = AlertRule.objects.get()
    answer = client.post(f"/alerts/rules/{rule.pk}/{step}", {"reason": "a test"})

    after = AlertRule.objects.get()
    assert "Will happen:" in shown
    assert (before.name, before.enabled) == (rule.name, rule.enabled)
    assert answer["Location"] == "/alerts/rules"
    wanted = {"disable": (rule.name, False), "enable": (rule.name, True), "reset": (shipped.name, True)}
    assert (after.name, after.enabled) == wanted[step]


def test_a_rule_of_ones_own_cannot_be_set_back(client: Client) -> None:
    rule: Any = AlertRuleFactory()

    answer = client.post(f"/alerts/rules/{rule.pk}/reset", {})

    assert answer.status_code == 409
    assert "did not come with the platform" in answer.content.decode()


# --- Silences


def test_silences_say_what_they_mute_and_which_is_over(client: Client) -> None:
    AlertFactory(labels={"host": "mill"})
    now = timezone.now()
    SilenceFactory(comment="a new disk")
    SilenceFactory(comment="last week", starts_at=now - timedelta(days=8), ends_at=now - timedelta(days=7))
    SilenceFactory(comment="tomorrow", starts_at=now + timedelta(days=1), ends_at=now + timedelta(days=2))

    page = words_of(page_of(client, "/alerts/silences"))

    assert page.index('a new disk in force host="mill" 1 alert') < page.index('tomorrow to come host="mill" 1 alert')
    assert page.index("tomorrow") < page.index('last week over host="mill" —')


def test_a_new_silence_is_tried_before_it_is_made(client: Client) -> None:
    AlertFactory(labels={"host": "mill-7"}, summary="mill-7 is busy")
    form = {"matchers": 'host=~"mill-.*"\n', "hours": "24", "comment": "moving the machines"}

    tried = client.post("/alerts/silences/new", form | {"preview": "1"}).content.decode()
    there = Silence.objects.count()
    answer = client.post("/alerts/silences/new", form)

    assert "1 open alert. mill-7 is busy" in words_of(tried)
    assert there == 0
    assert (answer.status_code, answer["Location"]) == (302, "/alerts/silences")
    assert Silence.objects.get().matchers == [{"label": "host", "op": "=~", "value": "mill-.*"}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "This field is required"),
        ("host", "is written label=&quot;value&quot;"),
        ('host=~"(a+)+"', "repeats a group that repeats"),
        ('host!="a"', "at least one has to ask for something"),
        ("host=a\x00b", "Null characters are not allowed"),
    ],
)
def test_matchers_that_are_wrong_are_told_at_their_field(client: Client, text: str, says: str) -> None:
    answer = client.post("/alerts/silences/new", {"matchers": text, "hours": "1", "comment": "x"})

    assert answer.status_code == 422
    assert says in answer.content.decode()
    assert not Silence.objects.exists()


def test_a_silence_is_ended(client: Client) -> None:
    silence: Any = SilenceFactory()

    client.post(f"/alerts/silences/{silence.pk}/end", {})

    silence.refresh_from_db()
    assert silence.ends_at <= timezone.now()
    assert client.post(f"/alerts/silences/{silence.pk}/end", {}).status_code == 409


# --- Routes and deliveries


def test_a_route_shows_of_its_webhook_the_host_alone(client: Client) -> None:
    AlertRouteFactory(name="operators", target="https://hooks.example.org/T0/secret-path?token=abc")

    page = page_of(client, "/alerts/routes")

    assert "hooks.example.org" in page
    assert "secret-path" not in page
    assert "abc" not in page


def test_messages_say_what_they_are_about_and_every_try(client: Client) -> None:
    route: Any = AlertRouteFactory(name="operators")
    alert: Any = AlertFactory(summary="mill is full")
    message(alert, route=route, tries=2)

    page = words_of(page_of(client, "/alerts/routes"))

    assert "operators signed webhook delivered mill is full 2 tries" in page
    assert "the other side answered 503 Service Unavailable, status 503" in page


def test_a_message_that_tells_of_the_end_says_so(client: Client) -> None:
    alert: Any = AlertFactory(summary="mill is full")
    route: Any = AlertRouteFactory()
    message(alert, route=route, payload={"status": "firing"})
    message(alert, route=route, payload={"status": "resolved"})

    page = words_of(page_of(client, "/alerts/routes"))

    assert page.count("mill is full") == 2
    assert page.count("Over: mill is full") == 1


def test_messages_are_narrowed_by_route_and_state(client: Client) -> None:
    route: Any = AlertRouteFactory()
    alert: Any = AlertFactory()
    failed = message(alert, route=route, state=NotificationState.FAILED, problem="no answer")
    message(alert, route=AlertRouteFactory())

    for query in (f"route={route.pk}", "state=FAILED"):
        page = page_of(client, f"/alerts/routes?{query}")
        assert page.count('<tr role="row" id="m-') == 1
        assert f'id="m-{failed.pk}"' in page
    assert "No message fits" in page_of(client, "/alerts/routes?state=SENDING")


def test_more_messages_take_no_more_queries(client: Client) -> None:
    route: Any = AlertRouteFactory()
    alert: Any = AlertFactory()

    def counted() -> int:
        with CaptureQueriesContext(connection) as queries:
            page_of(client, "/alerts/routes")
        return len(queries)

    message(alert, route=route)
    counted()
    few = counted()
    for _ in range(10):
        message(alert, route=route, tries=2)

    assert counted() == few


def test_a_test_is_sent_over_a_route(client: Client) -> None:
    route: Any = AlertRouteFactory()

    answer = client.post(f"/alerts/routes/{route.pk}/test", {})

    assert answer["Location"] == "/alerts/routes"
    assert Notification.objects.get().route_id == route.pk
    assert "a test" in words_of(page_of(client, "/alerts/routes"))


def test_a_message_that_was_given_up_is_sent_again(client: Client) -> None:
    route: Any = AlertRouteFactory()
    failed: Any = NotificationFactory(route_id=route.pk, state=NotificationState.FAILED, problem="no answer")

    client.post(f"/alerts/messages/{failed.pk}/retry", {})

    failed.refresh_from_db()
    assert failed.state == NotificationState.PENDING
    assert client.post(f"/alerts/messages/{failed.pk}/retry", {}).status_code == 409


def test_empty_pages_say_what_fills_them(client: Client) -> None:
    assert "Rules for losses, growth, disks" in page_of(client, "/alerts/rules")
    assert "For a maintenance" in page_of(client, "/alerts/silences")
    assert "No route: alerts are seen here" in words_of(page_of(client, "/alerts/routes"))
