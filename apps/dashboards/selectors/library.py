"""The library as people look through it: kernels with their state, contract and outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Avg, Count, Q, QuerySet

from apps.blueprints.models import Blueprint
from apps.core.ids import parse_id
from apps.dashboards.selectors.runs import clean_text
from apps.kernels import selectors as kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import FieldReport, Kernel
from apps.morphogenesis.lifecycle import SeedState
from apps.training.models import TrainingRun

PAGE_SIZE = 50
MAX_REPORTS = 50
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
    next_after: UUID | None
    is_empty: bool


def page(wanted: KernelFilter) -> KernelPage:
    """The newest kernels that fit, each with ``reports``, ``kept`` and ``gain`` from its field reports."""
    fitting = _with_outcomes(kernels.kernels()).filter(**wanted.chosen).order_by("-id")
    if wanted.text:
        fitting = fitting.filter(text_matches(wanted.text))
    if wanted.after is not None:
        fitting = fitting.filter(id__lt=wanted.after)
    rows = list(fitting.defer("report", "blueprint_version__spec")[: PAGE_SIZE + 1])
    more = len(rows) > PAGE_SIZE
    return KernelPage(
        rows=rows[:PAGE_SIZE],
        next_after=rows[PAGE_SIZE - 1].pk if more else None,
        is_empty=not rows and not Kernel.objects.exists(),
    )


def text_matches(text: str) -> Q:
    """Kernels that ``text`` finds: part of a name, a whole id, or the start of a digest."""
    key = parse_id(text)
    found = Q(name__icontains=text) | (Q(pk=key) if key else Q(pk__in=[]))
    return found | Q(digest__startswith=text.lower()) if len(text) >= 8 else found


def _with_outcomes(found: QuerySet[Kernel]) -> QuerySet[Kernel]:
    return found.annotate(
        reports=Count("field_reports"),
        kept=Count("field_reports", filter=Q(field_reports__verdict=SeedState.FOSSILIZED)),
        gain=Avg("field_reports__contribution"),
    )


def blueprint_rows() -> list[Blueprint]:
    """Every blueprint with the number of its versions and kernels."""
    counts = {
        "version_total": Count("versions", distinct=True),
        "kernel_total": Count("versions__kernels", distinct=True),
    }
    return list(Blueprint.objects.annotate(**counts).order_by("name")[:PAGE_SIZE])


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node of the spec, with its symbols bound."""

    id: str
    op: str
    inputs: Sequence[str]
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KernelPortrait:
    """``proofs`` are the stages of the compile and validation reports, in the order in which they ran."""

    kernel: Kernel
    reports: Sequence[FieldReport]
    run_names: Mapping[UUID, str]
    nodes: Sequence[NodeLine]
    proofs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]


def portrait(kernel_id: UUID) -> KernelPortrait | None:
    """One kernel: its spec in order, the proofs it passed, and what it did to runs. Three queries."""
    kernel = _with_outcomes(kernels.kernels()).filter(pk=kernel_id).first()
    if kernel is None:
        return None
    reports = list(FieldReport.objects.filter(kernel=kernel).order_by("-id")[:MAX_REPORTS])
    names = TrainingRun.objects.filter(pk__in={report.run_id for report in reports}).values_list("pk", "name")
    return KernelPortrait(
        kernel=kernel,
        reports=reports,
        run_names=dict(names),
        nodes=[_node_line(node, kernel.bindings) for node in kernel.blueprint_version.spec.get("nodes", [])],
        proofs=[
            (job, kernel.report[job].get("stages", [])) for job in ("compile", "validation") if job in kernel.report
        ],
    )


def _node_line(node: Mapping[str, Any], bindings: Mapping[str, int]) -> NodeLine:
    params = {name: bindings.get(value, value) for name, value in node.get("params", {}).items()}
    return NodeLine(id=node["id"], op=node["op"], inputs=node["inputs"], params=params)
