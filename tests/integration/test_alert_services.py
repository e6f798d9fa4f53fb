"""Alert rules, silences and what mutes alerts, as services and selectors have them."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert, AlertRule, Silence
from apps.observability.rules.shipped import SHIPPED
from apps.observability.selectors.alerts import counts, muted, mutings
from apps.observability.selectors.observing import judge
from apps.observability.services import rules
from apps.observability.services.alerts import CHANGED, DISABLED, REMOVED, acknowledge
from apps.observability.services.silences import create_silence, end_silence, silence_alert
from tests.support.alerting import look, measure
from tests.support.factories import AlertFactory, AlertRuleFactory, SilenceFactory

pytestmark = pytest.mark.django_db

OF_MILL = [{"label": "host", "op": "=", "value": "mill"}]


def alert_of(rule: AlertRule, **values: Any) -> Alert:
    """An alert of ``rule`` on the host mill."""
    labels = {"alertname": rule.name, "severity": rule.severity, "host": "mill"}
    alert: Any = AlertFactory(**{"rule_id": rule.pk, "rule_name": rule.name, "labels": labels, **values})
    return alert


def rule_with(**settings: Any) -> AlertRule:
    rule: Any = AlertRuleFactory(**settings)
    return rule


class TestShipped:
    def test_they_are_installed_once(self) -> None:
        assert len(rules.install_shipped(actor=SYSTEM)) == len(SHIPPED) == AlertRule.objects.count()
        assert rules.install_shipped(actor=SYSTEM) == []

    def test_what_an_operator_changed_stays_and_what_is_missing_comes(self) -> None:
        rules.install_shipped(actor=SYSTEM)
        mine = AlertRule.objects.get(shipped="disk-nearly-full")
        rules.change_rule(rule=mine, severity="info", actor=SYSTEM)
        AlertRule.objects.get(shipped="loss-spike").delete()

        (installed,) = rules.install_shipped(actor=SYSTEM)

        mine.refresh_from_db()
        assert (installed.shipped, mine.severity) == ("loss-spike", "info")

    def test_a_name_that_somebody_took_is_left_to_them(self) -> None:
        AlertRuleFactory(name="Loss spike")

        rules.install_shipped(actor=SYSTEM)

        assert AlertRule.objects.get(shipped="loss-spike").name == "Loss spike (shipped)"

    def test_many_rules_of_others_keep_none_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MOST_RULES", 1)
        for name in ("Loss spike", "Loss spike (shipped)"):
            AlertRuleFactory(name=name)

        assert len(rules.install_shipped(actor=SYSTEM)) == len(SHIPPED)
        assert AlertRule.objects.get(shipped="loss-spike").name == "loss-spike"

    def test_one_is_reset_to_be_inhibited_by_what_its_inhibitor_is_called_now(self) -> None:
        rules.install_shipped(actor=SYSTEM)
        rules.change_rule(rule=AlertRule.objects.get(shipped="disk-nearly-full"), name="Disk", actor=SYSTEM)
        soon = AlertRule.objects.get(shipped="disk-full-soon")
        assert soon.inhibited_by == [{"rule": "Disk", "equal": ["host", "disk"]}]

        rules.change_rule(rule=soon, inhibited_by=[], actor=SYSTEM)
        rules.reset_rule(rule=soon, actor=SYSTEM)

        soon.refresh_from_db()
        assert soon.inhibited_by == [{"rule": "Disk", "equal": ["host", "disk"]}]

    def test_all_of_them_can_be_applied(self) -> None:
        rules.install_shipped(actor=SYSTEM)
        measure(0.95, name="esper_host_disk_used_ratio", host="mill", disk="/")

        assert [judged.problem for judged in judge(AlertRule.objects.all(), timezone.now()) if judged.problem] == []


class TestChanging:
    @pytest.mark.parametrize(
        ("change", "because"),
        [
            ({"parameters": {"op": ">", "value": 0.99}}, CHANGED),
            ({"severity": "critical"}, CHANGED),
            ({"name": "Another"}, CHANGED),
            ({"enabled": False}, DISABLED),
        ],
    )
    def test_it_resolves_the_alerts_of_what_the_rule_was(self, change: dict[str, Any], because: str) -> None:
        rule = rule_with()
        alert = alert_of(rule)

        rules.change_rule(rule=rule, actor=SYSTEM, **change)

        alert.refresh_from_db()
        assert (alert.state, alert.evidence["resolved_because"]) == (AlertState.RESOLVED, because)

    @pytest.mark.parametrize("change", [{"remedy": "reboot"}, {"keep_firing_seconds": 60}, {"summary": "{host}"}])
    def test_what_the_rule_does_not_judge_by_resolves_nothing(self, change: dict[str, Any]) -> None:
        rule = rule_with()
        alert = alert_of(rule)

        rules.change_rule(rule=rule, actor=SYSTEM, **change)

        alert.refresh_from_db()
        assert alert.state == AlertState.FIRING

    def test_the_same_again_is_no_event(self) -> None:
        rule = rule_with()

        rules.change_rule(rule=rule, actor=SYSTEM, name=rule.name, parameters={"op": ">", "value": 0.9})

        assert not AuditEvent.objects.filter(type="alert_rule.changed").exists()

    def test_a_new_name_is_written_where_the_rule_inhibits(self) -> None:
        disk = rule_with(name="Disk")
        other = rule_with(inhibited_by=[{"rule": "Disk", "equal": ["host"]}])

        rules.change_rule(rule=disk, name="Storage", actor=SYSTEM)

        other.refresh_from_db()
        assert other.inhibited_by == [{"rule": "Storage", "equal": ["host"]}]

    def test_a_rule_that_is_removed_takes_its_alerts_along(self) -> None:
        rule = rule_with()
        alert = alert_of(rule)

        rules.remove_rule(rule=rule, actor=SYSTEM)

        alert.refresh_from_db()
        assert (alert.state, alert.evidence["resolved_because"]) == (AlertState.RESOLVED, REMOVED)

    def test_there_are_not_more_rules_than_can_be_applied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rules, "MOST_RULES", 1)
        AlertRuleFactory()

        with pytest.raises(Conflict, match="already"):
            rules.create_rule(name="b", kind="non_finite", metric="esper_run_train_loss", parameters={}, actor=SYSTEM)

    @pytest.mark.parametrize("name", ["a\0b", "\ud800", " "])
    def test_a_text_that_cannot_be_stored_is_refused(self, name: str) -> None:
        with pytest.raises(Invalid) as refused:
            rules.create_rule(name=name, kind="non_finite", metric="loss", parameters={}, actor=SYSTEM)

        assert [error.pointer for error in refused.value.errors] == ["/name"]


class TestMuting:
    def test_nothing_mutes_an_alert_by_itself(self) -> None:
        assert not muted(alert_of(rule_with()))

    @pytest.mark.parametrize(("hours", "is_muted"), [(-2, False), (-0.5, True), (1, False)])
    def test_a_silence_mutes_what_matches_while_it_holds(self, hours: float, is_muted: bool) -> None:
        start = timezone.now() + timedelta(hours=hours)
        silence: Any = SilenceFactory(starts_at=start, ends_at=start + timedelta(hours=1))

        assert muted(alert_of(rule_with())).silences == ((silence.pk,) if is_muted else ())

    def test_a_silence_of_others_mutes_nothing(self) -> None:
        SilenceFactory(matchers=[*OF_MILL, {"label": "severity", "op": "=", "value": "critical"}])

        assert not muted(alert_of(rule_with()))

    def test_a_rule_that_fires_with_the_same_labels_inhibits(self) -> None:
        full, soon = rule_with(name="Full"), rule_with(inhibited_by=[{"rule": "Full", "equal": ["host"]}])
        alert, inhibitor = alert_of(soon), alert_of(full)

        found = mutings([alert, inhibitor])

        assert (found[alert.pk].inhibited_by, bool(found[inhibitor.pk])) == ((inhibitor.pk,), False)

    @pytest.mark.parametrize(
        "values", [{"state": AlertState.PENDING}, {"state": AlertState.RESOLVED}, {"labels": {"host": "barn"}}]
    )
    def test_one_that_does_not_fire_or_is_elsewhere_inhibits_nothing(self, values: dict[str, Any]) -> None:
        full, soon = rule_with(name="Full"), rule_with(inhibited_by=[{"rule": "Full", "equal": ["host"]}])
        alert_of(full, **values)

        assert not muted(alert_of(soon))

    def test_any_number_of_alerts_takes_three_queries(self, django_assert_num_queries: Any) -> None:
        rule_with(name="Full")
        soon = rule_with(inhibited_by=[{"rule": "Full", "equal": ["host"]}])
        SilenceFactory()
        found = [alert_of(soon) for _ in range(5)]

        with django_assert_num_queries(3):
            assert all(mutings(found).values())


class TestSilencing:
    def test_the_next_episode_of_the_alert_is_silent_too(self) -> None:
        rule = rule_with()
        measure(0.95, host="mill")
        (alert,) = look([rule], timezone.now() + timedelta(seconds=5))

        silence_alert(alert=alert, duration=timedelta(hours=1), comment="new disk", actor=SYSTEM)

        assert muted(alert_of(rule, labels=alert.labels))
        assert not muted(alert_of(rule, labels={**alert.labels, "host": "barn"}))

    def test_one_that_is_ended_mutes_nothing_more(self) -> None:
        silence: Any = SilenceFactory()
        alert = alert_of(rule_with())

        end_silence(silence=silence, actor=SYSTEM)

        assert not muted(alert)
        with pytest.raises(Conflict, match="over"):
            end_silence(silence=silence, actor=SYSTEM)

    @pytest.mark.parametrize(
        "times",
        [
            {"duration": timedelta(days=400)},
            {"duration": timedelta.max},
            {"duration": timedelta(seconds=-1)},
            {"ends_at": timezone.now() - timedelta(hours=1)},
            {},
            {"duration": timedelta(hours=1), "ends_at": timezone.now() + timedelta(hours=1)},
        ],
    )
    def test_times_that_do_not_fit_are_refused(self, times: dict[str, timedelta | datetime]) -> None:
        settings: Any = {"matchers": OF_MILL, "comment": "new disk", **times}

        with pytest.raises(Invalid):
            create_silence(**settings, actor=SYSTEM)

        assert not Silence.objects.exists()


def test_the_newer_note_of_an_acknowledgement_counts() -> None:
    alert = alert_of(rule_with())

    for note in ("looking", "it is the fan"):
        acknowledge(alert=alert, note=note, actor=SYSTEM)

    alert.refresh_from_db()
    assert alert.note == "it is the fan"
    assert AuditEvent.objects.filter(type="alert.acknowledged").count() == 2


def test_open_alerts_are_counted_with_zeros() -> None:
    rule = rule_with()
    alert_of(rule)
    alert_of(rule, severity="critical", state=AlertState.PENDING)
    alert_of(rule, state=AlertState.RESOLVED)

    found = counts()

    assert {key: count for key, count in found.items() if count} == {
        ("FIRING", "warning"): 1, ("PENDING", "critical"): 1,
    }  # fmt: skip
    assert len(found) == 6
