"""What is different between two specs, node by node. Pure Python; a default that is written out is no difference.

Nodes are the same when they have the same id: a renamed node is one removed and one added.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apps.blueprints.graph import Graph, Node
from apps.blueprints.spec import parse

SPATIAL = (8, 8)
"""H and W for which FLOPs of images are compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was ``before`` and is ``after``; None where there is nothing."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """A node that both have. ``inputs`` is set when it is rewired; ``op`` when it is another operation."""

    id: str
    op: Change | None
    inputs: Change | None
    params: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """``fields``: operator, input and output. ``parameters`` and ``flops`` are there whether they differ or not."""

    fields: tuple[Change, ...]
    symbols: tuple[Change, ...]
    added: tuple[Mapping[str, Any], ...]
    removed: tuple[Mapping[str, Any], ...]
    changed: tuple[NodeChange, ...]
    parameters: Change
    flops: Change

    @property
    def is_empty(self) -> bool:
        return not (self.fields or self.symbols or self.added or self.removed or self.changed)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Diff:
    """What leads from ``before`` to ``after``.

    Raises:
        SpecError: one of them is no blueprint.
    """
    old, new = parse(before), parse(after)
    old_nodes, new_nodes = _nodes(before, old), _nodes(after, new)
    fields = {field: (before[field], after[field]) for field in ("operator", "input", "output")}
    return Diff(
        fields=tuple(Change(name, *pair) for name, pair in fields.items() if pair[0] != pair[1]),
        symbols=_changes(old.symbols, new.symbols),
        added=tuple(node for name, node in new_nodes.items() if name not in old_nodes),
        removed=tuple(node for name, node in old_nodes.items() if name not in new_nodes),
        changed=tuple(
            change
            for name in new_nodes
            if name in old_nodes and (change := _node_change(old_nodes[name], new_nodes[name])) is not None
        ),
        parameters=Change("parameters", old.parameters, new.parameters),
        flops=Change("flops", old.flops(SPATIAL), new.flops(SPATIAL)),
    )


def _nodes(spec: Mapping[str, Any], graph: Graph) -> dict[str, dict[str, Any]]:
    """Id -> the node with every parameter: as it is written (symbols by name), else its default. In the order of the
    graph."""
    written = {node["id"]: node.get("params", {}) for node in spec["nodes"]}
    return {node.id: _shown(node, written[node.id]) for node in graph.nodes}


def _shown(node: Node, written: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": node.id, "op": node.op, "inputs": list(node.inputs), "params": {**node.params, **written}}


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """By name; values of a JSON spec are never None."""
    names = sorted(before.keys() | after.keys())
    pairs = ((name, before.get(name), after.get(name)) for name in names)
    return tuple(Change(name, old, new) for name, old, new in pairs if old != new)


def _node_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> NodeChange | None:
    op, inputs = (
        Change(field, before[field], after[field]) if before[field] != after[field] else None
        for field in ("op", "inputs")
    )
    params = _changes(before["params"], after["params"])
    return NodeChange(id=before["id"], op=op, inputs=inputs, params=params) if op or inputs or params else None
