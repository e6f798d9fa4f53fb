"""Conditions of alert rules in words: one sentence for each kind, from the rule's parameters."""

from collections.abc import Callable, Mapping
from typing import Any

from apps.dashboards import numbers, units
from apps.observability.matchers import Matcher
from apps.observability.models import AlertRule, RuleKind

READINGS = {
    "last": "newest sample",
    "mean": "mean of {window}",
    "max": "greatest of {window}",
    "min": "least of {window}",
    "rate": "growth a second over {window}",
    "increase": "growth over {window}",
}
WAYS = {"up": "up", "down": "down", "both": "either way"}
Told = Callable[[Mapping[str, Any], str], str]


def condition(rule: AlertRule) -> str:
    """What the rule looks for, e.g. "mean of 5 min > 90.0 %". A rule whose parameters are not of its kind shows as
    its kind only."""
    words = CONDITIONS.get(rule.kind)
    try:
        return words(rule.parameters, units.unit_of(rule.metric)) if words else rule.kind
    except (KeyError, TypeError, AttributeError):
        return str(RuleKind(rule.kind).label) if rule.kind in RuleKind.values else rule.kind


def _threshold(given: Mapping[str, Any], unit: str) -> str:
    reading = READINGS[given.get("reading", "last")].format(window=numbers.duration(given.get("window_seconds", 300)))
    return f"{reading} {given['op']} {units.told(float(given['value']), unit)}"


def _change(given: Mapping[str, Any], unit: str) -> str:
    way = "above" if given.get("direction", "up") == "up" else "below"
    baseline = numbers.duration(given.get("baseline_seconds", 3600))
    return f"{numbers.plain(given.get('percent', 50.0))} % {way} its median of {baseline}"


def _spike(given: Mapping[str, Any], unit: str) -> str:
    way = WAYS[given.get("direction", "up")]
    return f"leaps {way} by {numbers.plain(given.get('score', 8.0))} robust deviations from its median"


def _plateau(given: Mapping[str, Any], unit: str) -> str:
    percent = numbers.plain(given.get("percent", 1.0))
    return f"improves by less than {percent} % in {numbers.count(given.get('samples', 20))} samples"


def _absence(given: Mapping[str, Any], unit: str) -> str:
    return f"no sample for {numbers.duration(given.get('after_seconds', 120))}"


def _anomaly(given: Mapping[str, Any], unit: str) -> str:
    score = given.get("score", 0.0)
    return "the detector finds an anomaly" + (f" of at least {numbers.plain(score)}" if score else "")


def _forecast(given: Mapping[str, Any], unit: str) -> str:
    value = units.told(float(given["value"]), unit)
    return f"reaches {value} within {numbers.plain(given.get('hours', 24.0))} h by its trend"


CONDITIONS: Mapping[str, Told] = {
    RuleKind.THRESHOLD: _threshold,
    RuleKind.CHANGE: _change,
    RuleKind.SPIKE: _spike,
    RuleKind.NON_FINITE: lambda given, unit: "a sample is no finite number",
    RuleKind.PLATEAU: _plateau,
    RuleKind.ABSENCE: _absence,
    RuleKind.ANOMALY: _anomaly,
    RuleKind.FORECAST: _forecast,
}


def matched(given: object) -> list[str]:
    """Matchers as people write them: disk="/"; what is none is left out."""
    if not isinstance(given, list):
        return []
    keys = ("label", "op", "value")
    found = [entry for entry in given if isinstance(entry, Mapping) and all(key in entry for key in keys)]
    return [str(Matcher(str(entry["label"]), str(entry["op"]), str(entry["value"]))) for entry in found]
