"""The blueprint grammar: JSON in, a ``Graph`` out. Pure Python: no Django, no torch. Reference: docs/blueprints.md.

    {"version": 1, "operator": "residual", "symbols": {"D": 64, "H": 32}, "input": ["N", "D"],
     "nodes": [{"id": "fc1", "op": "linear", "inputs": ["input"], "params": {"out_features": "H"}},
               {"id": "act", "op": "relu", "inputs": ["fc1"]},
               {"id": "fc2", "op": "linear", "inputs": ["act"], "params": {"out_features": "D", "init": "zeros"}}],
     "output": "fc2"}

``parse`` checks everything and raises nothing but SpecError, whatever it is given. Work is bounded by the limits below.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from apps.blueprints.graph import INPUT, Graph, Node, SpecError
from apps.blueprints.ops import MAX_SIZE, OPS, Call, Dim, Op, OpError, Param, Shape, TensorSpec
from apps.blueprints.readers import NODE_ID, RESERVED_IDS, SYMBOL, Reader, did_you_mean, show
from apps.blueprints.rules import OPERATORS

__all__ = [
    "INPUT",
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_PARAMETERS",
    "MAX_SIZE",
    "MAX_SYMBOLS",
    "OPERATORS",
    "OPS",
    "VERSION",
    "Dim",
    "Graph",
    "Node",
    "Shape",
    "SpecError",
    "TensorSpec",
    "bind",
    "canonical_json",
    "digest",
    "parse",
]

VERSION = 1
MAX_NODES = 64
MAX_DEPTH = 48
"""Nodes on the longest path from input to output."""
MAX_SYMBOLS = 32
MAX_PARAMETERS = 16_000_000
"""Trainable scalars of one kernel: 61 MiB of float32, so that every legal kernel fits an artefact of 64 MiB."""

INPUT_LAYOUTS: Mapping[int, tuple[str | None, ...]] = {2: ("N", None), 4: ("N", None, "H", "W")}
"""Rank -> the names of the free dimensions, by position; None marks the feature dimension, which must be bound."""

FIELDS = ("version", "operator", "symbols", "input", "nodes", "output")
NODE_FIELDS = ("id", "op", "inputs", "params")


def parse(spec: Mapping[str, Any]) -> Graph:
    """The graph that ``spec`` describes, with every symbol at the size the spec gives it.

    Raises:
        SpecError: anything at all is wrong; the first fault found, in document order.
    """
    root = Reader.of(spec)
    root.only(FIELDS, optional=("symbols",))
    root.choice("version", (VERSION,))
    operator = root.choice("operator", tuple(OPERATORS))
    symbols = _symbols(root)
    sizes = _Sizes(symbols)
    input_shape = _input_shape(root, sizes)
    nodes = _nodes(root, sizes, input_shape)
    sizes.check_all_used(root)
    output = root.reference("output", {node.id for node in nodes}, "node")
    graph = Graph(
        operator=operator,
        symbols=symbols,
        input_shape=input_shape,
        output_shape=next(node.output_shape for node in nodes if node.id == output),
        nodes=nodes,
        output=output,
    )
    _check_all_reach_output(graph)
    _check_budget(graph)
    OPERATORS[operator](graph)
    return graph


def bind(spec: Mapping[str, Any], /, **symbols: int) -> dict[str, Any]:
    """``spec`` with every symbol replaced by a size: the given one, else the spec's own default. No ``symbols`` remain.

    Raises:
        SpecError: the spec is invalid, a symbol is unknown or a size out of range, or the bound graph breaks a rule.
    """
    root = Reader.of(spec)
    defaults = _symbols(root)
    for name in symbols:
        if name not in defaults:
            raise SpecError(
                f"no symbol {show(name)} in this blueprint{did_you_mean(name, defaults)}",
                pointer=f"/symbols/{name}",
                code="unknown",
            )
    rebound = {**spec, "symbols": {**defaults, **symbols}}
    graph = parse(rebound)
    return {
        "version": spec["version"],
        "operator": spec["operator"],
        "input": list(graph.input_shape),
        "nodes": [_bound_node(node, graph) for node in spec["nodes"]],
        "output": spec["output"],
    }


def canonical_json(spec: Mapping[str, Any]) -> bytes:
    """The one spelling of ``spec``: RFC 8785 (sorted keys, no blanks). Operand order counts. Raises SpecError."""
    parse(spec)
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=dict).encode()


def digest(spec: Mapping[str, Any]) -> str:
    """sha256, in hex, of the canonical JSON. Raises SpecError."""
    return hashlib.sha256(canonical_json(spec)).hexdigest()


class _Sizes:
    """Resolves sizes to ints and remembers which symbols were used."""

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self._symbols = symbols
        self._used: set[str] = set()

    def resolve(self, reader: Reader, key: str | int, *, minimum: int = 1, maximum: int = MAX_SIZE) -> int:
        value = reader.raw(key)
        if isinstance(value, str):
            if value not in self._symbols:
                raise reader.error(
                    key,
                    f"unknown symbol {show(value)}{did_you_mean(value, self._symbols)}; declare it in symbols",
                    code="unknown",
                )
            self._used.add(value)
            value = self._symbols[value]
        return reader.check_integer(key, value, minimum, maximum)

    def check_all_used(self, root: Reader) -> None:
        for name in self._symbols:
            if name not in self._used:
                raise root.child("symbols").error(name, f"symbol {name!r} is never used; remove it", code="unused")


def _symbols(root: Reader) -> dict[str, int]:
    if not root.has("symbols"):
        return {}
    reader = root.mapping("symbols", maximum=MAX_SYMBOLS)
    for name in reader.names():
        if not SYMBOL.fullmatch(name):
            raise reader.error(
                name,
                f"a symbol is written in capitals, digits and _ (such as D or FAN_IN), not {show(name)}",
                code="name",
            )
    return {name: reader.check_integer(name, reader.raw(name), 1, MAX_SIZE) for name in reader.names()}


def _input_shape(root: Reader, sizes: _Sizes) -> Shape:
    reader = root.sequence("input", maximum=max(INPUT_LAYOUTS))
    layout = INPUT_LAYOUTS.get(len(reader))
    if layout is None:
        raise root.error("input", 'must be ["N", features] or ["N", channels, "H", "W"]', code="rank")
    shape: list[Dim] = []
    for position, name in enumerate(layout):
        if name is None:
            shape.append(sizes.resolve(reader, position))
        elif reader.raw(position) != name or not isinstance(reader.raw(position), str):
            raise reader.error(position, f'must be "{name}": this dimension stays free', code="free")
        else:
            shape.append(name)
    return tuple(shape)


def _nodes(root: Reader, sizes: _Sizes, input_shape: Shape) -> tuple[Node, ...]:
    """The nodes in topological order, shapes inferred."""
    sequence = root.sequence("nodes", maximum=MAX_NODES)
    readers = [sequence.child(index) for index in range(len(sequence))]
    ids = _node_ids(readers)
    heads = [_node_head(reader, ids) for reader in readers]
    order = _topological(heads, readers)
    shapes: dict[str, Shape] = {INPUT: input_shape}
    depth = {INPUT: 0}
    nodes: dict[int, Node] = {}
    for index in order:
        node_id, op, inputs = heads[index]
        reader = readers[index].named(node_id)
        depth[node_id] = 1 + max(depth[source] for source in inputs)
        if depth[node_id] > MAX_DEPTH:
            raise reader.error(None, f"the graph is deeper than {MAX_DEPTH} nodes", code="too_deep")
        params = _params(reader, op, sizes)
        input_shapes = tuple(shapes[source] for source in inputs)
        shapes[node_id] = _infer(reader, op, input_shapes, params)
        nodes[index] = Node(
            id=node_id,
            op=op,
            inputs=inputs,
            params=params,
            input_shapes=input_shapes,
            output_shape=shapes[node_id],
            index=index,
        )
    return tuple(nodes[index] for index in order)


def _node_ids(readers: list[Reader]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for index, reader in enumerate(readers):
        node_id = reader.identifier("id", NODE_ID, "a node id is written in lower case, digits and _ (such as fc1)")
        if node_id in RESERVED_IDS:
            raise reader.error("id", f"{node_id!r} is reserved; choose another id", code="reserved")
        if node_id in ids:
            raise reader.error(
                "id", f"node id {node_id!r} is taken by /nodes/{ids[node_id]}; ids must be unique", code="duplicate"
            )
        ids[node_id] = index
    return ids


def _node_head(reader: Reader, ids: Mapping[str, int]) -> tuple[str, str, tuple[str, ...]]:
    """(id, op, inputs) of one node, references checked."""
    node_id = str(reader.raw("id"))
    reader = reader.named(node_id)
    reader.only(NODE_FIELDS, optional=("params",))
    op = reader.choice("op", tuple(OPS), what="operation")
    inputs = reader.sequence("inputs", maximum=8)
    arity = OPS[op].arity
    if len(inputs) != arity:
        raise reader.error("inputs", f"{op} takes {arity} input{'s'[: arity > 1]}, not {len(inputs)}", code="arity")
    known = {INPUT, *ids}
    return node_id, op, tuple(inputs.reference(position, known, "node") for position in range(arity))


def _topological(heads: list[tuple[str, str, tuple[str, ...]]], readers: list[Reader]) -> list[int]:
    """Indexes with every node after its inputs, ties in document order."""
    placed = {INPUT}
    order: list[int] = []
    waiting = list(range(len(heads)))
    while waiting:
        ready = next((index for index in waiting if placed.issuperset(heads[index][2])), None)
        if ready is None:
            names = ", ".join(heads[index][0] for index in waiting)
            first = waiting[0]
            raise (
                readers[first]
                .named(heads[first][0])
                .error("inputs", f"the inputs form a cycle through or before: {names}", code="cycle")
            )
        waiting.remove(ready)
        placed.add(heads[ready][0])
        order.append(ready)
    return order


def _params(reader: Reader, op_name: str, sizes: _Sizes) -> dict[str, Any]:
    """The node's parameters, checked, with defaults filled in."""
    op: Op = OPS[op_name]
    given = reader.mapping("params", maximum=32) if reader.has("params") else reader.empty("params")
    for name in given.names():
        if name not in op.params:
            known = f"; it takes {', '.join(op.params)}" if op.params else "; it takes none"
            raise given.error(
                name, f"{op_name} has no parameter {show(name)}{did_you_mean(name, op.params) or known}", code="unknown"
            )
    return {name: _param(given, op_name, name, param, sizes) for name, param in op.params.items()}


