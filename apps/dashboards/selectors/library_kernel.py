"""One kernel with all that its page shows: what it is, its proof, what it did, where it came from, what keeps it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from apps.audit import selectors as audit
from apps.dashboards.graph_drawing import Drawing
from apps.dashboards.selectors import lineage, trail
from apps.dashboards.selectors.cache import Warmth, warmth
from apps.dashboards.selectors.outcomes import Outcome, outcomes_of
from apps.dashboards.spec_drawing import spec_drawing
from apps.kernels import selectors as kernels
from apps.kernels.models import AliasPeriod, FieldReport, Kernel, KernelAlias, KernelBlob, KernelUse, KernelVariant
from apps.training.models import TrainingRun

MAX_REPORTS = 50
MAX_PERIODS = 10
MAX_EVENTS = 15


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node of the spec, with its symbols bound."""

    id: str
    op: str
    inputs: Sequence[str]
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bytes:
    """Where the bytes are. ``holders``: runs that hold the kernel now."""

    blob: KernelBlob | None
    holders: int

    @property
    def places(self) -> list[str]:
        if self.blob is None or self.blob.freed_at is not None:
            return []
        database = ["database"] if self.blob.in_database else []
        return [*database, "object storage"] if self.blob.archived_at else database


@dataclass(frozen=True, slots=True)
class KernelPortrait:
    """``proofs`` are the stages of the compile and validation reports, in the order in which they ran."""

    kernel: Kernel
    outcome: Outcome
    reports: Sequence[FieldReport]
    run_names: Mapping[UUID, str]
    nodes: Sequence[NodeLine]
    drawing: Drawing | None
    proofs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
    variants: Sequence[KernelVariant]
    aliases: Sequence[KernelAlias]
    periods: Sequence[AliasPeriod]
    lineage: lineage.Picture
    bytes: Bytes
    warmth: Warmth | None
    """None: it has no bytes."""


def portrait(kernel_id: UUID) -> KernelPortrait | None:
    """One kernel, in a bounded number of queries whatever it did and came from."""
    kernel = kernels.kernels().select_related("successor").filter(pk=kernel_id).first()
    if kernel is None:
        return None
    reports = list(FieldReport.objects.filter(kernel=kernel).order_by("-id")[:MAX_REPORTS])
    names = TrainingRun.objects.filter(pk__in={report.run_id for report in reports}).values_list("pk", "name")
    spec = kernel.blueprint_version.spec
    return KernelPortrait(
        kernel=kernel,
        outcome=outcomes_of([kernel])[kernel.pk],
        reports=reports,
        run_names=dict(names),
        nodes=[_node_line(node, kernel.bindings) for node in spec.get("nodes", [])],
        drawing=spec_drawing(spec, bindings=kernel.bindings),
        proofs=[
            (job, kernel.report[job].get("stages", [])) for job in ("compile", "validation") if job in kernel.report
        ],
        variants=list(kernel.variants.all()),
        aliases=list(kernel.aliases.all()),
        periods=list(kernel.alias_periods.select_related("alias")[:MAX_PERIODS]),
        lineage=lineage.of_kernel(kernel),
        bytes=Bytes(
            blob=KernelBlob.objects.filter(pk=kernel.digest).first() if kernel.digest else None,
            holders=KernelUse.objects.filter(kernel=kernel, until=None).count(),
        ),
        warmth=warmth(kernel.digest) if kernel.digest else None,
    )


def history(kernel: Kernel) -> list[trail.Line]:
    """The newest events about it, for those who may read the trail."""
    return trail.lines_of(list(audit.events_of(subject_type="kernel", subject_id=str(kernel.pk))[:MAX_EVENTS]))


def _node_line(node: Mapping[str, Any], bindings: Mapping[str, int]) -> NodeLine:
    params = {
        name: bindings.get(value, value) if isinstance(value, str) else value
        for name, value in node.get("params", {}).items()
    }
    return NodeLine(id=node["id"], op=node["op"], inputs=node["inputs"], params=params)
