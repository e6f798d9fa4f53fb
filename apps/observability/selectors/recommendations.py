"""What people should do next: every rule, asked once."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.utils import timezone

from apps.core.errors import Unavailable
from apps.observability.models import Severity
from apps.observability.recommendations.contracts import Recommendation
from apps.observability.recommendations.facts import Facts
from apps.observability.recommendations.rules import RULES

log = structlog.get_logger(__name__)

ORDER = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A rule that could say nothing, and why."""

    rule: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """``recommendations`` with the worst first; empty and nothing ``unknown``: there is nothing to do."""

    recommendations: Sequence[Recommendation]
    unknown: Sequence[Silence]


def advice(*, workspace_id: UUID | None = None) -> Advice:
    """A fixed number of queries, whatever there is. A rule whose numbers cannot be read does not silence the others."""
    facts = Facts(timezone.now(), workspace_id)
    found: list[Recommendation] = []
    unknown: list[Silence] = []
    for rule in RULES:
        try:
            found += rule.find(facts, rule)
        except Unavailable as error:
            log.warning("recommendation_unknown", rule=rule.key, error=error.detail)
            unknown.append(Silence(rule=rule.key, why=error.detail))
    return Advice(recommendations=sorted(found, key=_rank), unknown=unknown)


def _rank(recommendation: Recommendation) -> tuple[int, int]:
    places = [rule.key for rule in RULES]
    return ORDER[Severity(recommendation.severity)], places.index(recommendation.rule)
