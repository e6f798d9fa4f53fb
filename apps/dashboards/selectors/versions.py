"""One blueprint with its versions, aliases, lineage and kernels; and two of its versions side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count, Q

from apps.blueprints import spec as grammar
from apps.blueprints.diff import SPATIAL, Change, Diff, compare
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.dashboards.graph_drawing import Drawing
from apps.dashboards.selectors import lineage
from apps.dashboards.selectors.outcomes import Outcome, outcomes_of
from apps.dashboards.spec_drawing import describe, spec_drawing
from apps.kernels import selectors as kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelAlias

MAX_VERSIONS = 50
MAX_KERNELS = 20


@dataclass(frozen=True, slots=True)
class VersionLine:
    """``flops``: of one forward pass of one sample, of an image of 8 x 8. None: its spec no longer parses."""

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
        return grammar.parse(version.spec).flops(SPATIAL)
    except grammar.SpecError:
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """A node on both sides. ``word`` says what became of it; empty for one that is the same."""

    id: str
    word: str
    before: str
    after: str

    @property
    def mark(self) -> str:
        return MARKS.get(self.word, "")

    @property
    def tone(self) -> str:
        return self.word.split()[0] if self.word else ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions side by side. ``fault``: why they cannot be compared; the drawings stand all the same."""

    blueprint: Blueprint
    old: BlueprintVersion
    new: BlueprintVersion
    numbers: Sequence[int]
    diff: Diff | None
    fault: str
    rows: Sequence[Row]
    old_drawing: Drawing | None
    new_drawing: Drawing | None

    @property
    def figures(self) -> list[tuple[str, Change, int]]:
        """(what, before and after, the difference)."""
        if self.diff is None:
            return []
        pairs = (("Parameters", self.diff.parameters), ("FLOPs", self.diff.flops))
        return [(name, change, change.after - change.before) for name, change in pairs]


MARKS = {
    "added": "+",
    "removed": "\u2212",
    "changed": "\u2260",
    "rewired": "\u21c4",
    "changed and rewired": "\u2260\u21c4",
}
"""What became of a node -> the sign before the word."""


def newest_two(blueprint_id: UUID) -> list[int]:
    """The numbers of the version before the newest and of the newest; fewer if there are fewer."""
    numbers = (
        BlueprintVersion.objects.filter(blueprint=blueprint_id).order_by("-number").values_list("number", flat=True)
    )
    return list(numbers[:2])[::-1]


def comparison(blueprint_id: UUID, old: int, new: int) -> Comparison | None:
    """None: there is no such blueprint or version. Three queries."""
    blueprint = Blueprint.objects.filter(pk=blueprint_id).first()
    if blueprint is None:
        return None
    found = {version.number: version for version in blueprint.versions.filter(number__in={old, new})}
    if old not in found or new not in found:
        return None
    before, after = found[old].spec, found[new].spec
    diff, fault = None, ""
    try:
        diff = compare(before, after)
    except grammar.SpecError as error:
        fault = str(error)
    words = dict(_words(diff)) if diff else {}
    tones = {node: f"is-{word.split()[0]}" for node, word in words.items()}
    return Comparison(
        blueprint=blueprint,
        old=found[old],
        new=found[new],
        numbers=list(blueprint.versions.order_by("-number").values_list("number", flat=True)[:MAX_VERSIONS]),
        diff=diff,
        fault=fault,
        rows=_rows(before, after, words),
        old_drawing=spec_drawing(before, tones=tones, notes=_notes(words)),
        new_drawing=spec_drawing(after, tones=tones, notes=_notes(words)),
    )


def _words(diff: Diff) -> Iterator[tuple[str, str]]:
    """(node, what became of it)."""
    yield from ((node["id"], "added") for node in diff.added)
    yield from ((node["id"], "removed") for node in diff.removed)
    for change in diff.changed:
        is_changed = change.op is not None or bool(change.params)
        yield change.id, " and ".join(["changed"] * is_changed + ["rewired"] * (change.inputs is not None))


def _notes(words: Mapping[str, str]) -> dict[str, str]:
    return {node: f"{MARKS[word]} {word}" for node, word in words.items()}


def _rows(before: Mapping[str, Any], after: Mapping[str, Any], words: Mapping[str, str]) -> list[Row]:
    """The nodes of the new spec in its order, then those that are gone."""
    old, new = ({node["id"]: node for node in spec["nodes"]} for spec in (before, after))
    keys = [*new, *(key for key in old if key not in new)]
    return [Row(key, words.get(key, ""), _said(old.get(key), before), _said(new.get(key), after)) for key in keys]


def _said(node: Mapping[str, Any] | None, spec: Mapping[str, Any]) -> str:
    """``linear of input, out features 8``."""
    if node is None:
        return ""
    said = describe(node, spec.get("symbols", {}))
    return f"{node['op']} of {', '.join(node['inputs'])}{f', {said}' if said else ''}"
