"""Rules, applied to what was measured: alerts begin, fire and are resolved.

A rule is locked while what it says is applied: a second evaluator waits, and then finds the same alerts open. One that
cannot be applied gets an alert of its own that says so, and stops no other.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import connection, transaction

from apps.core.locks import Busy, alone
from apps.observability.collectors.alerts import note_evaluation
from apps.observability.lifecycle import OPEN, AlertState
from apps.observability.models import Alert, AlertRule, RuleKind, Severity
from apps.observability.rules import wording
from apps.observability.rules.observed import Verdict
from apps.observability.selectors import observing
from apps.observability.selectors.observing import Judged, Sighting
from apps.observability.services import alerts, notifying

log = structlog.get_logger(__name__)

MOST_OPEN = 500
"""Alerts of one rule: what they are more is told by one."""
GAP = timedelta(minutes=3)
"""Nobody looked for longer than that: whether the condition held all the time, nobody knows."""
SEEN = ("value", "last_true_at", "last_seen_at", "over_since")
NOTE = """
UPDATE observability_alert AS alert SET value = seen.value, last_true_at = seen.last_true_at,
    last_seen_at = seen.last_seen_at, over_since = seen.over_since
FROM unnest(%s::uuid[], %s::float8[], %s::timestamptz[], %s::timestamptz[], %s::timestamptz[])
    AS seen (id, value, last_true_at, last_seen_at, over_since)
WHERE alert.id = seen.id
"""
"""In one statement whose time grows with its rows: what the ORM writes compares each row to all."""
OVER, GONE, UNASKED = "the condition does not hold any more", "no samples come any more", "nobody looked for a while"
PROBLEMS = UNEVALUATED, TOO_MANY = "evaluation", "too_many"
"""Values of the label ``problem`` of alerts about a rule."""


def evaluate() -> None:
    """Apply every enabled rule once, then write down what is to be told (``notifying``). One evaluator at a time.

    What goes wrong with a rule is raised only after all others, and if no alert could tell of it.
    """
    try:
        with alone("evaluate alerts", busy="another worker evaluates the alert rules"):
            now = database_now()
            try:
                untold = _evaluate_all(now)
            finally:  # what fires already is told, whatever else went wrong
                notifying.notify(now)
            if untold:
                raise untold[0]
    except Busy:
        return


def database_now() -> datetime:
    """By the clock that all evaluators share."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment


def apply(*, judged: Judged, now: datetime) -> None:
    """Let the alerts of a rule follow what it says. Nothing, if the rule has changed since it was judged."""
    with transaction.atomic():
        rule = AlertRule.objects.select_for_update(of=("self",)).filter(pk=judged.rule.pk).first()
        if rule is None or rule.row_version != judged.rule.row_version:
            return
        rows = Alert.objects.select_for_update(of=("self",)).filter(rule_id=rule.pk, state__in=OPEN)
        open_alerts = {alert.fingerprint: alert for alert in rows}
        problems = {problem: open_alerts.pop(_problem(rule, problem, "").fingerprint, None) for problem in PROBLEMS}
        told = {UNEVALUATED: judged.problem} if judged.problem else _follow(rule, judged.sightings, open_alerts, now)
        for problem, alert in problems.items():
            _tell(rule, problem, told.get(problem, ""), alert, now)


def _evaluate_all(now: datetime) -> list[Exception]:
    """Returns what went wrong and could not even be told of by an alert."""
    began = time.perf_counter()
    rules: dict[UUID | None, list[AlertRule]] = defaultdict(list)
    for rule in AlertRule.objects.order_by("name"):
        rules[rule.workspace_id].append(rule)
    untold = [error for of_workspace in rules.values() for error in _evaluate(of_workspace, now)]
    _resolve_orphans(rules.values(), now)
    note_evaluation(now, time.perf_counter() - began)
    return untold


def _evaluate(rules: Sequence[AlertRule], now: datetime) -> Iterator[Exception]:
    enabled = {rule.pk: rule for rule in rules if rule.enabled}
    alerted = set(Alert.objects.filter(rule_id__in=enabled, state__in=OPEN).values_list("rule_id", flat=True))
    for judged in observing.judge(enabled.values(), now):
        says = judged.problem or any(sighting.verdict.holds for sighting in judged.sightings)
        if not says and judged.rule.pk not in alerted:
            continue
        if (fault := _fault(judged, now)) is None:
            continue
        problem = f"{type(fault).__name__}: {fault}"[:500]
        if untold := _fault(Judged(rule=judged.rule, problem=problem), now):
            yield untold


def _fault(judged: Judged, now: datetime) -> Exception | None:
    """Apply a rule; what went wrong, of whatever kind it is: the other rules have to go on."""
    try:
        apply(judged=judged, now=now)
    except Exception as error:
        log.exception("alert_rule_failed", rule=judged.rule.name)
        return error
    return None


