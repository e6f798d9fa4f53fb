"""What a message says: Alertmanager's JSON, and the words of an e-mail."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from apps.observability.delivery import payloads
from apps.observability.models import Alert, AlertRoute

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
ROUTE = AlertRoute(name="operators", workspace_id=UUID(int=1))
SITE = "https://esper.example.org"


def alert(host: str = "mill", **values: Any) -> Alert:
    return Alert(
        **{
            "workspace_id": UUID(int=1),
            "fingerprint": f"{host:0>64}",
            "labels": {"alertname": "Disk full", "severity": "critical", "host": host},
            "summary": f"The disk of {host} is 95 % full",
            "remedy": "Remove old checkpoints.",
            "threshold": 0.9,
            "value": 0.95,
            "started_at": START,
            "fired_at": START + timedelta(minutes=1),
            **values,
        }
    )


def payload(
    firing: tuple[Alert, ...], resolved: tuple[Alert, ...] = (), labels: dict[str, str] | None = None, site: str = SITE
) -> dict[str, Any]:
    return payloads.payload(
        route=ROUTE, group_key="f" * 64, group_labels=labels or {}, firing=firing, resolved=resolved, site=site
    )


class TestTheWebhook:
    def test_is_alertmanagers_version_4(self) -> None:
        one = alert()

        assert payload((one,), labels={"alertname": "Disk full"}) == {
            "version": "4",
            "groupKey": "f" * 64,
            "truncatedAlerts": 0,
            "status": "firing",
            "receiver": "operators",
            "groupLabels": {"alertname": "Disk full"},
            "commonLabels": {"alertname": "Disk full", "severity": "critical", "host": "mill"},
            "commonAnnotations": {
                "summary": "The disk of mill is 95 % full",
                "remedy": "Remove old checkpoints.",
                "value": "0.95",
                "threshold": "0.9",
            },
            "externalURL": SITE,
            "alerts": [
                {
                    "status": "firing",
                    "labels": {"alertname": "Disk full", "severity": "critical", "host": "mill"},
                    "annotations": {
                        "summary": "The disk of mill is 95 % full",
                        "remedy": "Remove old checkpoints.",
                        "value": "0.95",
                        "threshold": "0.9",
                    },
                    "startsAt": "2026-01-01T12:01:00Z",
                    "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": f"{SITE}/alerts/{one.pk}",
                    "fingerprint": one.fingerprint,
                }
            ],
        }

    def test_has_in_common_what_all_alerts_agree_in(self) -> None:
        told = payload((alert("mill"), alert("barn")))

        assert told["commonLabels"] == {"alertname": "Disk full", "severity": "critical"}
        assert "summary" not in told["commonAnnotations"]

    def test_is_resolved_when_nothing_fires(self) -> None:
        told = payload((), (alert(resolved_at=START + timedelta(hours=1)),))

        assert (told["status"], told["alerts"][0]["status"]) == ("resolved", "resolved")
        assert told["alerts"][0]["endsAt"] == "2026-01-01T13:00:00Z"

    def test_tells_of_fifty_and_counts_the_rest(self) -> None:
        told = payload(tuple(alert(f"host{n}") for n in range(60)), (alert("over"),))

        assert (len(told["alerts"]), told["truncatedAlerts"]) == (50, 11)

    def test_writes_values_that_are_no_number_as_text(self) -> None:
        told = payload((alert(value=float("nan"), threshold=float("inf")),))

        assert (told["alerts"][0]["annotations"]["value"], told["commonAnnotations"]["threshold"]) == ("nan", "inf")


class TestTheSubject:
    def test_says_what_fires_and_how_bad_it_is(self) -> None:
        assert payloads.subject(payload((alert("mill"), alert("barn")))) == "[FIRING:2] Disk full (critical)"

    def test_names_the_group(self) -> None:
        told = payload((alert(),), labels={"alertname": "Disk full", "host": "mill"})

        assert payloads.subject(told) == "[FIRING:1] Disk full, mill (critical)"

    def test_says_what_is_over(self) -> None:
        assert payloads.subject(payload((), (alert(resolved_at=START),))) == "[RESOLVED:1] Disk full (critical)"

    def test_is_one_short_line_whatever_labels_hold(self) -> None:
        labels = {"alertname": "x\r\nBcc: everybody@example.org\x00\u2028" + "y" * 400}

        subject = payloads.subject(payload((alert(labels=labels),), labels=labels))

        assert subject.isprintable()
        assert len(subject) <= 150


class TestTheText:
    def test_tells_a_person_what_happens_since_when_and_what_to_do(self) -> None:
        one, gone = alert("mill"), alert("barn", resolved_at=START + timedelta(hours=1))

        text = payloads.text(payload((one,), (gone,)))

        assert (
            text
            == f"""These fire now.

CRITICAL: The disk of mill is 95 % full
    since 2026-01-01 12:01:00 UTC
    value 0.95, threshold 0.9
    host=mill
    What to do: Remove old checkpoints.
    {SITE}/alerts/{one.pk}

These are over.

CRITICAL: The disk of barn is 95 % full
    since 2026-01-01 12:01:00 UTC, until 2026-01-01 13:00:00 UTC
    value 0.95, threshold 0.9
    host=barn
    What to do: Remove old checkpoints.
    {SITE}/alerts/{gone.pk}

The route operators sends this. {SITE}
"""
        )

    def test_has_no_broken_links_where_nobody_told_the_address_of_the_pages(self) -> None:
        assert "/alerts/" not in payloads.text(payload((alert(),), site=""))

    def test_counts_what_it_does_not_show(self) -> None:
        assert "And 5 more." in payloads.text(payload(tuple(alert(f"host{n}") for n in range(55))))
