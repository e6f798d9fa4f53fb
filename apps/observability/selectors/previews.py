"""What a rule would say now, without a trace."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from apps.core.errors import Invalid
from apps.observability.models import AlertRule
from apps.observability.rules import wording
from apps.observability.selectors import observing
from apps.observability.selectors.observing import Sighting

SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the rule says of one series; ``summary`` is what its alert would say."""

    sighting: Sighting
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Numbers of series, and what the rule says of the first of them: those that meet it before the others."""

    series: int
    holding: int
    unknown: int
    shown: Sequence[Said]


def preview(rule: AlertRule) -> Preview:
    """What ``rule`` (it need not be stored) says now of every series that it selects.

    Raises:
        Invalid: it cannot be applied.
    """
    (judged,) = observing.judge([rule], timezone.now())
    if judged.problem:
        raise Invalid(f"the rule cannot be applied: {judged.problem}")
    ranks = {True: 0, None: 1, False: 2}
    found = sorted(judged.sightings, key=lambda sighting: ranks[sighting.verdict.holds])
    return Preview(
        series=len(found),
        holding=sum(sighting.verdict.holds is True for sighting in found),
        unknown=sum(sighting.verdict.holds is None for sighting in found),
        shown=[Said(sighting=sighting, summary=_summary(rule, sighting)) for sighting in found[:SHOWN]],
    )


def _summary(rule: AlertRule, sighting: Sighting) -> str:
    return wording.summary_of(
        rule.summary,
        rule_name=rule.name,
        metric=sighting.metric,
        labels=sighting.labels,
        verdict=sighting.verdict,
    )
