"""Rules applied to stored samples: when alerts begin, fire, go on and are resolved, once each, whoever evaluates."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.observability import tasks
from apps.observability.collectors.alerts import evaluated
from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert, AlertRule, Anomaly, Notification, RuleKind, Series
from apps.observability.rules.kinds import Reads
from apps.observability.rules.shipped import SHIPPED
from apps.observability.selectors import observing
from apps.observability.services import alerts, evaluating
from tests.support.alerting import CPU, look, measure
from tests.support.factories import AlertFactory, AlertRouteFactory, AlertRuleFactory, workspace

pytestmark = pytest.mark.django_db

PENDING, FIRING, RESOLVED = AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED


@pytest.fixture
def now() -> datetime:
    """A little later than the samples that a test stores next."""
    return timezone.now() + timedelta(seconds=5)


def rule_with(**settings: Any) -> AlertRule:
    rule: Any = AlertRuleFactory(**settings)
    return rule


def after(moment: datetime, seconds: float) -> datetime:
    return moment + timedelta(seconds=seconds)


def events(alert: Alert) -> list[str]:
    return list(AuditEvent.objects.filter(subject_id=str(alert.pk)).order_by("id").values_list("type", flat=True))


class TestBeginning:
    def test_a_rule_without_a_waiting_time_fires_at_once_for_each_series_that_meets_it(self, now: datetime) -> None:
        rule = rule_with(name="Busy", summary="{host} is at {value} of {threshold}", labels={"team": "ml"})
        measure(0.95, host="mill")
        measure(0.2, host="barn")

        (alert,) = look([rule], now)

        assert (alert.state, alert.summary, alert.value, alert.threshold) == (
            FIRING,
            "mill is at 0.95 of 0.9",
            0.95,
            0.9,
        )
        assert alert.labels == {"host": "mill", "team": "ml", "alertname": "Busy", "severity": "warning"}
        assert alert.series_id == Series.objects.get(labels__host="mill").pk
        assert events(alert) == ["alert.fired"]

    def test_one_with_a_waiting_time_fires_when_the_condition_has_held_for_as_long(self, now: datetime) -> None:
        rule = rule_with(for_seconds=60)
        measure(0.95, host="mill")

        states = [look([rule], after(now, seconds))[0].state for seconds in (0, 45, 60)]

        assert states == [PENDING, PENDING, FIRING]
        alert = Alert.objects.get()
        assert (alert.started_at, alert.fired_at) == (now, after(now, 60))
        assert events(alert) == ["alert.raised", "alert.fired"]

    def test_what_holds_again_is_the_same_alert(self, now: datetime) -> None:
        rule = rule_with()
        measure(0.95, host="mill")

        look([rule], now)
        measure(0.99, host="mill")
        (alert,) = look([rule], after(now, 15))

        assert (alert.value, alert.last_true_at, events(alert)) == (0.99, after(now, 15), ["alert.fired"])

    def test_matchers_choose_the_series(self, now: datetime) -> None:
        rule = rule_with(matchers=[{"label": "host", "op": "!=", "value": "mill"}])
        measure(0.95, host="mill")
        measure(0.95, host="barn")

        assert [alert.labels["host"] for alert in look([rule], now)] == ["barn"]

    def test_series_that_the_rule_gives_the_same_labels_are_one_problem(self, now: datetime) -> None:
        rule = rule_with(labels={"host": "all"})
        measure(0.1, host="mill")
        measure(0.95, host="barn")
        measure(0.97, host="shed")

        (alert,) = look([rule], now)

        assert (alert.value, alert.labels["host"]) == (0.95, "all")

    def test_no_samples_begin_nothing(self, now: datetime) -> None:
        assert look([rule_with()], now) == []

    def test_a_value_that_is_no_number_is_told_in_words(self, now: datetime) -> None:
        rule = rule_with(kind=RuleKind.NON_FINITE, parameters={"window_seconds": 300}, summary="the loss is {value}")
        measure(float("nan"), host="mill")

        (alert,) = look([rule], now)

        assert (alert.summary, alert.value, alert.evidence["value"]) == ("the loss is nan", None, "nan")


def test_what_cannot_be_read_for_one_rule_is_read_for_the_others(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing.reading, "query", lambda **asked: 1 / 0)
    broken = rule_with(name="Soon full", kind=RuleKind.FORECAST, parameters={"value": 0.99})
    measure(0.95, host="mill")

    found = look([broken, rule_with(name="Full")], now)

    assert {alert.rule_name: alert.labels.get("problem", "") for alert in found} == {
        "Soon full": "evaluation",
        "Full": "",
    }


def test_what_fires_is_told_even_if_an_evaluation_fails_as_a_whole(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    AlertFactory()
    AlertRouteFactory(group_wait_seconds=0)
    monkeypatch.setattr(evaluating, "_evaluate_all", lambda now: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        evaluating.evaluate()

    assert Notification.objects.count() == 1


class TestTooManySeries:
    def test_a_rule_that_looks_back_in_more_than_can_be_read_says_so_and_stops_no_other(
        self, now: datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(observing.MOST_SERIES, Reads.SAMPLES, 1)
        wide = rule_with(name="Wide", parameters={"op": ">", "value": 0.9, "reading": "mean"})
        measure(0.95, host="mill")
        measure(0.95, host="barn")

        found = look([wide, rule_with(name="Narrow")], now)

        problems = [alert for alert in found if alert.rule_id == wide.pk]
        assert [alert.labels["problem"] for alert in problems] == ["evaluation"]
        assert "it looks back in 2 series, of at most 1" in problems[0].summary
        assert len(found) == 3


class TestEnding:
    def test_what_only_waited_is_resolved_at_once(self, now: datetime) -> None:
        rule = rule_with(for_seconds=60, keep_firing_seconds=600)
        measure(0.95, host="mill", until=after(now, -15))
        look([rule], now)
        measure(0.1, host="mill")

        (alert,) = look([rule], after(now, 15))

        assert (alert.state, alert.fired_at, events(alert)) == (RESOLVED, None, ["alert.raised", "alert.resolved"])

    def test_what_fires_is_resolved_when_it_has_been_over_for_as_long_as_the_rule_says(self, now: datetime) -> None:
        rule = rule_with(keep_firing_seconds=60)
        measure(0.95, host="mill", until=after(now, -15))
        look([rule], now)
        measure(0.1, host="mill")

        found = [look([rule], after(now, seconds))[0] for seconds in (15, 60, 75)]

        assert [alert.state for alert in found] == [FIRING, FIRING, RESOLVED]
        assert [alert.over_since for alert in found[:2]] == [after(now, 15)] * 2
        assert found[-1].evidence["resolved_because"] == evaluating.OVER

    def test_one_that_holds_again_meanwhile_fires_on(self, now: datetime) -> None:
        rule = rule_with(keep_firing_seconds=60)
        measure(0.95, 0.1, 0.95, host="mill", every=5)
        alert = look([rule], now)[0]
        Alert.objects.filter(pk=alert.pk).update(over_since=now)

        (alert,) = look([rule], after(now, 300))

        assert (alert.state, alert.over_since) == (FIRING, None)

    def test_the_next_episode_is_another_alert(self, now: datetime) -> None:
        rule = rule_with()
        measure(0.95, host="mill", until=after(now, -30))
        look([rule], now)
        measure(0.1, host="mill", until=after(now, -15))
        look([rule], after(now, 15))
        measure(0.95, host="mill")

        first, second = look([rule], after(now, 30))

        assert (first.state, second.state, first.fingerprint) == (RESOLVED, FIRING, second.fingerprint)

    def test_a_series_that_is_over_takes_its_alert_along(self, now: datetime) -> None:
        rule = rule_with(keep_firing_seconds=3600)
        measure(0.95, host="mill")
        look([rule], now)

        (alert,) = look([rule], after(now, observing.STALE + 60))

        assert (alert.state, alert.evidence["resolved_because"]) == (RESOLVED, evaluating.GONE)

    def test_too_little_data_changes_nothing(self, now: datetime) -> None:
        rule = rule_with(parameters={"op": ">", "value": 0.9, "reading": "mean", "window_seconds": 60})
        measure(0.95, host="mill")
        look([rule], now)

        (alert,) = look([rule], after(now, 120))

        assert (alert.state, alert.last_true_at, alert.last_seen_at) == (FIRING, now, after(now, 120))

    def test_one_that_waited_while_nobody_looked_begins_anew(self, now: datetime) -> None:
        rule = rule_with(for_seconds=60)
        measure(0.95, host="mill")
        look([rule], now)

        (old, *_) = look([rule], after(now, 240))
        assert (old.state, old.evidence["resolved_because"]) == (RESOLVED, evaluating.UNASKED)
        assert look([rule], after(now, 255))[-1].state == PENDING


class TestAbsence:
    PARAMETERS = {"after_seconds": 120, "forget_seconds": 300}

    def test_a_series_that_falls_silent_fires_until_it_is_forgotten(self, now: datetime) -> None:
        rule = rule_with(kind=RuleKind.ABSENCE, parameters=self.PARAMETERS)
        measure(1.0, host="mill")

        assert look([rule], after(now, 60)) == []
        assert [alert.state for alert in look([rule], after(now, 130))] == [FIRING]

    def test_no_series_at_all_fires_with_the_labels_that_were_asked_for(self, now: datetime) -> None:
        matchers = [{"label": "host", "op": "=", "value": "mill"}]
        rule = rule_with(kind=RuleKind.ABSENCE, parameters=self.PARAMETERS, matchers=matchers)

        (alert,) = look([rule], now)

        assert (alert.series_id, alert.labels["host"]) == (None, "mill")
        measure(1.0, host="mill")
        assert [alert.state for alert in look([rule], timezone.now())] == [RESOLVED]


def find_anomaly(at: datetime, host: str) -> Anomaly:
    series = Series.objects.get(name=CPU, labels={"host": host})
    return Anomaly.objects.create(
        workspace=workspace(),
        series=series,
        at=at,
        until=at,
        value=9.0,
        score=0.9,
        component="range",
        explanation="odd",
    )


class TestAnomalies:
    def test_one_of_any_metric_fires_and_is_over_when_its_window_is(self, now: datetime) -> None:
        rule = rule_with(kind=RuleKind.ANOMALY, metric="*", parameters={"window_seconds": 60}, name="Odd")
        measure(9.0, host="mill")
        find_anomaly(now, "mill")

        (alert,) = look([rule], now)
        assert (alert.state, alert.metric, alert.labels["metric"], alert.evidence["component"]) == (
            FIRING, CPU, CPU, "range",
        )  # fmt: skip
        assert [alert.state for alert in look([rule], after(now, 61))] == [RESOLVED]

    def test_matchers_choose_the_series(self, now: datetime) -> None:
        matchers = [{"label": "host", "op": "=", "value": "barn"}]
        rule = rule_with(kind=RuleKind.ANOMALY, metric=CPU, matchers=matchers, parameters={})
        for host in ("mill", "barn"):
            measure(9.0, host=host)
            find_anomaly(now, host)

        assert [alert.labels["host"] for alert in look([rule], now)] == ["barn"]


def test_a_forecast_reads_the_averages_of_its_window(now: datetime) -> None:
    rule = rule_with(kind=RuleKind.FORECAST, parameters={"value": 0.95, "hours": 24, "window_seconds": 3600})
    measure(*(0.5 + 0.001 * place for place in range(120)), host="mill", every=30)
    measure(*(0.5 for _ in range(120)), host="barn", every=30)

    (alert,) = look([rule], now)

    assert alert.labels["host"] == "mill"
    assert 2.5 < alert.evidence["reaches_in_hours"] < 3.5


def test_a_run_that_ends_within_minutes_is_not_said_to_grow_at_too_high_a_cost(now: datetime) -> None:
    shipped = SHIPPED["training-overhead"]
    rule = rule_with(
        kind=shipped.kind, metric=shipped.metric, parameters=shipped.parameters, for_seconds=shipped.for_seconds
    )
    measure(*[0.6] * 12, name=shipped.metric, every=20, run="short")
    look([rule], now)

    for minutes in range(2, 24, 2):
        look([rule], after(now, 60 * minutes))

    assert [(alert.state, alert.fired_at) for alert in Alert.objects.all()] == [(RESOLVED, None)]


class TestEvaluate:
    def test_the_task_installs_the_shipped_rules_and_a_platform_without_samples_is_only_told_silent(self) -> None:
        tasks.evaluate_alerts()

        assert AlertRule.objects.count() == len(SHIPPED)
        assert [(alert.rule_name, alert.state) for alert in Alert.objects.all()] == [("Nothing is measured", PENDING)]

    def test_it_applies_every_enabled_rule_and_writes_down_how_long_that_took(self) -> None:
        on, off = rule_with(), rule_with(enabled=False)
        measure(0.95, host="mill")

        evaluating.evaluate()

        assert set(Alert.objects.values_list("rule_id", flat=True)) == {on.pk} != {off.pk}
        assert {family.name for family in evaluated()} == {
            "esper_alert_evaluation_seconds", "esper_alert_evaluation_age_seconds",
        }  # fmt: skip

    @pytest.mark.parametrize(("change", "because"), [("disable", alerts.DISABLED), ("delete", alerts.REMOVED)])
    def test_alerts_of_a_rule_that_is_not_applied_are_resolved(self, change: str, because: str) -> None:
        rule = rule_with()
        measure(0.95, host="mill")
        evaluating.evaluate()
        AlertRule.objects.filter(pk=rule.pk).update(enabled=False)
        if change == "delete":
            AlertRule.objects.filter(pk=rule.pk).delete()

        evaluating.evaluate()

        alert = Alert.objects.get()
        assert (alert.state, alert.evidence["resolved_because"]) == (RESOLVED, because)

    def test_a_rule_that_cannot_be_applied_says_so_and_stops_no_other(self) -> None:
        broken, good = rule_with(name="a", parameters={"op": "~"}), rule_with(name="b")
        measure(0.95, host="mill")

        evaluating.evaluate()
        evaluating.evaluate()

        problem = Alert.objects.get(rule_id=broken.pk)
        assert (problem.state, problem.labels["problem"]) == (FIRING, "evaluation")
        assert "The rule a has a problem" in problem.summary
        assert Alert.objects.filter(rule_id=good.pk, state=FIRING).count() == 1

        AlertRule.objects.filter(pk=broken.pk).update(parameters={"op": ">", "value": 2.0})
        evaluating.evaluate()
        problem.refresh_from_db()
        assert problem.state == RESOLVED

    def test_one_whose_alerts_cannot_be_written_says_so_and_stops_no_other(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken, good = rule_with(name="a"), rule_with(name="b")
        measure(0.95, host="mill")
        begin = alerts.begin

        def fails(*, rule: AlertRule, sighting: observing.Sighting, now: datetime) -> Alert:
            if rule.pk == broken.pk and sighting.series:
                raise DatabaseError("the disk is full")
            return begin(rule=rule, sighting=sighting, now=now)

        monkeypatch.setattr(alerts, "begin", fails)
        evaluating.evaluate()

        assert "the disk is full" in Alert.objects.get(rule_id=broken.pk).summary
        assert Alert.objects.filter(rule_id=good.pk, state=FIRING).count() == 1

    def test_series_of_runs_that_are_long_over_are_passed_over(self, now: datetime) -> None:
        rule = rule_with(kind=RuleKind.ABSENCE, parameters={"after_seconds": 120, "forget_seconds": 300})
        measure(1.0, host="mill", until=now - timedelta(seconds=200))
        assert len(look([rule], now)) == 1

        Series.objects.update(last_at=now - timedelta(days=2))
        assert [sighting.series for sighting in observing.judge([rule], now)[0].sightings] == [None]

    def test_it_raises_at_most_so_many_alerts_of_a_rule_and_tells_of_the_rest_by_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluating, "MOST_OPEN", 3)
        rule = rule_with()
        for number in range(5):
            measure(0.95, host=f"host-{number}")

        evaluating.evaluate()
        evaluating.evaluate()

        labels = [alert.labels for alert in Alert.objects.filter(rule_id=rule.pk)]
        assert sum("host" in each for each in labels) == 3
        assert [each.get("problem") for each in labels if "host" not in each] == ["too_many"]

    def test_a_rule_that_changed_since_it_was_judged_is_not_applied(self, now: datetime) -> None:
        rule = rule_with()
        measure(0.95, host="mill")
        (judged,) = observing.judge([rule], now)
        AlertRule.objects.get(pk=rule.pk).save()

        evaluating.apply(judged=judged, now=now)

        assert not Alert.objects.exists()

    def test_queries_do_not_grow_with_rules_that_see_nothing(
        self, django_assert_max_num_queries: Any, now: datetime
    ) -> None:
        rules = [rule_with() for _ in range(30)]
        rules += [rule_with(parameters={"op": ">", "value": 0.9, "reading": "mean"}) for _ in range(30)]
        for number in range(10):
            measure(0.1, host=f"host-{number}")

        with django_assert_max_num_queries(4):
            assert len(observing.judge(rules, now)) == 60


def test_the_database_refuses_a_second_open_alert_of_the_same_problem() -> None:
    alert: Any = AlertFactory()

    with pytest.raises(Exception, match="alert_open_once"), transaction.atomic():
        AlertFactory(fingerprint=alert.fingerprint)
