"""What a message says: the JSON that Alertmanager's webhooks send (version 4), and the same in words for e-mail."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from apps.observability.models import Alert, AlertRoute

MOST_ALERTS = 50
"""That a message tells of one by one; the others are a number."""
NEVER = "0001-01-01T00:00:00Z"
"""How Alertmanager writes the end of what has not ended."""
SUBJECT = 150
SHOWN_LABELS = ("alertname", "severity")
"""Not told a second time in the list of labels of an e-mail."""

Payload = dict[str, Any]


def payload(
    *,
    route: AlertRoute,
    group_key: str,
    group_labels: Mapping[str, str],
    firing: Sequence[Alert],
    resolved: Sequence[Alert],
    site: str,
) -> Payload:
    """The message about a group; ``site`` is the address of the pages, "" where nobody has told it."""
    told = [alert_of(alert, site, is_firing=True) for alert in firing]
    told += [alert_of(alert, site, is_firing=False) for alert in resolved]
    shown = told[:MOST_ALERTS]
    return {
        "version": "4",
        "groupKey": group_key,
        "truncatedAlerts": len(told) - len(shown),
        "status": "firing" if firing else "resolved",
        "receiver": route.name,
        "groupLabels": dict(group_labels),
        "commonLabels": _common([one["labels"] for one in told]),
        "commonAnnotations": _common([one["annotations"] for one in told]),
        "externalURL": site,
        "alerts": shown,
    }


def alert_of(alert: Alert, site: str, *, is_firing: bool) -> dict[str, Any]:
    """One alert of a message. Labels and annotations are texts."""
    annotations = {
        "summary": alert.summary,
        "remedy": alert.remedy,
        "value": _number(alert.value),
        "threshold": _number(alert.threshold),
    }
    return {
        "status": "firing" if is_firing else "resolved",
        "labels": {str(name): str(value) for name, value in sorted(alert.labels.items())},
        "annotations": {name: text for name, text in annotations.items() if text},
        "startsAt": _moment(alert.fired_at or alert.started_at),
        "endsAt": NEVER if is_firing or alert.resolved_at is None else _moment(alert.resolved_at),
        "generatorURL": f"{site}/alerts/{alert.pk}",
        "fingerprint": alert.fingerprint,
    }


def test_payload(*, route: AlertRoute, group_key: str, site: str, now: datetime) -> Payload:
    """A message about an alert that nobody needs to look into."""
    labels = {"alertname": "Test", "severity": "info"}
    annotations = {"summary": f"A test of the route {route.name}: nothing is wrong."}
    return {
        "version": "4",
        "groupKey": group_key,
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": route.name,
        "groupLabels": {},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": site,
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": _moment(now),
                "endsAt": NEVER,
                "generatorURL": f"{site}/alerts",
                "fingerprint": "0" * 64,
            }
        ],
    }


def subject(told: Payload) -> str:
    """``[FIRING:2] esper_host_disk_used_ratio, host-a``: one line, whatever labels hold."""
    count = sum(one["status"] == told["status"] for one in told["alerts"]) + told["truncatedAlerts"]
    common = told["commonLabels"]
    of = [*told["groupLabels"].values()] or [common.get("alertname") or f"{len(told['alerts'])} alerts"]
    line = f"[{told['status'].upper()}:{count}] {', '.join(dict.fromkeys(of))}"
    if common.get("severity"):
        line += f" ({common['severity']})"
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in line).split())
    return line if len(line) <= SUBJECT else f"{line[: SUBJECT - 1]}…"


def text(told: Payload) -> str:
    """The body of an e-mail."""
    blocks = []
    for status, title in (("firing", "These fire now."), ("resolved", "These are over.")):
        alerts = [one for one in told["alerts"] if one["status"] == status]
        if alerts:
            blocks += [title, *map(_block, alerts)]
    if told["truncatedAlerts"]:
        blocks.append(f"And {told['truncatedAlerts']} more.")
    blocks.append(f"The route {told['receiver']} sends this. {told['externalURL']}".rstrip())
    return "\n\n".join(blocks) + "\n"


def _block(one: Mapping[str, Any]) -> str:
    labels, notes = one["labels"], one["annotations"]
    lines = [f"{labels.get('severity', 'alert').upper()}: {notes.get('summary') or labels.get('alertname', '')}"]
    until = "" if one["endsAt"] == NEVER else f", until {_spoken(one['endsAt'])}"
    lines.append(f"    since {_spoken(one['startsAt'])}{until}")
    values = [f"{name} {notes[name]}" for name in ("value", "threshold") if name in notes]
    others = [f"{name}={value}" for name, value in labels.items() if name not in SHOWN_LABELS]
    lines += [f"    {', '.join(part)}" for part in (values, others) if part]
    if notes.get("remedy"):
        lines.append(f"    What to do: {notes['remedy']}")
    if one["generatorURL"].startswith("http"):
        lines.append(f"    {one['generatorURL']}")
    return "\n".join(lines)


def _common(each: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *rest = each
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in rest)}


def _moment(at: datetime) -> str:
    """RFC 3339, UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _spoken(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M:%S} UTC"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