def _param(given: Reader, op_name: str, name: str, param: Param, sizes: _Sizes) -> Any:
    if not given.has(name):
        if param.required:
            raise given.error(name, f"{op_name} needs {name}", code="required")
        return param.default
    if param.kind == "boolean":
        return given.boolean(name)
    if param.kind == "choice":
        return given.choice(name, param.choices)
    if param.kind == "size":
        return sizes.resolve(given, name, minimum=param.minimum, maximum=param.maximum)
    value = given.check_integer(name, given.raw(name), param.minimum, param.maximum)
    if param.odd and value % 2 == 0:
        raise given.error(name, f"must be odd, so that the padding is even on all sides, not {value}", code="range")
    return value


def _infer(reader: Reader, op: str, inputs: tuple[Shape, ...], params: Mapping[str, Any]) -> Shape:
    try:
        return OPS[op].shape(Call(inputs, params))
    except OpError as error:
        where = reader.child("params") if error.param else reader
        raise where.error(error.param or "inputs", str(error), code="shape") from None


def _check_all_reach_output(graph: Graph) -> None:
    """A node that the output does not depend on would hold parameters that never train."""
    used = {graph.output}
    for node in reversed(graph.nodes):
        if node.id in used:
            used.update(node.inputs)
    for node in graph.nodes:
        if node.id not in used:
            raise SpecError(
                f"node {node.id!r} does not reach the output {graph.output!r}; use it or remove it",
                pointer=node.pointer,
                node=node.id,
                code="unused",
            )


def _check_budget(graph: Graph) -> None:
    if graph.parameters > MAX_PARAMETERS:
        raise SpecError(
            f"{graph.parameters:,} parameters are over the limit of {MAX_PARAMETERS:,}; use smaller sizes",
            pointer="/nodes",
            code="too_large",
        )


def _bound_node(node: Mapping[str, Any], graph: Graph) -> dict[str, Any]:
    bound = {key: list(value) if key == "inputs" else value for key, value in node.items()}
    if "params" in node:
        resolved = graph.node(node["id"]).params
        bound["params"] = {name: resolved[name] for name in node["params"]}
    return bound
