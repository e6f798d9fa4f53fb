"""What people have not seen: messages that do not arrive, alerts that nobody took on, a detector that cries wolf."""

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, Max, Min, Q

from apps.observability.intervals import share
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import Alert, Anomaly, Notification, Severity
from apps.observability.recommendations.contracts import Evidence, Recommendation, Rule, duration, measured, percent
from apps.observability.recommendations.facts import Facts
from apps.observability.selectors.alerts import muted_ids

MOST = 20


def deliveries(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Routes whose messages were given up, or are tried in vain. Two queries."""
    is_failing = Q(state=NotificationState.FAILED) | Q(
        state__in=(NotificationState.PENDING, NotificationState.SENDING),
        attempts__gte=int(rule.limits["attempts"]),
    )
    since = facts.now - timedelta(hours=rule.limits["hours"])
    recent = Notification.objects.filter(created_at__gte=since)
    if facts.workspace_id:
        recent = recent.filter(workspace=facts.workspace_id)
    rows = (
        recent.order_by()
        .values("route_id", "route_name")
        .annotate(all=Count("pk"), failing=Count("pk", filter=is_failing))
        .filter(failing__gt=0)
        .order_by("-failing", "route_id")[:MOST]
    )
    groups = list(rows)
    newest = recent.filter(is_failing, route_id__in=[row["route_id"] for row in groups])
    problems = dict(newest.order_by("route_id", "-pk").distinct("route_id").values_list("route_id", "problem"))
    for row in groups:
        failing = share(row["failing"], row["all"])
        yield Recommendation(
            rule=rule.key,
            subject=f"route {row['route_id']}",
            severity=Severity.CRITICAL if failing.count == failing.n else Severity.WARNING,
            sentence=f"{failing.count} of the {failing.n} messages of route {row['route_name']} do not arrive: people "
            "are not told of alerts.",
            evidence=(
                measured("messages that do not arrive", failing, unit="ratio"),
                Evidence(what="the newest problem", value=problems.get(row["route_id"]) or "no answer yet"),
            ),
            remedy="Send the route a test, and mend its target or its secret; then try the failed messages again.",
            link="/alerts/routes",
        )


def unacknowledged(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Alerts that have been firing for long, and nobody has said that they look after them. What a silence or a worse
    alert mutes is known to somebody. Five queries."""
    before = facts.now - timedelta(hours=rule.limits["hours"])
    firing = Alert.objects.filter(state=AlertState.FIRING, acknowledged_at=None, fired_at__lt=before)
    if facts.workspace_id:
        firing = firing.filter(workspace=facts.workspace_id)
    rows = (
        firing.exclude(severity=Severity.INFO)
        .exclude(pk__in=muted_ids())
        .order_by()
        .values("rule_name", "severity")
        .annotate(alerts=Count("pk"), oldest=Min("fired_at"))
        .order_by("oldest")[:MOST]
    )
    for row in rows:
        age = (facts.now - row["oldest"]).total_seconds()
        yield Recommendation(
            rule=rule.key,
            subject=f"alert rule {row['rule_name']}",
            severity=row["severity"],
            sentence=f"{row['alerts']} alert{'' if row['alerts'] == 1 else 's'} of rule {row['rule_name']} fired up to "
            f"{duration(age)} ago, and nobody has acknowledged.",
            evidence=(
                Evidence(what="alerts", value=row["alerts"], link="/alerts"),
                Evidence(what="age of the oldest", value=age, unit="seconds", link="/alerts"),
            ),
            remedy="Acknowledge with a note, silence what is known, or give the rule a threshold that means something.",
            link="/alerts",
        )


def noisy_detector(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Series in which the detector finds an anomaly again and again: nobody can look at all of them. Two queries."""
    since = facts.now - timedelta(hours=rule.limits["hours"])
    recent = Anomaly.objects.filter(at__gte=since)
    if facts.workspace_id:
        recent = recent.filter(workspace=facts.workspace_id)
    total = recent.count()
    rows = (
        recent.order_by()
        .values("series_id", "series__name")
        .annotate(number=Count("pk"), component=Max("component"), newest=Max("at"))
        .filter(number__gte=int(rule.limits["anomalies"]))
        .order_by("-number", "series_id")[:MOST]
    )
    for row in rows:
        part = share(row["number"], total)
        yield Recommendation(
            rule=rule.key,
            subject=f"series {row['series_id']}",
            severity=Severity.INFO,
            sentence=f"The detector found {row['number']} anomalies in a day in {row['series__name']} (series "
            f"{row['series_id']}): {percent(part.value)} of all. It behaves like this, or something is badly wrong.",
            evidence=(
                Evidence(what="anomalies", value=row["number"], n=total, link="/api/v1/analysis/anomalies"),
                Evidence(what="a part of the detector that fired", value=row["component"]),
                Evidence(what="the newest", value=row["newest"].isoformat()),
            ),
            remedy="If it is right as it is, leave the series out by a matcher of the rules of kind anomaly, or "
            "measure it more coarsely.",
            link="/alerts/anomalies",
        )
