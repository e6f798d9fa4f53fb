"""The blueprint grammar accepts what the reference says, and names the field and a remedy for everything else."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from apps.blueprints import spec as grammar
from apps.blueprints.spec import SpecError, parse
from tests.unit.blueprints.specs import chain, layer, residual, widen_conv, with_node

Spec = dict[str, Any]


def error_of(spec: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse(spec)
    return caught.value


def test_a_residual_blueprint_parses_into_a_graph_with_inferred_shapes() -> None:
    graph = parse(residual())
    assert (graph.operator, graph.input_shape, graph.output_shape) == ("residual", ("N", 6), ("N", 6))
    assert [node.output_shape for node in graph.nodes] == [("N", 4), ("N", 4), ("N", 6)]
    assert graph.symbols == {"D": 6, "H": 4}


def test_spatial_dimensions_stay_free() -> None:
    graph = parse(widen_conv())
    assert (graph.input_shape, graph.output_shape) == (("N", 3, "H", "W"), ("N", 5, "H", "W"))


def test_nodes_may_come_in_any_order() -> None:
    spec = residual()
    spec["nodes"].reverse()
    assert [node.id for node in parse(spec).nodes] == ["fc1", "act", "fc2"]


def test_missing_parameters_take_their_defaults() -> None:
    conv = parse(widen_conv()).node("incoming")
    assert conv.params == {
        "out_channels": 2,
        "kernel_size": 3,
        "groups": 1,
        "dilation": 1,
        "bias": False,
        "init": "default",
    }


def test_flops_count_a_multiply_add_as_two_and_scale_with_the_image() -> None:
    graph = parse(widen_conv())
    per_position = 2 * 3 * 9 * 2 + 2 * 2 + 2 + 2 * 2 * 9 * 5  # conv, norm, relu, conv
    assert graph.flops((8, 4)) == 32 * per_position
    assert parse(residual()).flops((8, 4)) == 4 * (2 * 6 + 1) + 4 + 6 * (2 * 4 + 1)


def test_groups_divide_the_cost_of_a_convolution() -> None:
    params = {"out_channels": 4, "groups": 2, "bias": False}
    nodes = [
        {"id": "first", "op": "conv2d", "inputs": ["input"], "params": params},
        {"id": "last", "op": "conv2d", "inputs": ["first"], "params": {**params, "init": "zeros"}},
    ]
    spec = {"version": 1, "operator": "residual", "input": ["N", 4, "H", "W"], "nodes": nodes, "output": "last"}
    assert parse(spec).flops((1, 1)) == 2 * (2 * 9 * 2 * 4)


def put(path: str, value: Any) -> Callable[[Spec], Spec]:
    """A change to a copy of the residual spec: set the value at a JSON pointer."""

    def change(spec: Spec) -> Spec:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")[1:]]
        target: Any = spec
        for step in steps:
            target = target[step]
        target[last] = value
        return spec

    return change


def drop(path: str) -> Callable[[Spec], Spec]:
    def change(spec: Spec) -> Spec:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")[1:]]
        target: Any = spec
        for step in steps:
            target = target[step]
        del target[last]
        return spec

    return change


@pytest.mark.parametrize(
    ("change", "pointer", "code", "words"),
    [
        (drop("/version"), "/version", "required", "is missing"),
        (put("/version", 2), "/version", "unknown", "unknown value 2"),
        (put("/version", True), "/version", "unknown", "unknown value true"),
        (put("/operator", "residul"), "/operator", "unknown", "did you mean 'residual'"),
        (put("/outptu", "fc2"), "/outptu", "unknown", "did you mean 'output'"),
        (put("/symbols", []), "/symbols", "type", "must be an object, not an array"),
        (put("/symbols/d", 4), "/symbols/d", "name", "capitals"),
        (put("/symbols/D", "6"), "/symbols/D", "type", "whole number"),
        (put("/symbols/D", True), "/symbols/D", "type", "whole number"),
        (put("/symbols/D", 0), "/symbols/D", "range", "from 1 to 65536"),
        (put("/symbols/D", 65_537), "/symbols/D", "range", "from 1 to 65536"),
        (put("/symbols/D", 10**5000), "/symbols/D", "range", "a huge number"),
        (put("/symbols/X", 4), "/symbols/X", "unused", "never used"),
        (put("/input", ["N"]), "/input", "rank", '["N", features]'),
        (put("/input", ["N", "D", "H"]), "/input", "rank", '"H", "W"'),
        (put("/input/0", 8), "/input/0", "free", 'must be "N"'),
        (put("/input/1", "E"), "/input/1", "unknown", "unknown symbol 'E'"),
        (put("/input/1", "N"), "/input/1", "unknown", "unknown symbol 'N'"),
        (put("/input/1", 2.0), "/input/1", "type", "whole number"),
        (put("/nodes", {}), "/nodes", "type", "must be an array"),
        (put("/nodes", []), "/nodes", "empty", "must not be empty"),
        (put("/nodes/1", "relu"), "/nodes/1", "type", "must be an object"),
        (put("/nodes/1/id", "FC"), "/nodes/1/id", "name", "lower case"),
        (put("/nodes/1/id", "a" * 33), "/nodes/1/id", "name", "lower case"),
        (put("/nodes/1/id", "input"), "/nodes/1/id", "reserved", "reserved"),
        (put("/nodes/1/id", "forward"), "/nodes/1/id", "reserved", "reserved"),
        (put("/nodes/1/id", "fc1"), "/nodes/1/id", "duplicate", "taken by /nodes/0"),
        (drop("/nodes/1/id"), "/nodes/1/id", "required", "is missing"),
        (put("/nodes/1/op", "rleu"), "/nodes/1/op", "unknown", "did you mean 'relu'"),
        (put("/nodes/1/op", None), "/nodes/1/op", "unknown", "choose from: linear"),
        (put("/nodes/1/input", ["fc1"]), "/nodes/1/input", "unknown", "did you mean 'inputs'"),
        (put("/nodes/1/inputs", "fc1"), "/nodes/1/inputs", "type", "must be an array"),
        (put("/nodes/1/inputs", ["fc1", "fc1"]), "/nodes/1/inputs", "arity", "takes 1 input, not 2"),
        (put("/nodes/1/inputs", ["fc3"]), "/nodes/1/inputs/0", "unknown", "did you mean"),
        (put("/nodes/1/inputs", [7]), "/nodes/1/inputs/0", "type", "must be the id of a node"),
        (put("/nodes/0/inputs", ["act"]), "/nodes/0/inputs", "cycle", "cycle through or before: fc1, act, fc2"),
        (put("/nodes/1/params", {"slope": 1}), "/nodes/1/params/slope", "unknown", "it takes none"),
        (put("/nodes/0/params", 3), "/nodes/0/params", "type", "must be an object"),
        (put("/nodes/0/params", {}), "/nodes/0/params/out_features", "required", "linear needs out_features"),
        (drop("/nodes/0/params"), "/nodes/0/params/out_features", "required", "linear needs out_features"),
        (
            put("/nodes/0/params/outfeatures", 3),
            "/nodes/0/params/outfeatures",
            "unknown",
            "did you mean 'out_features'",
        ),
        (put("/nodes/0/params/out_features", "h"), "/nodes/0/params/out_features", "unknown", "did you mean 'H'"),
        (put("/nodes/0/params/out_features", -1), "/nodes/0/params/out_features", "range", "from 1"),
        (put("/nodes/0/params/bias", 1), "/nodes/0/params/bias", "type", "true or false"),
        (put("/nodes/0/params/init", "ones"), "/nodes/0/params/init", "unknown", "choose from: default, zeros"),
        (put("/output", "fc3"), "/output", "unknown", "no node 'fc3'"),
        (put("/output", "act"), "/nodes/2", "unused", "does not reach the output 'act'"),
        (put("/output", "input"), "/output", "unknown", "no node 'input'"),
    ],
)
def test_a_fault_is_named_with_its_field_and_a_remedy(
    change: Callable[[Spec], Spec], pointer: str, code: str, words: str
) -> None:
    error = error_of(change(residual()))
    assert (error.pointer, error.code) == (pointer, code)
    assert words in str(error)


@pytest.mark.parametrize("document", [None, 3, "{}", [], [1], object()])
def test_a_document_that_is_no_object_is_refused(document: Any) -> None:
    assert error_of(document).pointer == ""


def test_the_message_names_the_node_at_fault() -> None:
    error = error_of(with_node(residual(), 1, params={"slope": 1}))
    assert error.node == "act"
    assert str(error).startswith("node 'act': ")


def test_keys_are_escaped_in_pointers() -> None:
    assert error_of({**residual(), "a/b~c": 1}).pointer == "/a~1b~0c"


def test_a_layer_refuses_an_input_of_the_wrong_rank() -> None:
    error = error_of(with_node(widen_conv(), 0, op="linear", params={"out_features": 2}))
    assert (error.pointer, error.code) == ("/nodes/0/inputs", "shape")
    assert "[N, features], not [N, 3, H, W]" in str(error)


def test_a_sum_of_different_shapes_names_both() -> None:
    spec = with_node(residual(), 1, op="add", inputs=["fc1", "input"])
    assert "not [N, 4] and [N, 6]" in str(error_of(spec))


def test_groups_must_divide_both_sides() -> None:
    spec = with_node(widen_conv(), 0, params={"out_channels": 2, "groups": 2})
    error = error_of(spec)
    assert error.pointer == "/nodes/0/params/groups"
    assert "groups=2 does not divide the 3 input channels" in str(error)


def test_kernel_sizes_are_odd() -> None:
    error = error_of(with_node(widen_conv(), 0, params={"out_channels": 2, "kernel_size": 4}))
    assert (error.pointer, error.code) == ("/nodes/0/params/kernel_size", "range")


IMAGE_SPEC: Spec = {
    "version": 1,
    "operator": "residual",
    "input": ["N", 6, "H", "W"],
    "nodes": [
        {"id": "pool", "op": "global_avg_pool", "inputs": ["input"]},
        {"id": "gate", "op": "sigmoid", "inputs": ["pool"]},
        {"id": "mixed", "op": "attention", "inputs": ["input", "input", "input"], "params": {"heads": 3}},
        {"id": "norm", "op": "group_norm", "inputs": ["mixed"], "params": {"groups": 2}},
        {"id": "gated", "op": "channel_mul", "inputs": ["norm", "gate"]},
        {"id": "scale", "op": "layer_scale", "inputs": ["gated"], "params": {"init": "zeros"}},
    ],
    "output": "scale",
}


class TestImageOperations:
    def test_pooling_gives_a_vector_that_gates_channels(self) -> None:
        graph = parse(IMAGE_SPEC)
        assert graph.node("pool").output_shape == ("N", 6)
        assert graph.output_shape == ("N", 6, "H", "W")

    def test_what_acts_on_a_pooled_vector_costs_the_same_at_any_size_of_the_image(self) -> None:
        per_image = 6 * 16 + 16**2 * (4 * 6 + 5 * 3) + 6 * 16 * (8 + 1 + 1)
        assert parse(IMAGE_SPEC).flops((4, 4)) == per_image + 4 * 6

    @pytest.mark.parametrize(
        ("index", "changes", "pointer", "words"),
        [
            (2, {"params": {"heads": 4}}, "/nodes/2/params/heads", "heads=4 does not divide the 6 query channels"),
            (2, {"inputs": ["input", "input", "pool"]}, "/nodes/2/inputs", "node 'mixed'"),
            (2, {"inputs": ["pool", "input", "input"]}, "/nodes/2/inputs", "attention needs an input of shape"),
            (3, {"params": {"groups": 4}}, "/nodes/3/params/groups", "groups=4 does not divide the 6 channels"),
            (4, {"inputs": ["norm", "input"]}, "/nodes/4/inputs", "second input must be [N, 6], not [N, 6, H, W]"),
            (4, {"inputs": ["gate", "pool"]}, "/nodes/4/inputs", "channel_mul needs an input of shape"),
            (0, {"op": "rms_norm"}, "/nodes/0/inputs", "rms_norm needs an input of shape [N, features]"),
            (3, {"op": "avg_pool", "params": {"kernel_size": 1}}, "/nodes/3/params/kernel_size", "from 3 to 15"),
        ],
    )
    def test_a_wrong_use_names_the_node_and_the_field(
        self, index: int, changes: Spec, pointer: str, words: str
    ) -> None:
        error = error_of(with_node(IMAGE_SPEC, index, **changes))
        assert error.pointer == pointer
        assert error.node == IMAGE_SPEC["nodes"][index]["id"]
        assert words in str(error)

    def test_a_product_by_a_zero_gate_and_an_average_of_zero_values_are_zero(self) -> None:
        zero = {"id": "zero", "op": "layer_scale", "inputs": ["input"], "params": {"init": "zeros"}}
        mixed = {"id": "mixed", "op": "attention", "inputs": ["input", "input", "zero"]}
        assert parse({**IMAGE_SPEC, "nodes": [zero, mixed], "output": "mixed"})


class TestLimits:
    def test_nodes(self) -> None:
        spec = chain(*["relu"] * (grammar.MAX_NODES - 1))
        assert error_of(spec).code == "too_many"

    def test_depth(self) -> None:
        assert parse(chain(*["relu"] * (grammar.MAX_DEPTH - 2)))
        assert error_of(chain(*["relu"] * (grammar.MAX_DEPTH - 1))).code == "too_deep"

    def test_symbols(self) -> None:
        spec = {**residual(), "symbols": {f"S{i}": 1 for i in range(grammar.MAX_SYMBOLS + 1)}}
        assert (error_of(spec).pointer, error_of(spec).code) == ("/symbols", "too_many")

    def test_parameters(self) -> None:
        spec = chain("relu", width=2827)
        assert 0 < grammar.MAX_PARAMETERS - parse(spec).parameters < 20_000
        error = error_of(chain("relu", width=2828))
        assert (error.pointer, error.code) == ("/nodes", "too_large")


class TestResidual:
    def test_must_give_back_its_input_shape(self) -> None:
        error = error_of(with_node(residual(), 2, params={"out_features": 5, "init": "zeros"}))
        assert (error.pointer, error.node, error.code) == ("/output", "fc2", "shape")

    def test_must_be_zero_at_birth(self) -> None:
        error = error_of(with_node(residual(), 2, params={"out_features": "D"}))
        assert (error.pointer, error.code) == ("/nodes/2/params/init", "identity")
        assert '"init": "zeros"' in str(error)

    def test_may_end_in_anything_that_keeps_a_zero(self) -> None:
        spec = residual()
        spec["nodes"].append({"id": "norm", "op": "layer_norm", "inputs": ["fc2"]})
        assert parse({**spec, "output": "norm"}).output == "norm"

    def test_may_not_end_in_what_makes_a_zero_something(self) -> None:
        spec = residual()
        spec["nodes"].append({"id": "gate", "op": "sigmoid", "inputs": ["fc2"]})
        error = error_of({**spec, "output": "gate"})
        assert (error.pointer, error.code) == ("/nodes/3", "identity")

    @pytest.mark.parametrize(("bias", "code"), [(True, "identity"), (False, None)])
    def test_a_layer_behind_a_zero_keeps_it_only_without_a_bias(self, bias: bool, code: str | None) -> None:
        spec = residual()
        spec["nodes"].append(layer("after", "fc2", 6, bias=bias))
        try:
            parse({**spec, "output": "after"})
            found = None
        except SpecError as error:
            found = error.code
        assert found == code

    def test_a_product_with_a_zero_is_zero(self) -> None:
        spec = residual()
        spec["nodes"] += [layer("gate", "act", 6), {"id": "out", "op": "mul", "inputs": ["gate", "fc2"]}]
        assert parse({**spec, "output": "out"})


class TestWiden:
    def test_a_linear_pair_needs_no_norm(self) -> None:
        spec = chain("relu")
        spec["nodes"][-1]["params"]["bias"] = False
        assert parse({**spec, "operator": "widen"}).operator == "widen"

    @pytest.mark.parametrize(
        ("index", "changes", "pointer", "words"),
        [
            (0, {"params": {"out_channels": 2, "init": "zeros"}}, "/nodes/0/params/init", "init = default"),
            (0, {"params": {"out_channels": 3, "groups": 3}}, "/nodes/0/params/groups", "groups = 1"),
            (
                0,
                {"params": {"out_channels": 2, "bias": False, "dilation": 2}},
                "/nodes/0/params/dilation",
                "dilation = 1",
            ),
            (0, {"op": "batch_norm", "params": None}, "/nodes/0/op", "linear or conv2d"),
            (1, {"op": "relu"}, "/nodes/1/op", "must be a batch_norm"),
            (2, {"op": "batch_norm"}, "/nodes/2/op", "must be an activation (relu"),
            (2, {"inputs": ["incoming"]}, "/nodes/1", "does not reach the output"),
            (3, {"params": {"out_channels": 5, "init": "zeros"}}, "/nodes/3/params/bias", "bias = false"),
            (3, {"params": {"out_channels": 5, "bias": False}}, "/nodes/3/params/init", "init = zeros"),
            (3, {"op": "relu", "params": None}, "/nodes/3/op", "must be a conv2d like node 'incoming'"),
        ],
    )
    def test_is_exactly_the_chain(self, index: int, changes: Spec, pointer: str, words: str) -> None:
        error = error_of(with_node(widen_conv(), index, **changes))
        assert error.pointer == pointer
        assert words in str(error)

    def test_has_three_or_four_nodes(self) -> None:
        spec = copy.deepcopy(widen_conv())
        spec["nodes"].insert(3, {"id": "again", "op": "relu", "inputs": ["act"]})
        spec["nodes"][4]["inputs"] = ["again"]
        assert (error_of(spec).pointer, error_of(spec).code) == ("/nodes", "chain")

    def test_is_a_chain_and_not_a_web(self) -> None:
        spec = widen_conv()
        spec["nodes"][2] = {"id": "act", "op": "add", "inputs": ["norm", "norm"]}
        assert error_of(spec).pointer == "/nodes/2/inputs"
