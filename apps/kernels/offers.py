"""Which kernels to offer to a controller that asks by tags: what it requires, prefers and excludes (KernelQuery).

A thin layer over ``search``: the conditions are a search, so they have its types, its bounds and its errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from django.db.models import Case, FloatField, IntegerField, QuerySet, Value, When
from django.db.models.functions import Coalesce

from apps.core.errors import Invalid
from apps.kernels import search
from apps.kernels.grading import TIMED_TAGS
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.kernels.selectors import validated

Tags = Mapping[str, str | int | float | bool]
MAX_OFFERS = 200
UNKNOWN_RISK = 0.5
"""Of a kernel without outcomes: neither trusted nor distrusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelQuery:
    """Tags with these values are required, excluded, or count for a kernel; at most ``limit`` kernels are offered."""

    required: Tags = field(default_factory=dict)
    preferred: Tags = field(default_factory=dict)
    excluded: Tags = field(default_factory=dict)
    limit: int = 20


def offers(query: KernelQuery) -> QuerySet[Kernel]:
    """VALIDATED kernels by how many preferred tags they have (``preference``), then by lowest risk, then by digest.

    The order is fixed: equal libraries give equal offers. Archived kernels are brought back first.

    Raises:
        Invalid: a tag or its value is none that can be searched for, or there are too many; or a tag tells of timings,
            which never decide inside a run.
    """
    _refuse_timings(query)
    # What is preferred is read as a search too, for its checks; it filters nothing.
    search.from_json(_conditions(query.preferred))
    node = search.from_json(
        [
            {"field": "state", "op": "eq", "value": str(KernelState.VALIDATED)},
            *_conditions(query.required),
            *({"not": condition} for condition in _conditions(query.excluded)),
        ]
    )
    points = [
        Case(When(tags__contains={name: value}, then=1), default=0, output_field=IntegerField())
        for name, value in query.preferred.items()
    ]
    return (
        validated()
        .filter(pk__in=search.matching(node).values("pk"))
        .annotate(
            preference=sum(points, start=Value(0)),
            expected_risk=Coalesce("risk", Value(UNKNOWN_RISK), output_field=FloatField()),
        )
        .order_by("-preference", "expected_risk", "digest", "pk")[: max(0, min(query.limit, MAX_OFFERS))]
    )


def _refuse_timings(query: KernelQuery) -> None:
    for part in ("required", "preferred", "excluded"):
        for name in sorted(TIMED_TAGS & getattr(query, part).keys()):
            raise Invalid("tells of timings, which never decide inside a run", pointer=f"/{part}/{name}", code="timed")


def _conditions(tags: Tags) -> list[dict[str, object]]:
    return [{"field": f"tags.{name}", "op": "eq", "value": value} for name, value in tags.items()]
