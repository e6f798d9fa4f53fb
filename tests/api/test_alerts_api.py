"""`/alerts`, `/alert-rules`, `/silences`: what is wrong, what is told, and what is silenced."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.accounts.roles import Role
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert, AlertRule, Silence
from apps.observability.services.rules import install_shipped
from tests.api.conftest import Caller
from tests.support.alerting import CPU, measure
from tests.support.factories import AlertFactory, AlertRuleFactory, SilenceFactory
from tests.support.problems import assert_problem

pytestmark = pytest.mark.django_db

ALERTS, RULES, SILENCES = "/api/v1/alerts", "/api/v1/alert-rules", "/api/v1/silences"
BUSY = {"name": "Busy", "kind": "threshold", "metric": CPU, "parameters": {"op": ">", "value": 0.9}}
OF_MILL = [{"label": "host", "op": "=", "value": "mill"}]


def post(client: Caller, path: str, body: Any = None) -> Any:
    return client.post(path, body or {}, format="json")


def patch(client: Caller, path: str, body: Mapping[str, Any]) -> Any:
    return client.patch(path, body, format="json", headers={"If-Match": client.get(path)["ETag"]})


def alert_of(host: str, **values: Any) -> Alert:
    alert: Any = AlertFactory(labels={"alertname": "A host is busy", "severity": "warning", "host": host}, **values)
    return alert


class TestAlerts:
    @pytest.mark.parametrize(
        ("query", "hosts"),
        [
            ("state=FIRING&state=PENDING", {"waits", "seen", "muted", "grave"}),
            ("state=RESOLVED", {"over"}),
            ("severity=critical", {"grave"}),
            ("muted=true", {"muted"}),
            ("muted=false", {"waits", "seen", "grave"}),
            ("acknowledged=true", {"seen"}),
            ("state=FIRING&acknowledged=false", {"muted", "grave"}),
        ],
    )
    def test_they_are_found_by_what_they_are(self, admin: Caller, query: str, hosts: set[str]) -> None:
        alert_of("waits", state=AlertState.PENDING)
        alert_of("over", state=AlertState.RESOLVED)
        alert_of("seen", acknowledged_at=timezone.now())
        alert_of("grave", severity="critical")
        alert_of("muted")
        SilenceFactory(matchers=[{"label": "host", "op": "=", "value": "muted"}])

        found = admin.get(f"{ALERTS}?{query}").json()["results"]

        assert {alert["labels"]["host"] for alert in found} == hosts

    def test_those_of_a_rule_or_a_run_are_found(self, admin: Caller) -> None:
        alert, _ = alert_of("mill", run_id=new_id()), alert_of("barn")

        for query in ({"rule": str(alert.rule_id)}, {"run": str(alert.run_id)}):
            assert [found["id"] for found in admin.get(ALERTS, query).json()["results"]] == [str(alert.pk)]

    def test_one_says_what_mutes_it(self, admin: Caller) -> None:
        alert, silence = alert_of("mill"), SilenceFactory(matchers=OF_MILL)

        answer = admin.get(f"{ALERTS}/{alert.pk}")

        assert answer.json()["muted_by"] == {"silences": [str(silence.pk)], "inhibited_by": []}
        Silence.objects.all().delete()
        assert admin.get(f"{ALERTS}/{alert.pk}", headers={"If-None-Match": answer["ETag"]}).status_code == 200

    def test_who_has_seen_it_says_so_with_a_note(self, admin: Caller) -> None:
        alert = alert_of("mill")

        answer = post(admin, f"{ALERTS}/{alert.pk}/acknowledge", {"note": "the fan is broken"})

        assert answer.json()["note"] == "the fan is broken"
        alert.refresh_from_db()
        assert alert.acknowledged_by_id is not None

    def test_what_is_resolved_needs_no_acknowledgement(self, admin: Caller) -> None:
        assert_problem(post(admin, f"{ALERTS}/{alert_of('mill', state='RESOLVED').pk}/acknowledge"), 409, "resolved")

    def test_it_is_silenced_by_exactly_its_labels(self, admin: Caller) -> None:
        alert, other = alert_of("mill"), alert_of("barn")

        answer = post(admin, f"{ALERTS}/{alert.pk}/silence", {"hours": 2, "comment": "new disk"})

        assert (answer.status_code, answer.json()["state"]) == (201, "active")
        silence = Silence.objects.get()
        assert silence.ends_at - silence.starts_at == timedelta(hours=2)
        assert admin.get(answer["Location"]).json()["alerts"] == [str(alert.pk)] != [str(other.pk)]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"hours": 0, "comment": "x"}, "/hours"),
            ({"hours": 1e6, "comment": "x"}, "/hours"),
            ({"hours": "1", "comment": "x"}, "/hours"),
            ({"hours": 1}, "/comment"),
            ({"hours": 1, "comment": " "}, "/comment"),
        ],
    )
    def test_a_wrong_silence_is_named(self, admin: Caller, body: Mapping[str, Any], pointer: str) -> None:
        assert_problem(post(admin, f"{ALERTS}/{alert_of('mill').pk}/silence", body), 400, "", pointer)
        assert not Silence.objects.exists()


class TestRules:
    def test_one_is_written_with_the_defaults_of_its_kind(self, admin: Caller) -> None:
        answer = post(admin, RULES, {**BUSY, "matchers": OF_MILL, "labels": {"team": "ml"}, "for_seconds": 60})

        assert answer.status_code == 201
        rule = admin.get(answer["Location"]).json()
        assert rule["parameters"] == {
            "op": ">", "value": 0.9, "reading": "last", "window_seconds": 300, "least_samples": 1,
        }  # fmt: skip
        assert (rule["shipped"], rule["enabled"], rule["matchers"]) == ("", True, OF_MILL)

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"name": ""}, "/name"),
            ({"kind": "sorcery"}, "/kind"),
            ({"metric": "a b"}, "/metric"),
            ({"metric": "*"}, "/metric"),
            ({"matchers": [{"label": "host", "op": "=~", "value": "("}]}, "/matchers/0/value"),
            ({"matchers": [{"label": "host", "op": "=~", "value": "(a+)+"}]}, "/matchers/0/value"),
            ({"parameters": {"op": ">"}}, "/parameters/value"),
            ({"parameters": {"op": ">", "value": 1, "speed": 2}}, "/parameters/speed"),
            ({"for_seconds": -1}, "/for_seconds"),
            ({"for_seconds": 10**9}, "/for_seconds"),
            ({"severity": "fatal"}, "/severity"),
            ({"labels": {"severity": "low"}}, "/labels/severity"),
            ({"labels": {"a-b": "x"}}, "/labels/a-b"),
            ({"summary": "{value"}, "/summary"),
            ({"summary": "{value.__class__}"}, "/summary"),
            ({"inhibited_by": [{"rule": "Busy", "equal": []}]}, "/inhibited_by/0"),
            ({"color": "red"}, "/color"),
        ],
    )
    @pytest.mark.parametrize("path", [RULES, f"{RULES}/preview"])
    def test_what_is_wrong_is_named(self, admin: Caller, path: str, change: Mapping[str, Any], pointer: str) -> None:
        assert_problem(post(admin, path, {**BUSY, **change}), 400, "", pointer)
        assert not AlertRule.objects.exists()

    def test_what_inhibits_it_has_to_be_there(self, admin: Caller) -> None:
        body = {**BUSY, "inhibited_by": [{"rule": "nobody", "equal": []}]}

        assert_problem(post(admin, RULES, body), 400, "not_found", "/inhibited_by")

    def test_names_are_given_once(self, admin: Caller) -> None:
        AlertRuleFactory(name="Busy")

        assert_problem(post(admin, RULES, BUSY), 409, "duplicate", "/name")

    def test_it_is_changed_by_who_has_seen_it(self, admin: Caller) -> None:
        path = f"{RULES}/{AlertRuleFactory().pk}"
        etag = admin.get(path)["ETag"]

        assert patch(admin, path, {"enabled": False}).json()["enabled"] is False
        late = admin.patch(path, {"enabled": True}, format="json", headers={"If-Match": etag})
        assert_problem(late, 412, "if_match")

    def test_a_new_kind_asks_for_its_own_parameters(self, admin: Caller) -> None:
        path = f"{RULES}/{AlertRuleFactory().pk}"

        refused = assert_problem(patch(admin, path, {"kind": "non_finite"}), 400, "unknown")
        assert "/parameters/op" in [error["pointer"] for error in refused["errors"]]
        changed = patch(admin, path, {"kind": "non_finite", "parameters": {}})
        assert changed.json()["parameters"] == {"window_seconds": 300}

    def test_it_is_removed(self, admin: Caller) -> None:
        path = f"{RULES}/{AlertRuleFactory().pk}"

        response = admin.delete(f"{path}?reason=tidy", headers={"If-Match": admin.get(path)["ETag"]})

        assert (response.status_code, AlertRule.objects.count()) == (204, 0)

    def test_a_shipped_one_is_disabled_instead_and_can_be_reset(self, admin: Caller) -> None:
        install_shipped(actor=SYSTEM)
        rule = AlertRule.objects.get(shipped="disk-nearly-full")
        path = f"{RULES}/{rule.pk}"

        assert_problem(admin.delete(path, headers={"If-Match": admin.get(path)["ETag"]}), 409, "shipped")
        patch(admin, path, {"enabled": False, "severity": "info"})
        answer = post(admin, f"{path}/reset", {"reason": "as it was"}).json()
        assert (answer["enabled"], answer["severity"]) == (True, "critical")

    def test_one_that_somebody_wrote_has_nothing_to_be_reset_to(self, admin: Caller) -> None:
        assert_problem(post(admin, f"{RULES}/{AlertRuleFactory().pk}/reset"), 409, "not_shipped")

    @pytest.mark.parametrize("query", ["kind=absence", "severity=info", "enabled=false"])
    def test_they_are_found_by_what_they_are(self, admin: Caller, query: str) -> None:
        AlertRuleFactory(name="plain")
        AlertRuleFactory(name="other", kind="absence", parameters={}, severity="info", enabled=False)

        assert [rule["name"] for rule in admin.get(f"{RULES}?{query}").json()["results"]] == ["other"]

    def test_a_preview_says_what_it_would_say_and_writes_nothing(self, admin: Caller) -> None:
        measure(0.2, host="barn")
        measure(0.95, host="mill")

        answer = post(admin, f"{RULES}/preview", {**BUSY, "summary": "{host} is at {value}"}).json()

        assert (answer["series"], answer["holding"], answer["unknown"]) == (2, 1, 0)
        assert [(said["summary"], said["holds"]) for said in answer["shown"]] == [
            ("mill is at 0.95", True), ("barn is at 0.2", False),
        ]  # fmt: skip
        assert not AlertRule.objects.exists()
        assert not Alert.objects.exists()


class TestSilences:
    def test_one_is_made_for_a_time(self, admin: Caller) -> None:
        answer = post(admin, SILENCES, {"matchers": OF_MILL, "duration_seconds": 600, "comment": "new disk"})

        assert (answer.status_code, answer.json()["state"]) == (201, "active")
        assert admin.get(answer["Location"]).json()["matching"] == 0

    def test_one_can_be_planned_and_called_off(self, admin: Caller) -> None:
        start = timezone.now() + timedelta(hours=1)
        body = {"matchers": OF_MILL, "starts_at": start, "ends_at": start + timedelta(hours=1), "comment": "new disk"}
        path = post(admin, SILENCES, body)["Location"]

        assert admin.get(path).json()["state"] == "pending"
        assert post(admin, f"{path}/end").json()["state"] == "over"
        assert_problem(post(admin, f"{path}/end"), 409, "over")

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"matchers": []}, "/matchers"),
            ({"matchers": [{"label": "host", "op": "=~", "value": ".*"}]}, "/matchers"),
            ({"matchers": [{"label": "host", "op": "!=", "value": "mill"}]}, "/matchers"),
            ({"matchers": [{"label": "a b", "op": "=", "value": "mill"}]}, "/matchers/0/label"),
            ({"comment": ""}, "/comment"),
            ({"duration_seconds": 0}, "/duration_seconds"),
            ({"ends_at": "2030-01-01T00:00:00Z"}, "/ends_at"),
            ({"starts_at": "2020-01-01T00:00:00Z"}, "/starts_at"),
            ({"starts_at": "9999-12-31T23:59:59Z"}, None),
            ({"starts_at": "0001-01-01T00:00:00+23:00"}, "/starts_at"),
        ],
    )
    def test_what_is_wrong_is_named(self, admin: Caller, change: Mapping[str, Any], pointer: str | None) -> None:
        body = {"matchers": OF_MILL, "duration_seconds": 600, "comment": "new disk", **change}

        response = post(admin, SILENCES, body)

        if pointer is None:
            assert response.status_code == 400
        else:
            assert_problem(response, 400, "", pointer)
        assert not Silence.objects.exists()

    @pytest.mark.parametrize("state", ["pending", "active", "over"])
    def test_they_are_found_by_their_state(self, admin: Caller, state: str) -> None:
        now, hour = timezone.now(), timedelta(hours=1)
        SilenceFactory(comment="pending", starts_at=now + hour, ends_at=now + 2 * hour)
        SilenceFactory(comment="active")
        SilenceFactory(comment="over", starts_at=now - 2 * hour, ends_at=now - hour)

        (found,) = admin.get(SILENCES, {"state": state}).json()["results"]

        assert (found["comment"], found["state"]) == (state, state)


@pytest.mark.parametrize(
    ("method", "path"),
    [("post", RULES), ("post", SILENCES), ("post", f"{ALERTS}/{{alert}}/acknowledge")],
)
def test_who_may_only_read_changes_nothing(caller: Callable[..., Caller], method: str, path: str) -> None:
    client = caller(Role.VIEWER)

    response = getattr(client, method)(path.format(alert=alert_of("mill").pk), BUSY, format="json")

    assert response.status_code == 403
