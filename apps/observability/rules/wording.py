"""What an alert is called and says: its labels, its fingerprint, its summary. No Django."""

import hashlib
import json
import re
from collections.abc import Mapping
from uuid import UUID

from apps.observability.rules.observed import Verdict

PLACEHOLDER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]{0,59})\}")
NAME, SEVERITY, METRIC, PROBLEM = "alertname", "severity", "metric", "problem"
RESERVED = frozenset({NAME, SEVERITY, PROBLEM})
"""Labels that the platform gives; a rule's own may not have their names."""
UNKNOWN = "?"
WHOLE = 1e15
"""Below, a whole number is shown as one."""


def labels_of(
    *, rule_name: str, severity: str, own: Mapping[str, str], series: Mapping[str, str], metric: str = ""
) -> dict[str, str]:
    """The labels of an alert: of the series, the rule's own over them, and what every alert has. ``metric`` where one
    rule looks at several."""
    named = {METRIC: metric} if metric else {}
    return {**series, **named, **own, NAME: rule_name, SEVERITY: severity}


def fingerprint(rule_id: UUID, labels: Mapping[str, str]) -> str:
    """What is the same problem: sha256 of the rule and its labels, in any order."""
    text = json.dumps([str(rule_id), sorted(labels.items())], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def fault_of(template: str) -> str:
    """What is wrong with a summary; empty: nothing."""
    rest = PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        return "has a brace that is no placeholder: write {value}, {threshold}, {metric} or {<label>}"
    return ""


def summary_of(template: str, *, rule_name: str, metric: str, labels: Mapping[str, str], verdict: Verdict) -> str:
    """The summary with its placeholders filled in; without a template, a sentence that says the same."""
    template = template or f"{rule_name.replace('{', '(').replace('}', ')')}: {_plainly(verdict)}"
    value = verdict.evidence.get("value") if verdict.value is None else None
    known = {
        **labels,
        "metric": metric,
        "value": str(value) if value is not None else told(verdict.value),
        "threshold": told(verdict.threshold),
        **{name: told(found) for name, found in verdict.evidence.items() if isinstance(found, int | float)},
    }
    return PLACEHOLDER.sub(lambda found: known.get(found[1], UNKNOWN), template)


def _plainly(verdict: Verdict) -> str:
    """What is said where the rule has no words of its own. The value of an absence is an age."""
    if "newest_at" in verdict.evidence:
        return "no sample of {metric} for {value} s"
    is_unseen = verdict.value is None and verdict.evidence.get("samples") == 0
    return "there is no {metric}" if is_unseen else "{metric} is {value}"


def told(value: float | None) -> str:
    """A number for people: four digits, or all of a whole one."""
    if value is None:
        return UNKNOWN
    if float(value).is_integer() and abs(value) < WHOLE:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:,.0f}" if abs(value) < WHOLE else f"{value:.4g}"
