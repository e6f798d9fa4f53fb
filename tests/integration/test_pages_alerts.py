"""The pages of alerts: what fires and why, one alert whole, and the answers to it."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.ids import new_id
from apps.dashboards.selectors import alerts as selectors
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import Alert, RuleKind, Sample, Silence
from apps.observability.services.evaluating import evaluate
from tests.support.alert_rows import firing, measured, message, odd, rising
from tests.support.factories import (
    AlertFactory,
    AlertRouteFactory,
    AlertRuleFactory,
    RunFactory,
    SilenceFactory,
)
from tests.support.pages import page_of, words_of
from tests.support.run_rows import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("ada", role="operator"))
    return client


def cards_of(html: str) -> list[str]:
    return [words_of(card.split("</li>\n</ol>")[0]) for card in html.split('<li class="alert tone-')[1:]]


def disk_alert(**values: Any) -> Alert:
    series = measured("esper_host_disk_used_ratio", rising(0.5, 0.93, over=1.0), labels={"host": "mill"}, unit="ratio")
    rule: Any = AlertRuleFactory(name="Disk is nearly full", metric=series.name, remedy="Archive checkpoints.")
    return firing(series, rule, ago=timedelta(minutes=20), value=0.93, threshold=0.9, summary="mill is full", **values)


# --- The list


def test_an_alert_says_what_fires_why_and_what_to_do(client: Client) -> None:
    disk_alert()

    (card,) = cards_of(page_of(client, "/alerts"))

    assert "warning firing fires since" in card
    assert "mill is full Newest sample: 93.0 %, threshold 90.0 %" in card
    assert "host mill" in card
    assert "What to do: Archive checkpoints." in card


def test_it_is_drawn_with_its_threshold_and_the_anomalies_of_its_series(client: Client) -> None:
    alert = disk_alert()

    page = page_of(client, "/alerts")

    assert 'class="threshold"' in page
    assert re.search(
        r'aria-label="esper_host_disk_used_ratio: 5\d.\d\xa0% to 93.0\xa0% in .*, threshold 90.0\xa0%"', page
    )
    assert f'id="a-{alert.pk}"' in page


def test_what_nobody_looks_at_comes_first_then_what_is_severe(client: Client) -> None:
    AlertFactory(summary="pending", state=AlertState.PENDING, severity="critical")
    AlertFactory(summary="seen", acknowledged_at=timezone.now(), severity="critical")
    AlertFactory(summary="mild")
    AlertFactory(summary="grave", severity="critical")

    cards = cards_of(page_of(client, "/alerts"))

    order = ["grave", "mild", "seen", "pending"]
    assert [next(word for word in order if f" {word} " in card) for card in cards] == order


def test_the_badge_counts_what_fires_and_nobody_has_acknowledged(client: Client) -> None:
    AlertFactory()
    AlertFactory(acknowledged_at=timezone.now())
    AlertFactory(state=AlertState.PENDING)

    page = page_of(client, "/runs")

    assert "Alerts 1 firing and not acknowledged" in words_of(page)


def test_a_silenced_one_says_by_what(client: Client) -> None:
    alert: Any = AlertFactory()
    matcher = {"label": "host", "op": "=", "value": alert.labels["host"]}
    SilenceFactory(matchers=[matcher], comment="the disk is swapped")

    (card,) = cards_of(page_of(client, "/alerts"))

    assert "muted" in card
    assert "Silenced: the disk is swapped, until" in card


def test_one_that_another_inhibits_says_by_which(client: Client) -> None:
    AlertFactory(rule_name="Nothing is measured", labels={"host": "mill"})
    rule: Any = AlertRuleFactory(name="Busy", inhibited_by=[{"rule": "Nothing is measured", "equal": ["host"]}])
    AlertFactory(rule_id=rule.pk, rule_name="Busy", labels={"host": "mill"}, summary="mill is busy")

    page = page_of(client, "/alerts?muted=yes")

    (card,) = cards_of(page)
    assert "mill is busy" in card
    assert "Not told while Nothing is measured fires" in card


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", {"firing", "waiting"}),
        ("state=FIRING", {"firing"}),
        ("state=PENDING&severity=critical", {"waiting"}),
        ("severity=info", set()),
        ("state=RESOLVED", {"over"}),
        ("state=anything&muted=perhaps&run=none", {"firing", "waiting"}),
    ],
)
def test_filters_narrow_the_list(client: Client, query: str, shown: set[str]) -> None:
    AlertFactory(summary="firing")
    AlertFactory(summary="waiting", state=AlertState.PENDING, severity="critical")
    AlertFactory(summary="over", state=AlertState.RESOLVED, resolved_at=timezone.now())

    page = page_of(client, f"/alerts?{query}")

    assert {alert.summary for alert in Alert.objects.all() if f"/alerts/{alert.pk}" in page} == shown


def test_alerts_of_a_run_are_found_by_it(client: Client) -> None:
    run: Any = RunFactory(name="digits-grown")
    AlertFactory(run_id=run.pk, summary="its loss leapt")
    AlertFactory(summary="another")

    (card,) = cards_of(page_of(client, f"/alerts?run={run.pk}"))

    assert "its loss leapt" in card
    assert "run digits-grown" in card


def test_more_alerts_than_a_page_has_go_on(client: Client) -> None:
    for place in range(selectors.SHOWN + 3):
        AlertFactory(summary=f"number {place}")

    first = page_of(client, "/alerts")
    after = re.search(r"after=([0-9a-f-]+)", first)
    assert after is not None
    second = page_of(client, f"/alerts?after={after[1]}")

    assert (len(cards_of(first)), len(cards_of(second))) == (selectors.SHOWN, 3)


def test_more_alerts_take_no_more_queries(client: Client) -> None:
    def counted() -> int:
        with CaptureQueriesContext(connection) as queries:
            page_of(client, "/alerts")
        return len(queries)

    alert = disk_alert()
    SilenceFactory()
    counted()
    few = counted()
    for _ in range(12):
        AlertFactory(series_id=alert.series_id, rule_id=alert.rule_id, metric=alert.metric)

    assert counted() == few


def test_without_alerts_the_page_says_what_it_will_show(client: Client) -> None:
    assert "No rule is applied yet" in page_of(client, "/alerts")

    AlertRuleFactory()

    assert "Nothing fires" in page_of(client, "/alerts")
    assert "No alert fits these filters" in page_of(client, "/alerts?severity=info")


def test_what_an_evaluation_finds_is_shown_with_what_it_saw(client: Client) -> None:
    measured("esper_host_cpu_ratio", rising(0.2, 0.97, over=1.0), labels={"host": "mill"}, unit="ratio")
    parameters = {"op": ">", "value": 0.9, "reading": "max", "window_seconds": 300, "least_samples": 1}
    AlertRuleFactory(name="Busy", parameters=parameters, summary="{host} is busy")

    evaluate()

    page = page_of(client, "/alerts")
    (card,) = cards_of(page)
    assert "mill is busy Greatest over 5 min: 97.0 %, threshold 90.0 %" in card
    assert 'class="threshold"' in page


def test_one_about_samples_that_do_not_come_says_how_old_the_newest_is(client: Client) -> None:
    measured("esper_host_cpu_ratio", rising(0.2, 0.97, over=1.0), labels={"host": "mill"}, unit="ratio")
    parameters = {"after_seconds": 60, "forget_seconds": 86400}
    AlertRuleFactory(name="Gone", kind=RuleKind.ABSENCE, parameters=parameters)
    Sample.objects.filter(at__gt=timezone.now() - timedelta(minutes=5)).delete()

    evaluate()

    page = page_of(client, "/alerts")
    (card,) = cards_of(page)
    assert re.search(r"no sample for \d min( \d+ s)?; 1 min is allowed", card, re.IGNORECASE)
    assert '<line class="threshold" x1="58"' not in page, "seconds have no place on an axis of shares"


def test_one_of_the_detector_says_what_was_expected(client: Client) -> None:
    series = measured("esper_host_load", rising(2.0, 9.0, over=0.3), labels={"host": "mill"})
    odd(series, ago=timedelta(minutes=1), value=9.0, low=1.5, high=3.0)
    AlertRuleFactory(name="Odd", kind=RuleKind.ANOMALY, metric="*", parameters={"window_seconds": 600, "score": 0.0})

    evaluate()

    (card,) = cards_of(page_of(client, "/alerts"))
    assert "9 is above everything seen in the last 6 h (1.5 to 3)" in card


# --- One alert


def test_one_alert_tells_its_story(client: Client) -> None:
    alert = disk_alert(acknowledged_at=timezone.now(), note="on it")
    route: Any = AlertRouteFactory(name="operators")
    message(alert, route=route, tries=2)

    page = words_of(page_of(client, f"/alerts/{alert.pk}"))

    story = page[page.index("What happened") :]
    for word in (
        "Began",
        "Fired",
        "Acknowledged",
        "on it",
        "Told over operators",
        "signed webhook, delivered, 2 tries",
    ):
        assert word in story
    assert "asks of esper_host_disk_used_ratio : newest sample > 90.0 %" in page


def test_a_message_that_did_not_arrive_is_not_called_told(client: Client) -> None:
    alert = disk_alert()
    route: Any = AlertRouteFactory(name="operators")
    message(alert, route=route, state=NotificationState.PENDING, problem="no answer")

    page = words_of(page_of(client, f"/alerts/{alert.pk}"))

    assert "Not yet told over operators" in page
    assert "to be sent again: no answer" in page


def test_of_messages_those_about_the_end_say_so(client: Client) -> None:
    alert = disk_alert()
    route: Any = AlertRouteFactory(name="operators")
    for status in ("firing", "resolved"):
        message(alert, route=route, payload={"status": status})

    page = words_of(page_of(client, f"/alerts/{alert.pk}"))

    assert page.count("Told over operators") == page.count("Told of the end over operators") == 1


def test_a_resolved_one_says_how_long_it_lasted_and_asks_for_nothing(client: Client) -> None:
    ended = timezone.now()
    alert: Any = AlertFactory(state=AlertState.RESOLVED, started_at=ended - timedelta(minutes=9), resolved_at=ended)

    page = page_of(client, f"/alerts/{alert.pk}")

    assert "lasted 9 min" in words_of(page)
    assert 'id="acknowledge"' not in page


@pytest.mark.parametrize(("state", "times"), [(AlertState.FIRING, 1), (AlertState.RESOLVED, 2)])
def test_it_says_with_which_value_it_began(client: Client, state: AlertState, times: int) -> None:
    over = {"resolved_at": timezone.now()} if state == AlertState.RESOLVED else {}
    alert = disk_alert(state=state, evidence={"reading": "last", "value": 0.91}, **over)

    page = words_of(page_of(client, f"/alerts/{alert.pk}"))

    assert page.lower().count("newest sample: 91.0 %, threshold 90.0 %") == times, "of what goes on, once: as it began"


def test_earlier_episodes_are_led_to(client: Client) -> None:
    before: Any = AlertFactory(state=AlertState.RESOLVED, resolved_at=timezone.now(), fingerprint="f" * 64)
    alert: Any = AlertFactory(fingerprint="f" * 64)

    assert f'href="/alerts/{before.pk}"' in page_of(client, f"/alerts/{alert.pk}")


def test_an_alert_of_a_rule_that_is_gone_still_shows(client: Client) -> None:
    alert: Any = AlertFactory(value=None, threshold=None, evidence={"values": [1.0, 2.0]})

    assert "is gone" in page_of(client, f"/alerts/{alert.pk}")


def test_there_is_no_page_of_what_is_no_alert(client: Client) -> None:
    assert client.get(f"/alerts/{new_id()}").status_code == 404


# --- Acknowledge and silence


def test_acknowledging_takes_it_off_the_badge(client: Client) -> None:
    alert = disk_alert()

    answer = client.post(f"/alerts/{alert.pk}/acknowledge", {"note": "I look at it", "back": "list"})

    alert.refresh_from_db()
    assert (answer.status_code, answer["Location"]) == (302, "/alerts")
    assert (alert.note, alert.acknowledged_at is not None) == ("I look at it", True)
    assert "firing and not acknowledged" not in page_of(client, "/alerts")


def test_a_resolved_one_cannot_be_acknowledged(client: Client) -> None:
    alert: Any = AlertFactory(state=AlertState.RESOLVED, resolved_at=timezone.now())

    answer = client.post(f"/alerts/{alert.pk}/acknowledge", {"note": "late"})

    assert answer.status_code == 409
    assert "Not done: the alert is resolved" in answer.content.decode()


def test_a_silence_takes_the_labels_that_are_ticked(client: Client) -> None:
    alert: Any = AlertFactory()

    form = {"label": ["alertname", "host"], "hours": "4", "comment": "the disk is swapped"}
    answer = client.post(f"/alerts/{alert.pk}/silence", form)

    silence = Silence.objects.get()
    assert answer.status_code == 302
    assert {matcher["label"] for matcher in silence.matchers} == {"alertname", "host"}
    assert silence.ends_at - silence.starts_at == timedelta(hours=4)


def test_what_a_silence_would_mute_is_shown_before(client: Client) -> None:
    alert: Any = AlertFactory(summary="one")
    AlertFactory(summary="another of the same rule")

    narrow = client.get(f"/alerts/{alert.pk}/silence").content.decode()
    path = f"/alerts/{alert.pk}/silence?chosen=1&label=alertname"
    wide = client.get(path, headers={"HX-Request": "true"}).content.decode()

    assert "1 open alert." in words_of(narrow)
    assert "2 open alerts. another of the same rule one" in words_of(wide)
    assert not Silence.objects.exists()


@pytest.mark.parametrize(
    ("form", "status", "says"),
    [
        ({"label": ["host"], "hours": "4", "comment": ""}, 422, "This field is required"),
        ({"label": ["host"], "hours": "9999", "comment": "x"}, 422, "9999 is not one of the available choices"),
        ({"hours": "4", "comment": "x"}, 409, "Not done: at least one has to ask for something"),
    ],
)
def test_a_silence_that_is_wrong_says_why(client: Client, form: dict[str, Any], status: int, says: str) -> None:
    alert: Any = AlertFactory()

    answer = client.post(f"/alerts/{alert.pk}/silence", form)

    assert answer.status_code == status
    assert says in answer.content.decode()
    assert not Silence.objects.exists()


def test_a_viewer_sees_alerts_and_answers_none() -> None:
    client = Client()
    client.force_login(make_user("vera", role="viewer"))
    alert = disk_alert()

    assert "Acknowledge…" not in page_of(client, "/alerts")
    assert client.post(f"/alerts/{alert.pk}/acknowledge", {}).status_code == 403


# --- Anomalies


def test_what_is_odd_now_says_why_and_what_was_expected(client: Client) -> None:
    series = measured("esper_host_load", rising(2.0, 9.0, over=0.3), labels={"host": "mill"})
    odd(series, ago=timedelta(minutes=10), value=9.0, low=1.5, high=3.0)

    (card,) = cards_of(page_of(client, "/alerts/anomalies"))

    assert "goes on" in card
    assert "9 is above everything seen in the last 6 h (1.5 to 3)" in card
    assert "9 , expected 1.5 to 3" in card
    assert "found by extreme" in card
    assert "1 series is odd now" in words_of(page_of(client, "/alerts/anomalies"))


def test_what_is_over_is_not_called_odd_now(client: Client) -> None:
    series = measured("esper_host_load", rising(2.0, 9.0, over=0.3), labels={"host": "mill"})
    ago = timedelta(minutes=14)
    odd(series, ago=ago, value=9.0, low=1.5, high=3.0, until=timezone.now() - timedelta(minutes=12))

    assert "1 series was odd a moment ago" in words_of(page_of(client, "/alerts/anomalies"))


def test_past_anomalies_are_found_by_series_run_and_component(client: Client) -> None:
    run: Any = RunFactory()
    mine = measured("esper_run_train_loss", rising(1.0, 2.0, over=1.0), labels={"run": str(run.pk)}, run_id=run.pk)
    other = measured("esper_host_load", rising(1.0, 2.0, over=1.0))
    old = timezone.now() - timedelta(hours=2)
    first = odd(mine, ago=timedelta(hours=3), value=2.0, low=0.0, high=1.0, until=old)
    second = odd(other, ago=timedelta(hours=3), value=2.0, low=0.0, high=1.0, until=old, component="shift")

    for query, shown in ((f"run={run.pk}", first), (f"series={other.pk}", second), ("component=shift", second)):
        page = page_of(client, f"/alerts/anomalies?{query}")
        assert re.findall(r'id="p-([0-9a-f-]+)"', page) == [str(shown.pk)]
    assert "No anomaly fits" in page_of(client, f"/alerts/anomalies?run={new_id()}")
    assert "nothing is odd now" in page_of(client, "/alerts/anomalies?component=%00&series=x")


def test_without_series_the_page_of_anomalies_says_what_fills_it(client: Client) -> None:
    assert "Nothing was measured yet" in page_of(client, "/alerts/anomalies")
