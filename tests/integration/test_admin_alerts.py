"""The admin of alerts: what is done to them by steps, rules that people write, silences."""

import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.observability.models import Alert, AlertRule, Silence
from apps.observability.services.rules import install_shipped
from tests.support import factories
from tests.support.curating import YES, url_of

pytestmark = pytest.mark.django_db

RULES = "/admin/observability/alertrule/"
SILENCES = "/admin/observability/silence/"
RULE = {
    "name": "Busy", "description": "", "severity": "warning", "enabled": "on", "kind": "threshold",
    "metric": "esper_host_cpu_ratio", "matchers": "", "parameters": '{"op": ">", "value": 0.9}', "for_seconds": 60,
    "keep_firing_seconds": 0, "summary": "{host} is busy", "remedy": "", "labels": "", "inhibited_by": "",
    "reason": "mill is slow",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _operator(client: Client) -> User:
    user: Any = factories.UserFactory(username="olga", role=Role.OPERATOR)
    client.force_login(user)
    return user


def offered(client: Client, row: Any) -> set[str]:
    return {button["path"].split("/")[-2] for button in client.get(url_of(row)).context["buttons"]}


class TestAlerts:
    @pytest.mark.parametrize(("state", "buttons"), [("FIRING", {"acknowledge", "silence"}), ("RESOLVED", set())])
    def test_one_offers_what_its_state_allows(self, client: Client, state: str, buttons: set[str]) -> None:
        assert offered(client, factories.AlertFactory(state=state)) == buttons

    def test_it_is_acknowledged_with_a_note(self, client: Client) -> None:
        alert: Any = factories.AlertFactory()

        client.post(url_of(alert, "acknowledge"), YES)

        alert.refresh_from_db()
        assert (alert.note, AuditEvent.objects.get(type="alert.acknowledged").reason) == ("because", "because")

    def test_that_goes_while_it_is_evaluated(self, client: Client) -> None:
        """What is measured changes no version of the row."""
        alert: Any = factories.AlertFactory()
        shown = f"{alert.pk}:{alert.row_version}"
        alert.last_seen_at = timezone.now()
        Alert.objects.bulk_update([alert], ["last_seen_at"])

        client.post(url_of(alert, "acknowledge"), {**YES, "shown": shown})

        alert.refresh_from_db()
        assert alert.acknowledged_at is not None

    def test_it_is_silenced_for_hours(self, client: Client) -> None:
        alert: Any = factories.AlertFactory()

        client.post(url_of(alert, "silence"), {**YES, "hours": 3})

        assert Silence.objects.get().comment == "because"

    def test_its_page_says_what_mutes_it_and_what_was_seen(self, client: Client) -> None:
        alert: Any = factories.AlertFactory(labels={"host": "mill"}, evidence={"reading": "mean"})
        silence: Any = factories.SilenceFactory()

        page = client.get(url_of(alert)).content.decode()

        assert f"silence {silence.pk}" in page
        assert "reading: mean" in page

    def test_a_viewer_sees_no_button(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.VIEWER, is_staff=True))

        assert offered(client, factories.AlertFactory()) == set()


class TestRules:
    def test_one_is_written_by_the_service(self, client: Client) -> None:
        client.post(f"{RULES}add/", RULE)

        rule = AlertRule.objects.get()
        assert (rule.parameters["reading"], rule.matchers, rule.for_seconds) == ("last", [], 60)
        assert AuditEvent.objects.get(type="alert_rule.created").reason == "mill is slow"

    @pytest.mark.parametrize(
        ("field", "value", "says"),
        [
            ("parameters", '{"op": "~", "value": 1}', "/parameters/op: must be one of"),
            ("parameters", "{", "valid JSON"),
            ("matchers", '[{"label": "a b", "op": "=", "value": ""}]', "/matchers/0/label"),
            ("labels", "[1]", "must be a JSON object"),
            ("inhibited_by", '[{"rule": "nobody", "equal": []}]', "there is no rule"),
            ("summary", "{value", "brace"),
            ("metric", "a b", "name of a metric"),
            ("for_seconds", 10**9, "less than or equal to"),
        ],
    )
    def test_a_value_that_is_refused_stands_at_its_field(
        self, client: Client, field: str, value: Any, says: str
    ) -> None:
        form = client.post(f"{RULES}add/", {**RULE, field: value}).context["adminform"].form

        assert says in form.errors[field][0]
        assert not AlertRule.objects.exists()

    def test_a_change_asks_why(self, client: Client) -> None:
        rule: Any = factories.AlertRuleFactory()

        client.post(url_of(rule), {**RULE, "reason": ""})
        rule.refresh_from_db()
        before = rule.name
        client.post(url_of(rule), RULE)

        rule.refresh_from_db()
        assert (before != "Busy", rule.name) == (True, "Busy")

    def test_a_shipped_one_is_disabled_enabled_and_reset(self, client: Client) -> None:
        install_shipped(actor=SYSTEM)
        rule = AlertRule.objects.get(shipped="loss-spike")

        assert offered(client, rule) == {"disable", "reset"}
        client.post(url_of(rule, "disable"), YES)
        rule.refresh_from_db()
        assert rule.enabled is False
        client.post(url_of(rule, "reset"), YES)
        rule.refresh_from_db()
        assert rule.enabled is True

    def test_one_that_somebody_wrote_is_removed(self, client: Client) -> None:
        client.post(url_of(factories.AlertRuleFactory(), "remove"), YES)

        assert not AlertRule.objects.exists()

    def test_who_may_only_read_sees_what_it_says(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.VIEWER, is_staff=True))

        assert "esper_host_cpu_ratio" in client.get(url_of(factories.AlertRuleFactory())).content.decode()


class TestSilences:
    def test_one_is_made_for_hours_and_ended(self, client: Client) -> None:
        matchers = [{"label": "host", "op": "=", "value": "mill"}]
        answers = {"matchers": json.dumps(matchers), "hours": 4, "comment": "new disk"}

        client.post(f"{SILENCES}add/", answers)

        silence = Silence.objects.get()
        assert (silence.matchers, silence.comment) == (matchers, "new disk")
        client.post(url_of(silence, "end"), YES)
        silence.refresh_from_db()
        assert silence.ends_at <= timezone.now()
        assert offered(client, silence) == set()

    def test_one_of_everything_is_refused_at_its_field(self, client: Client) -> None:
        answers = {"matchers": '[{"label": "host", "op": "=~", "value": ".*"}]', "hours": 4, "comment": "new disk"}

        form = client.post(f"{SILENCES}add/", answers).context["adminform"].form

        assert "ask for something" in form.errors["matchers"][0]
        assert not Silence.objects.exists()
