"""A blueprint's spec as a small drawing: input, operations, output, with their sizes. Pure functions."""

from collections.abc import Mapping
from graphlib import CycleError
from typing import Any

from apps.blueprints.graph import INPUT
from apps.dashboards.graph_drawing import Drawing, Edge, Node, layered

OUTPUT = "output"
MAX_NOTE = 26
LAST = frozenset({"init", "bias"})
"""Parameters that are no sizes."""


def spec_drawing(
    spec: Mapping[str, Any],
    *,
    bindings: Mapping[str, Any] | None = None,
    tones: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Drawing | None:
    """``spec`` from input to output, symbols shown as ``bindings`` (else the spec's own sizes) bind them.

    ``tones`` and ``notes`` (node id -> CSS class, first words of its note) mark nodes. None: it cannot be drawn.
    """
    sizes = {**spec.get("symbols", {}), **(bindings or {})}
    nodes = [Node(INPUT, "input", _shape(spec.get("input", []), sizes), tone="end")]
    edges = []
    for node in spec.get("nodes", []):
        said = describe(node, sizes)
        mark = (notes or {}).get(node["id"], "")
        note = ": ".join(filter(None, (mark, node["id"])))
        nodes.append(
            Node(
                node["id"],
                cut(f"{node['op']} {said}".rstrip()),
                cut(note),
                tone=(tones or {}).get(node["id"], ""),
                hint=f"{note}: {node['op']} {said}".rstrip(),
            )
        )
        edges += [Edge(source, node["id"]) for source in node["inputs"]]
    nodes.append(Node(OUTPUT, "output", tone="end"))
    edges.append(Edge(str(spec.get("output", "")), OUTPUT))
    try:
        return layered(nodes, edges, width=176.0, rise=22.0)
    except CycleError:
        return None


def describe(node: Mapping[str, Any], sizes: Mapping[str, Any]) -> str:
    """``out channels 8, kernel size 3``: the parameters with their symbols bound, sizes first."""
    return ", ".join(
        f"{name.replace('_', ' ')} {_text(sizes.get(value, value) if isinstance(value, str) else value)}"
        for name, value in sorted(node.get("params", {}).items(), key=lambda item: item[0] in LAST)
    )


def _shape(values: Any, sizes: Mapping[str, Any]) -> str:
    return " \u00d7 ".join(str(sizes.get(value, value)) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "\u00d7".join(map(str, value)) if isinstance(value, list) else str(value)


def cut(text: str, length: int = MAX_NOTE) -> str:
    """What fits into a box."""
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"
