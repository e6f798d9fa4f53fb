"""New specs from old ones: one small change (``mutate``) or a combination of two (``cross``). Pure Python.

Both draw from a generator seeded by the caller, so that equal arguments give equal specs. What they give is a valid
blueprint of the same contract as its parents, at twice the sizes too, and of another design than theirs. Candidates are
enumerated, shuffled and tried, so that the work is bounded.
"""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from apps.blueprints.graph import INPUT, Graph, SpecError
from apps.blueprints.ops import OPS, Shape
from apps.blueprints.readers import RESERVED_IDS
from apps.blueprints.rules import LAYERS, zero_at_birth
from apps.blueprints.spec import parse

Spec = dict[str, Any]
Size = int | str

KERNEL_SIZES = (1, 3, 5, 7)
FACTORS = (0.5, 0.75, 1.5, 2.0)
ACTIVATIONS = tuple(name for name, op in OPS.items() if op.activation)
NORMS: Mapping[int, tuple[str, ...]] = {2: ("batch_norm", "layer_norm", "rms_norm"), 4: ("batch_norm", "group_norm")}
LAYER: Mapping[int, tuple[str, str]] = {2: ("linear", "out_features"), 4: ("conv2d", "out_channels")}
"""Rank -> the layer and the parameter that holds its size."""
CARRIED: Mapping[str, int] = {"attention": 2}
"""Operation -> the input whose features its output has, where that is not the first."""


class NoVariation(ValueError):
    """No candidate is another valid blueprint of the same contract."""


class ContractsDiffer(NoVariation):
    """Two blueprints that fit different slots."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """A new spec; ``change`` says in words how it came about; ``share`` of its nodes are the (left) parent's."""

    spec: Spec
    change: str
    share: float = 1.0


def mutate(spec: Mapping[str, Any], *, seed: int) -> Variation:
    """``spec`` with one change: a size, a kernel size, an activation, a node or a pair more or less.

    Raises:
        SpecError: ``spec`` is no blueprint. NoVariation: no single change leads to another blueprint.
    """
    return _first(spec, [spec], MUTATIONS, seed, "no single change leads to another blueprint")


def cross(left: Mapping[str, Any], right: Mapping[str, Any], *, seed: int) -> Variation:
    """One combination of two blueprints of equal contract.

    Residual ones: side by side (their sum), one after the other, one as the gate of the other, or the beginning of one
    with the end of the other. Widening ones: their units together, or the beginning of one with the end of the other.

    Raises:
        SpecError: one is no blueprint. ContractsDiffer: they fit different slots. NoVariation: they are too alike.
    """
    _check_contracts(left, right)
    pair = _Pair(dict(left), _renamed(right, left))
    ways = CROSSINGS[left["operator"]]
    return _first(pair, [left, right], ways, seed, "no combination of the two is another blueprint")