def _follow(
    rule: AlertRule, sightings: Sequence[Sighting], open_alerts: Mapping[str, Alert], now: datetime
) -> dict[str, str]:
    """Apply what was seen; returns the problems of the rule."""
    room = MOST_OPEN - len(open_alerts)
    seen: list[Alert] = []
    untold = 0
    for sighting in sightings:
        alert = open_alerts.get(sighting.fingerprint)
        if alert is not None:
            alert = _continued(alert, rule, sighting, now)
        if alert is not None:
            seen.append(alert)
        elif sighting.verdict.holds and room > 0:
            alerts.begin(rule=rule, sighting=sighting, now=now)
            room -= 1
        elif sighting.verdict.holds:
            untold += 1
    told = {sighting.fingerprint for sighting in sightings}
    for print_, alert in open_alerts.items():
        if print_ not in told and (still := _unseen(alert, rule, now)):
            seen.append(still)
    _note([alert for alert in seen if alert.state in OPEN])
    return {TOO_MANY: f"{untold:,} more than {MOST_OPEN} series meet it: make it narrower"} if untold else {}


def _note(seen: Sequence[Alert]) -> None:
    """Write down how alerts that stay open were seen."""
    if seen:
        columns = [[getattr(alert, name) for alert in seen] for name in ("pk", *SEEN)]
        with connection.cursor() as cursor:
            cursor.execute(NOTE, columns)


def _continued(alert: Alert, rule: AlertRule, sighting: Sighting, now: datetime) -> Alert | None:
    """An open alert of which something is known; None: it is resolved because too much is not."""
    verdict = sighting.verdict
    gap = now - alert.last_seen_at
    alert.last_seen_at = now
    if verdict.holds is None:
        return alert
    alert.value = verdict.value
    if not verdict.holds:
        return _over(alert, rule, now, OVER)
    if alert.state == AlertState.PENDING and gap > GAP:
        alerts.resolve(alert=alert, because=UNASKED, now=now)
        return None
    alert.last_true_at, alert.over_since = now, None
    if alert.state == AlertState.PENDING and now - alert.started_at >= timedelta(seconds=rule.for_seconds):
        alerts.fire(alert=alert, rule=rule, verdict=verdict, now=now)
    return alert


def _unseen(alert: Alert, rule: AlertRule, now: datetime) -> Alert | None:
    """An open alert of which the rule says nothing: its series is over, or (anomalies) is odd no more."""
    if rule.kind == RuleKind.ANOMALY:
        alert.last_seen_at = now
        return _over(alert, rule, now, OVER)
    alerts.resolve(alert=alert, because=GONE, now=now)
    return None


def _over(alert: Alert, rule: AlertRule, now: datetime, because: str) -> Alert:
    """The condition does not hold: what only waited is resolved at once, what fires when that has been so for long."""
    alert.over_since = alert.over_since or now
    lasted = now - alert.over_since
    if alert.state == AlertState.PENDING or lasted >= timedelta(seconds=rule.keep_firing_seconds):
        alerts.resolve(alert=alert, because=because, now=now)
    return alert


def _problem(rule: AlertRule, problem: str, text: str) -> Sighting:
    """What is wrong with the rule itself, as it is told: by an alert with the label ``problem``."""
    labels = {wording.NAME: rule.name, wording.SEVERITY: Severity.WARNING.value, wording.PROBLEM: problem}
    verdict = Verdict(holds=True, evidence={"problem": text})
    fingerprint = wording.fingerprint(rule.pk, {wording.PROBLEM: problem})
    return Sighting(series=None, metric=rule.metric, labels=labels, fingerprint=fingerprint, verdict=verdict)


def _tell(rule: AlertRule, problem: str, text: str, alert: Alert | None, now: datetime) -> None:
    """Begin, keep or resolve the alert about a problem of the rule."""
    if text and alert is None:
        about = AlertRule(
            id=rule.pk,
            workspace_id=rule.workspace_id,
            name=rule.name,
            severity=Severity.WARNING,
            summary=f"The rule {rule.name} has a problem: {text}".translate({ord("{"): "(", ord("}"): ")"}),
            remedy="Change the rule, or reset it to what it was shipped as.",
        )
        alerts.begin(rule=about, sighting=_problem(rule, problem, text), now=now)
    elif text and alert is not None:
        Alert.objects.filter(pk=alert.pk).update(last_seen_at=now, last_true_at=now)
    elif alert is not None:
        alerts.resolve(alert=alert, because=OVER, now=now)


def _resolve_orphans(rules: Iterable[Sequence[AlertRule]], now: datetime) -> None:
    """Alerts of rules that are not applied. Services resolve them with the change; this finds what they missed."""
    known = {rule.pk: rule.enabled for of_workspace in rules for rule in of_workspace}
    enabled = [key for key, is_enabled in known.items() if is_enabled]
    orphans = list(Alert.objects.filter(state__in=OPEN).exclude(rule_id__in=enabled))
    for because, those in (
        (alerts.DISABLED, [alert for alert in orphans if alert.rule_id in known]),
        (alerts.REMOVED, [alert for alert in orphans if alert.rule_id not in known]),
    ):
        alerts.resolve_all(alerts=those, because=because, now=now)
