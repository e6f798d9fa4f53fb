"""The library as people look through it: kernels with their state, contract and outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import Count, Q

from apps.blueprints.models import Blueprint
from apps.core.ids import parse_id
from apps.dashboards.selectors.outcomes import Outcome, outcomes_of
from apps.dashboards.selectors.runs import clean_text
from apps.kernels import selectors as kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel

PAGE_SIZE = 50
CHOICES: dict[str, tuple[str, ...]] = {"state": tuple(KernelState), "operator": ("widen", "residual")}


@dataclass(frozen=True, slots=True)
class KernelFilter:
    chosen: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    after: UUID | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "KernelFilter":
        return cls(
            chosen={name: query[name] for name, known in CHOICES.items() if query.get(name) in known},
            text=clean_text(query.get("q", "")),
            after=parse_id(query.get("after", "")),
        )


@dataclass(frozen=True, slots=True)
class KernelPage:
    rows: Sequence[Kernel]
    outcomes: Mapping[UUID, Outcome]
    next_after: UUID | None
    is_empty: bool


def page(wanted: KernelFilter) -> KernelPage:
    """The newest kernels that fit."""
    fitting = kernels.kernels().filter(**wanted.chosen).order_by("-id")
    if wanted.text:
        fitting = fitting.filter(text_matches(wanted.text))
    if wanted.after is not None:
        fitting = fitting.filter(id__lt=wanted.after)
    rows = list(fitting.defer("report", "blueprint_version__spec")[: PAGE_SIZE + 1])
    more = len(rows) > PAGE_SIZE
    return KernelPage(
        rows=rows[:PAGE_SIZE],
        outcomes=outcomes_of(rows[:PAGE_SIZE]),
        next_after=rows[PAGE_SIZE - 1].pk if more else None,
        is_empty=not rows and not Kernel.objects.exists(),
    )


def text_matches(text: str) -> Q:
    """Kernels that ``text`` finds: part of a name, a whole id, or the start of a digest."""
    key = parse_id(text)
    found = Q(name__icontains=text) | (Q(pk=key) if key else Q(pk__in=[]))
    return found | Q(digest__startswith=text.lower()) if len(text) >= 8 else found


def blueprint_rows() -> list[Blueprint]:
    """Every blueprint with the number of its versions and kernels."""
    counts = {
        "version_total": Count("versions", distinct=True),
        "kernel_total": Count("versions__kernels", distinct=True),
    }
    return list(Blueprint.objects.annotate(**counts).order_by("name")[:PAGE_SIZE])