def design(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a spec is at its default sizes, whatever its nodes and symbols are called. Raises SpecError."""
    graph = parse(spec)
    number = {INPUT: -1} | {node.id: index for index, node in enumerate(graph.nodes)}
    nodes = tuple(
        (node.op, tuple(number[source] for source in node.inputs), tuple(sorted(node.params.items())))
        for node in graph.nodes
    )
    return graph.operator, graph.input_shape, number[graph.output], nodes


def _first(
    subject: Any,
    parents: Sequence[Mapping[str, Any]],
    moves: Sequence[Callable[[Any], Iterator[Variation]]],
    seed: int,
    failure: str,
) -> Variation:
    """A kind of move first, then one of that kind: many places for one kind make the others no rarer."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    known = [design(parent) for parent in parents]
    for move in chance.sample(moves, k=len(moves)):
        candidates = list(move(subject))
        chance.shuffle(candidates)
        for candidate in candidates:
            if _is_sound(candidate.spec) and design(candidate.spec) not in known:
                return candidate
    raise NoVariation(failure)


def _is_sound(spec: Spec) -> bool:
    """Valid as it is and at twice the sizes, as far as there are limits: no symbol got lost on the way."""
    doubled = {name: 2 * size for name, size in spec.get("symbols", {}).items()}
    return _fault(spec) == "" and _fault({**spec, "symbols": doubled}) in ("", "too_large", "range")


def _fault(spec: Spec) -> str:
    """The code of what is wrong with the spec, or nothing."""
    try:
        parse(spec)
    except SpecError as error:
        return error.code
    return ""


# --- Reading specs


def _features(spec: Mapping[str, Any], graph: Graph) -> dict[str, tuple[int, Size]]:
    """Value -> its rank and its size as it is written: two values of one symbol stay equal at any size."""
    written = {node["id"]: node.get("params", {}) for node in spec["nodes"]}
    found: dict[str, tuple[int, Size]] = {INPUT: (graph.rank, spec["input"][1])}
    for node in graph.nodes:
        params = written[node.id]
        carried = found[node.inputs[CARRIED.get(node.op, 0)]][1]
        size = params.get("out_features", params.get("out_channels", carried))
        found[node.id] = len(node.output_shape), size
    return found


def _pruned(spec: Spec) -> Spec:
    """Without nodes that do not reach the output, and without symbols that nothing uses."""
    by_id = {node["id"]: node for node in spec["nodes"]}
    used, waiting = set(), [spec["output"]]
    while waiting:
        name = waiting.pop()
        if name != INPUT and name not in used:
            used.add(name)
            waiting.extend(by_id[name]["inputs"])
    nodes = [node for node in spec["nodes"] if node["id"] in used]
    sizes = {spec["input"][1], *(value for node in nodes for value in node.get("params", {}).values())}
    symbols = {name: size for name, size in spec.get("symbols", {}).items() if name in sizes}
    rest = {name: value for name, value in spec.items() if name not in ("symbols", "nodes")}
    return {**rest, "nodes": nodes, **({"symbols": symbols} if symbols else {})}


def _fresh(stem: str, taken: set[str], separator: str = "") -> str:
    """A name that is not taken yet; it is from now on. Names are at most 32 characters long."""
    names = (f"{stem[:24]}{separator}{number}" if number > 1 else stem for number in count(1))
    name = next(name for name in names if name not in taken and name not in RESERVED_IDS)
    taken.add(name)
    return name


def _pinned(spec: Mapping[str, Any]) -> set[Size]:
    """The sizes that the contract names: changing them would make a blueprint for another slot."""
    output = next(node for node in spec["nodes"] if node["id"] == spec["output"])
    params = output.get("params", {})
    return {spec["input"][1], params.get("out_features", params.get("out_channels", spec["input"][1]))}


# --- Mutations


def _resizings(spec: Mapping[str, Any]) -> Iterator[Variation]:
    pinned = _pinned(spec)
    for name, size in spec.get("symbols", {}).items():
        for new in sorted({max(1, round(size * factor)) for factor in FACTORS} - {size}):
            if name not in pinned:
                symbols = {**spec["symbols"], name: new}
                yield Variation(
                    spec={**copy.deepcopy(dict(spec)), "symbols": symbols}, change=f"{name} {size} -> {new}"
                )
    for index, node in enumerate(spec["nodes"]):
        for field in ("out_features", "out_channels"):
            size = node.get("params", {}).get(field)
            if type(size) is int and node["id"] != spec["output"]:
                for new in sorted({max(1, round(size * factor)) for factor in FACTORS} - {size}):
                    yield _with_param(spec, index, field, size, new)


def _rekernellings(spec: Mapping[str, Any]) -> Iterator[Variation]:
    if spec["operator"] == "widen":
        return  # merged into a layer of the host: its kernel size is the host's
    for index, node in enumerate(spec["nodes"]):
        param = OPS[node["op"]].params.get("kernel_size")
        if param is not None:
            size = node.get("params", {}).get("kernel_size", param.default)
            for new in KERNEL_SIZES:
                if new != size:
                    yield _with_param(spec, index, "kernel_size", size, new)


def _with_param(spec: Mapping[str, Any], index: int, field: str, old: Any, new: Any) -> Variation:
    child = copy.deepcopy(dict(spec))
    node = child["nodes"][index]
    node["params"] = {**node.get("params", {}), field: new}
    return Variation(spec=child, change=f"{field} of {node['id']} {old} -> {new}")


def _reactivations(spec: Mapping[str, Any]) -> Iterator[Variation]:
    zero = zero_at_birth(parse(spec))
    for index, node in enumerate(spec["nodes"]):
        if node["op"] in ACTIVATIONS and not all(zero[source] for source in node["inputs"]):
            for op in ACTIVATIONS:
                if op != node["op"]:
                    child = copy.deepcopy(dict(spec))
                    child["nodes"][index]["op"] = op
                    yield Variation(spec=child, change=f"{node['id']} {node['op']} -> {op}")


def _insertions(spec: Mapping[str, Any]) -> Iterator[Variation]:
    """A normalisation, an activation, a learned scale, or a layer with its activation, on any edge.

    Not behind what is zero at birth: an activation there can have no gradient, and the branch would never learn.
    """
    graph = parse(spec)
    zero, features = zero_at_birth(graph), _features(spec, graph)
    for index, node in enumerate(spec["nodes"]):
        for position, source in enumerate(node["inputs"]):
            if zero[source]:
                continue
            rank, size = features[source]
            layer, field = LAYER[rank]
            pair: list[tuple[str, dict[str, Any]]] = [(layer, {field: size, "bias": False}), ("relu", {})]
            singles: list[list[tuple[str, dict[str, Any]]]] = [
                [(op, {})] for op in (*ACTIVATIONS, *NORMS[rank], "layer_scale")
            ]
            for chain in (*singles, pair):
                yield _inserted(spec, index, position, chain)


def _inserted(
    spec: Mapping[str, Any], index: int, position: int, chain: Sequence[tuple[str, Mapping[str, Any]]]
) -> Variation:
    child = copy.deepcopy(dict(spec))
    taken = {node["id"] for node in child["nodes"]}
    target = child["nodes"][index]
    source = target["inputs"][position]
    change = f"{' and '.join(op for op, _ in chain)} between {source} and {target['id']}"
    new = []
    for op, params in chain:
        name = _fresh(op, taken)
        new.append({"id": name, "op": op, "inputs": [source], **({"params": dict(params)} if params else {})})
        source = name
    target["inputs"][position] = source
    child["nodes"][index:index] = new
    return Variation(spec=child, change=change)


def _removals(spec: Mapping[str, Any]) -> Iterator[Variation]:
    """A node, or two in a row, between equal sizes."""
    features = _features(spec, parse(spec))
    by_id = {node["id"]: node for node in spec["nodes"]}
    for node in spec["nodes"]:
        chain, source = [node["id"]], node["inputs"][0]
        while len(chain) <= 2 and len(by_id[chain[-1]]["inputs"]) == 1:
            if features[source] == features[node["id"]]:
                yield _spliced(spec, node["id"], source, chain)
            if source == INPUT:
                break
            chain, source = [*chain, source], by_id[source]["inputs"][0]


def _spliced(spec: Mapping[str, Any], end: str, source: str, chain: Sequence[str]) -> Variation:
    child = copy.deepcopy(dict(spec))
    for node in child["nodes"]:
        node["inputs"] = [source if name == end else name for name in node["inputs"]]
    if child["output"] == end and source != INPUT:
        child["output"] = source
    return Variation(spec=_pruned(child), change=f"without {' and '.join(reversed(chain))}")


MUTATIONS = (_resizings, _rekernellings, _reactivations, _insertions, _removals)


# --- Crossings


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two specs of one contract that share no name but those of the contract."""

    left: Spec
    right: Spec

    def child(self, nodes: Sequence[Mapping[str, Any]], output: str, change: str) -> Variation:
        """The spec of these nodes over both parents' symbols; new nodes count for neither parent."""
        symbols = {**self.right.get("symbols", {}), **self.left.get("symbols", {})}
        spec = {**self.left, "symbols": symbols, "nodes": copy.deepcopy([*nodes]), "output": output}
        spec = _pruned(spec)
        names = {node["id"] for node in spec["nodes"]}
        ours, theirs = (len(names & {node["id"] for node in parent["nodes"]}) for parent in (self.left, self.right))
        return Variation(spec=spec, change=change, share=ours / (ours + theirs) if ours + theirs else 1.0)

    @property
    def both(self) -> list[dict[str, Any]]:
        return [*self.left["nodes"], *self.right["nodes"]]

    def fresh(self, stem: str) -> str:
        return _fresh(stem, {node["id"] for node in self.both})


def _check_contracts(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    one, other = parse(left), parse(right)
    if one.operator != other.operator or one.rank != other.rank:
        raise ContractsDiffer(f"a {one.operator} and a {other.operator} of other inputs have nothing in common")
    sizes = (
        (spec["input"][1], _features(spec, graph)[graph.output][1]) for spec, graph in ((left, one), (right, other))
    )
    for ours, theirs in zip(*sizes, strict=True):
        if ours != theirs and not (isinstance(ours, str) and isinstance(theirs, str)):
            raise ContractsDiffer(f"one is for the size {ours}, the other for {theirs}")


def _renamed(right: Mapping[str, Any], left: Mapping[str, Any]) -> Spec:
    """``right`` with the left one's names for the sizes of the contract, and its own for everything else."""
    ends = [(spec["input"][1], _features(spec, parse(spec))[spec["output"]][1]) for spec in (right, left)]
    symbols = {theirs: ours for theirs, ours in zip(*ends, strict=True) if isinstance(theirs, str)}
    taken = set(left.get("symbols", {}))
    symbols |= {name: _fresh(name, taken, "_") for name in right.get("symbols", {}) if name not in symbols}
    ids = {node["id"] for node in left["nodes"]}
    names = {INPUT: INPUT} | {node["id"]: _fresh(node["id"], ids) for node in right["nodes"]}
    nodes = [
        {
            **node,
            "id": names[node["id"]],
            "inputs": [names[source] for source in node["inputs"]],
            **({"params": _resymbolled(node["params"], symbols)} if "params" in node else {}),
        }
        for node in right["nodes"]
    ]
    renamed = {symbols[name]: size for name, size in right.get("symbols", {}).items()}
    size = right["input"][1]
    shape = [right["input"][0], symbols.get(size, size), *right["input"][2:]]
    return {**right, "symbols": renamed, "input": shape, "nodes": nodes, "output": names[right["output"]]}


def _resymbolled(params: Mapping[str, Any], symbols: Mapping[str, str]) -> dict[str, Any]:
    """Choices are written in lower case, symbols in capitals: no value is both."""
    return {name: symbols.get(value, value) if isinstance(value, str) else value for name, value in params.items()}


def _side_by_side(pair: _Pair) -> Iterator[Variation]:
    """L(h) + R(h)."""
    total = pair.fresh("sum")
    inputs = [pair.left["output"], pair.right["output"]]
    yield pair.child([*pair.both, {"id": total, "op": "add", "inputs": inputs}], total, "side by side")


def _in_sequence(pair: _Pair) -> Iterator[Variation]:
    """L(h) + R(h + L(h)): two residual blocks one after the other."""
    for first, second in ((pair.left, pair.right), (pair.right, pair.left)):
        taken = {node["id"] for node in pair.both}
        between, total = _fresh("between", taken), _fresh("sum", taken)
        moved = [
            {**node, "inputs": [between if source == INPUT else source for source in node["inputs"]]}
            for node in second["nodes"]
        ]
        joints = [
            {"id": between, "op": "add", "inputs": [INPUT, first["output"]]},
            {"id": total, "op": "add", "inputs": [first["output"], second["output"]]},
        ]
        yield pair.child([*first["nodes"], *moved, *joints], total, "one after the other")


def _gating(pair: _Pair) -> Iterator[Variation]:
    """R(h) * sigmoid(L(h)), and the other way round. The gate's last layer must not be born as zero: R's is."""
    for gate, value in ((pair.left, pair.right), (pair.right, pair.left)):
        last = next(node for node in gate["nodes"] if node["id"] == gate["output"])
        if last["op"] not in LAYERS:
            continue
        params = {name: setting for name, setting in last.get("params", {}).items() if name != "init"}
        opened = [{**node, "params": params} if node is last else node for node in gate["nodes"]]
        taken = {node["id"] for node in pair.both}
        bend, product = _fresh("gate", taken), _fresh("product", taken)
        joints = [
            {"id": bend, "op": "sigmoid", "inputs": [gate["output"]]},
            {"id": product, "op": "mul", "inputs": [value["output"], bend]},
        ]
        yield pair.child([*opened, *value["nodes"], *joints], product, "one as the gate of the other")


def _spliced_together(pair: _Pair) -> Iterator[Variation]:
    """The beginning of one up to some value, then the end of the other from a value of that shape."""
    features = {id(spec): _features(spec, parse(spec)) for spec in (pair.left, pair.right)}
    for head, tail in ((pair.left, pair.right), (pair.right, pair.left)):
        zero = zero_at_birth(parse(head))
        for source in (node["id"] for node in head["nodes"] if not zero[node["id"]]):
            for replaced in (node["id"] for node in tail["nodes"] if node["id"] != tail["output"]):
                ranks = features[id(head)][source][0], features[id(tail)][replaced][0]
                if ranks[0] == ranks[1]:
                    yield _joined(pair, head, tail, source, replaced)


def _joined(pair: _Pair, head: Spec, tail: Spec, source: str, replaced: str) -> Variation:
    nodes = [
        {**node, "inputs": [source if name == replaced else name for name in node["inputs"]]} for node in tail["nodes"]
    ]
    change = f"the beginning of one, up to {source}, with the end of the other, from {replaced}"
    return pair.child([*head["nodes"], *nodes], tail["output"], change)


def _units_together(pair: _Pair) -> Iterator[Variation]:
    """One widening by the units of both, in the form of either."""
    for form, other in ((pair.left, pair.right), (pair.right, pair.left)):
        graph = parse(form)
        own, more = (_size(one.nodes[0].output_shape) for one in (graph, parse(other)))
        child = copy.deepcopy(form)
        incoming = next(node for node in child["nodes"] if node["inputs"] == [INPUT])
        _, size = _features(form, graph)[incoming["id"]]
        if isinstance(size, str) and size not in _pinned(form):
            child["symbols"][size] = own + more
        else:
            incoming["params"][LAYER[graph.rank][1]] = own + more
        ours, theirs = (own, more) if form is pair.left else (more, own)
        yield Variation(spec=_pruned(child), change="the units of both", share=ours / (ours + theirs))


def _size(shape: Shape) -> int:
    """The feature dimension, which is always bound."""
    size = shape[1]
    assert isinstance(size, int)
    return size


CROSSINGS: Mapping[str, Sequence[Callable[[_Pair], Iterator[Variation]]]] = {
    "residual": (_side_by_side, _in_sequence, _gating, _spliced_together),
    "widen": (_units_together, _spliced_together),
}
