"""Specs for tests: small hand-made ones, and a hypothesis strategy for any valid residual blueprint."""

import copy
from typing import Any

from hypothesis import strategies as st

UNARY = ("batch_norm", "layer_scale", "relu", "gelu", "silu", "tanh", "sigmoid")
UNARY_OF = {"vector": (*UNARY, "layer_norm", "rms_norm"), "image": (*UNARY, "group_norm", "avg_pool")}


def residual() -> dict[str, Any]:
    """linear -> relu -> linear(zeros) over symbols D and H."""
    return {
        "version": 1,
        "operator": "residual",
        "symbols": {"D": 6, "H": 4},
        "input": ["N", "D"],
        "nodes": [
            {"id": "fc1", "op": "linear", "inputs": ["input"], "params": {"out_features": "H"}},
            {"id": "act", "op": "relu", "inputs": ["fc1"]},
            {"id": "fc2", "op": "linear", "inputs": ["act"], "params": {"out_features": "D", "init": "zeros"}},
        ],
        "output": "fc2",
    }


def widen_conv() -> dict[str, Any]:
    """conv2d -> batch_norm -> relu -> conv2d(zeros), no symbols."""
    return {
        "version": 1,
        "operator": "widen",
        "input": ["N", 3, "H", "W"],
        "nodes": [
            {"id": "incoming", "op": "conv2d", "inputs": ["input"], "params": {"out_channels": 2, "bias": False}},
            {"id": "norm", "op": "batch_norm", "inputs": ["incoming"]},
            {"id": "act", "op": "relu", "inputs": ["norm"]},
            {
                "id": "outgoing",
                "op": "conv2d",
                "inputs": ["act"],
                "params": {"out_channels": 5, "bias": False, "init": "zeros"},
            },
        ],
        "output": "outgoing",
    }


def chain(*ops: str, width: int = 4, first_init: str = "default") -> dict[str, Any]:
    """A residual blueprint: linear, then ``ops`` one after another, then linear(zeros)."""
    nodes = [layer("first", "input", width, init=first_init)]
    nodes += [{"id": f"step{i}", "op": op, "inputs": [f"step{i - 1}" if i else "first"]} for i, op in enumerate(ops)]
    nodes.append(layer("last", nodes[-1]["id"], width, init="zeros"))
    return {"version": 1, "operator": "residual", "input": ["N", width], "nodes": nodes, "output": "last"}


def layer(node_id: str, source: str, width: int, **params: Any) -> dict[str, Any]:
    return {"id": node_id, "op": "linear", "inputs": [source], "params": {"out_features": width, **params}}


def with_node(spec: dict[str, Any], index: int, **changes: Any) -> dict[str, Any]:
    """A copy of ``spec`` whose node ``index`` is changed; a None deletes the field."""
    changed = copy.deepcopy(spec)
    changed["nodes"][index] = {k: v for k, v in (changed["nodes"][index] | changes).items() if v is not None}
    return changed


@st.composite
def residual_specs(draw: st.DrawFn) -> dict[str, Any]:
    """Any valid residual blueprint of up to 15 nodes: branching, skips, norms, grouped convolutions, symbols or not."""
    image = draw(st.booleans())
    width = draw(st.integers(1, 4)) * 2
    builder = _Builder(image=image, symbols={"D": width, "H": 2})
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["layer", "unary", "join", *(["mixing", "gating"] if image else [])]))
        if kind == "layer":
            builder.add_layer(draw(builder.value()), draw(st.sampled_from(["D", "H", 4])), draw(builder.layer_params()))
        elif kind == "unary":
            ops = UNARY_OF["image" if image else "vector"]
            builder.add(draw(st.sampled_from(ops)), [draw(builder.value())])
        elif kind == "mixing":
            builder.add_attention(draw(builder.value()), draw(builder.value()))
        elif kind == "gating":
            builder.add_gate(draw(builder.value()))
        else:
            left = draw(builder.value())
            equal = [name for name, size in builder.sizes.items() if size == builder.sizes[left]]
            builder.add(draw(st.sampled_from(["add", "mul"])), [left, draw(st.sampled_from(equal))])
    return builder.finish()


class _Builder:
    def __init__(self, *, image: bool, symbols: dict[str, int]) -> None:
        self.image, self.symbols = image, symbols
        self.nodes: list[dict[str, Any]] = []
        self.sizes = {"input": symbols["D"]}

    def value(self) -> st.SearchStrategy[str]:
        return st.sampled_from(list(self.sizes))

    def layer_params(self) -> st.SearchStrategy[dict[str, Any]]:
        optional: dict[str, Any] = {"bias": st.booleans(), "init": st.sampled_from(["default", "zeros"])}
        if self.image:
            optional |= {
                "kernel_size": st.sampled_from([1, 3]),
                "groups": st.sampled_from([1, 2]),
                "dilation": st.sampled_from([1, 2]),
            }
        return st.fixed_dictionaries({}, optional=optional)

    def add_layer(self, source: str, size: int | str, params: dict[str, Any]) -> str:
        op, field = ("conv2d", "out_channels") if self.image else ("linear", "out_features")
        return self.add(op, [source], self.symbols.get(str(size), size), params={field: size, **params})

    def add_attention(self, source: str, values: str) -> str:
        heads = 2 if self.sizes[source] % 2 == 0 and self.sizes[values] % 2 == 0 else 1
        return self.add("attention", [source, source, values], self.sizes[values], params={"heads": heads})

    def add_gate(self, source: str) -> str:
        """Squeeze and excite; the pooled vectors stay out of what is drawn from."""
        pooled = self.add("global_avg_pool", [source])
        gate = self.add("sigmoid", [pooled])
        del self.sizes[pooled], self.sizes[gate]
        return self.add("channel_mul", [source, gate])

    def add(self, op: str, inputs: list[str], size: Any = None, **fields: Any) -> str:
        node_id = f"n{len(self.nodes)}"
        self.nodes.append({"id": node_id, "op": op, "inputs": inputs, **fields})
        self.sizes[node_id] = self.sizes[inputs[0]] if size is None else size
        return node_id

    def finish(self) -> dict[str, Any]:
        """Bring every loose end to the output: each through a layer of width D, all summed, then the zero layer."""
        used = {source for node in self.nodes for source in node["inputs"]}
        loose = [node["id"] for node in self.nodes if node["id"] not in used]
        total = self.add_layer(loose[0], "D", {})
        for end in loose[1:]:
            total = self.add("add", [total, self.add_layer(end, "D", {})])
        output = self.add_layer(total, "D", {"init": "zeros"})
        named = {size for node in self.nodes for size in node.get("params", {}).values() if isinstance(size, str)}
        return {
            "version": 1,
            "operator": "residual",
            "symbols": {name: size for name, size in self.symbols.items() if name in named},
            "input": ["N", "D", "H", "W"] if self.image else ["N", "D"],
            "nodes": self.nodes,
            "output": output,
        }
