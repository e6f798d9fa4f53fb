"""One blueprint with its versions, aliases, lineage and kernels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, Q

from apps.blueprints import spec as grammar
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.dashboards.selectors import lineage
from apps.dashboards.selectors.outcomes import Outcome, outcomes_of
from apps.kernels import selectors as kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelAlias

MAX_VERSIONS = 50
MAX_KERNELS = 20


@dataclass(frozen=True, slots=True)
class VersionLine:
    """``flops``: of one forward pass of one sample; of an image, of one position. None: its spec no longer parses."""

    version: BlueprintVersion
    flops: int | None
    kernels: int
    validated: int
    before: int | None
    """The number of the version before it."""


@dataclass(frozen=True, slots=True)
class BlueprintPortrait:
    blueprint: Blueprint
    versions: Sequence[VersionLine]
    has_more_versions: bool
    aliases: Sequence[KernelAlias]
    kernels: Sequence[Kernel]
    outcomes: Mapping[UUID, Outcome]
    has_more_kernels: bool
    lineage: lineage.Picture | None


def portrait(blueprint_id: UUID) -> BlueprintPortrait | None:
    """None: there is none. A fixed number of queries."""
    blueprint = Blueprint.objects.filter(pk=blueprint_id).first()
    if blueprint is None:
        return None
    counts = {
        "kernel_total": Count("kernels"),
        "validated_total": Count("kernels", filter=Q(kernels__state=KernelState.VALIDATED)),
    }
    versions = list(blueprint.versions.annotate(**counts).order_by("-number")[: MAX_VERSIONS + 1])
    for version in versions:
        version.blueprint = blueprint
    shown = versions[:MAX_VERSIONS]
    rows = list(
        kernels.kernels()
        .filter(blueprint_version__blueprint=blueprint)
        .order_by("-id")
        .defer("report", "blueprint_version__spec")[: MAX_KERNELS + 1]
    )
    numbers = [version.number for version in versions]
    return BlueprintPortrait(
        blueprint=blueprint,
        versions=[_line(version, before) for version, before in zip(shown, [*numbers[1:], None], strict=False)],
        has_more_versions=len(versions) > MAX_VERSIONS,
        aliases=list(blueprint.aliases.select_related("kernel").filter(kernel__isnull=False)),
        kernels=rows[:MAX_KERNELS],
        outcomes=outcomes_of(rows[:MAX_KERNELS]),
        has_more_kernels=len(rows) > MAX_KERNELS,
        lineage=lineage.of_versions([version.pk for version in shown]) if shown else None,
    )


def _line(version: BlueprintVersion, before: int | None) -> VersionLine:
    return VersionLine(
        version=version,
        flops=flops_of(version),
        kernels=version.kernel_total,  # type: ignore[attr-defined]
        validated=version.validated_total,  # type: ignore[attr-defined]
        before=before,
    )


def flops_of(version: BlueprintVersion) -> int | None:
    try:
        return grammar.parse(version.spec).flops()
    except grammar.SpecError:
        return None
