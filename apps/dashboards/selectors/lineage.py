"""Who came from whom, drawn: kernels, the blueprint versions that they were compiled from, and what those came from."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.urls import reverse

from apps.blueprints.models import BlueprintVersion, VersionLineage
from apps.core.lineage import Lineage, LineageKind, graph
from apps.dashboards import numbers
from apps.dashboards.graph_drawing import Drawing, Edge, Node, layered
from apps.dashboards.spec_drawing import cut
from apps.dashboards.stages import look
from apps.kernels.models import Kernel, KernelLineage

DEPTH = 4
"""Generations that are drawn, up and down."""
WIDTH, RISE = 186.0, 44.0
"""Of a box, and between two generations, with room for what an edge says."""
MAX_DRAWN = 40
"""Things that are drawn; the nearest ones."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One edge as words, for the list beside the drawing."""

    child: Node
    how: str
    parent: Node


@dataclass(frozen=True, slots=True)
class Picture:
    """``left_out``: relatives within ``DEPTH`` generations that are not drawn; more still if not ``is_complete``."""

    drawing: Drawing
    relations: Sequence[Relation]
    left_out: int
    is_complete: bool


def of_kernel(kernel: Kernel) -> Picture:
    """The kernel's relatives, and its blueprint version with those of that. At most eight queries."""
    kin = graph(KernelLineage, [kernel.pk], depth=DEPTH)
    designs = graph(VersionLineage, [kernel.blueprint_version_id], depth=DEPTH)
    kept = _nearest(kin, MAX_DRAWN)
    kept_designs = _nearest(designs, MAX_DRAWN - len(kept), up_only=True)
    nodes = _kernel_nodes(kept, here=kernel.pk) | _version_nodes(kept_designs)
    compiled = [(kernel.pk, kernel.blueprint_version_id, str(LineageKind.COMPILED_FROM), 1.0)]
    edges = [(link.child, link.parent, link.kind, link.weight) for link in (*kin.edges, *designs.edges)]
    left_out = len(kin.nodes) - len(kept) + sum(node.depth <= 0 for node in designs.nodes) - len(kept_designs)
    return _picture(nodes, compiled + edges, left_out, is_complete=kin.complete and designs.complete)


def of_versions(versions: Collection[UUID]) -> Picture | None:
    """These versions with their relatives; None where none has any. Four queries."""
    kin = graph(VersionLineage, versions, depth=DEPTH)
    if not kin.edges:
        return None
    related = {key for link in kin.edges for key in (link.child, link.parent)}
    kept = [key for key in _nearest(kin, MAX_DRAWN) if key in related]
    edges = [(link.child, link.parent, link.kind, link.weight) for link in kin.edges]
    nodes = _version_nodes(kept, here=set(versions))
    return _picture(nodes, edges, len(related) - len(kept), is_complete=kin.complete)


def _nearest(kin: Lineage, limit: int, *, up_only: bool = False) -> list[UUID]:
    near = sorted(kin.nodes, key=lambda node: abs(node.depth))
    return [node.id for node in near if not up_only or node.depth <= 0][: max(1, limit)]


def _picture(
    nodes: Mapping[UUID, Node], edges: Iterable[tuple[UUID, UUID, str, float]], left_out: int, *, is_complete: bool
) -> Picture:
    shown = [edge for edge in edges if edge[0] in nodes and edge[1] in nodes]
    drawn = [Edge(str(parent), str(child), how(kind, weight)) for child, parent, kind, weight in shown]
    drawing = layered(list(nodes.values()), drawn, width=WIDTH, rise=RISE)
    relations = [Relation(nodes[child], how(kind, weight), nodes[parent]) for child, parent, kind, weight in shown]
    return Picture(drawing=drawing, relations=relations, left_out=left_out, is_complete=is_complete)


def how(kind: str, weight: float) -> str:
    """``derived``, ``merged 50 %``."""
    words = kind.removesuffix("_from").replace("_", " ")
    return words if weight == 1 else f"{words} {numbers.percent(weight, 0)}"


def _kernel_nodes(keys: Collection[UUID], *, here: UUID) -> dict[UUID, Node]:
    rows = Kernel.objects.filter(pk__in=keys).order_by("id").values_list("pk", "name", "state")
    return {
        key: Node(
            str(key),
            cut(name),
            f"kernel, {look('kernel', state).word}",
            href="" if key == here else reverse("dashboards:kernel", args=[key]),
            tone="here" if key == here else "",
            hint=name,
        )
        for key, name, state in rows
    }


def _version_nodes(keys: Collection[UUID], *, here: Collection[UUID] = ()) -> dict[UUID, Node]:
    rows = BlueprintVersion.objects.filter(pk__in=keys).select_related("blueprint").defer("spec").order_by("id")
    return {
        version.pk: Node(
            str(version.pk),
            cut(str(version)),
            f"blueprint, {look('version', version.state).word}",
            href=f"{reverse('dashboards:blueprint', args=[version.blueprint_id])}#v{version.number}",
            tone="here" if version.pk in here else "design",
            hint=str(version),
        )
        for version in rows
    }
