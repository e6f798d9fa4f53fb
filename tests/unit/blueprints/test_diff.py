"""What leads from one spec to another, node by node."""

from typing import Any

import pytest
from hypothesis import given

from apps.blueprints.diff import Change, NodeChange, compare
from apps.blueprints.spec import SpecError
from tests.unit.blueprints.specs import layer, residual, residual_specs, with_node


@given(residual_specs())
def test_a_spec_and_itself_do_not_differ(spec: dict[str, Any]) -> None:
    diff = compare(spec, spec)
    assert diff.is_empty
    assert diff.parameters.before == diff.parameters.after


def test_a_default_that_is_written_out_is_no_difference() -> None:
    written = with_node(residual(), 0, params={"out_features": "H", "bias": True, "init": "default"})
    assert compare(residual(), written).is_empty


def test_a_parameter_is_shown_as_it_was_and_as_it_is() -> None:
    diff = compare(residual(), with_node(residual(), 0, params={"out_features": "H", "bias": False}))
    assert diff.changed == (NodeChange(id="fc1", op=None, inputs=None, params=(Change("bias", True, False),)),)
    assert diff.parameters == Change("parameters", 58, 54)
    assert diff.flops == Change("flops", 110, 106)


def test_another_operation_and_another_size_are_shown() -> None:
    diff = compare(residual(), {**with_node(residual(), 1, op="gelu"), "symbols": {"D": 6, "H": 8}})
    assert diff.changed == (NodeChange(id="act", op=Change("op", "relu", "gelu"), inputs=None, params=()),)
    assert diff.symbols == (Change("H", 4, 8),)


def test_added_removed_and_rewired_nodes_are_shown() -> None:
    after = with_node(residual(), 1, id="bend")
    after["nodes"][2]["inputs"] = ["bend"]
    after["nodes"].append(layer("more", "fc2", 6, bias=False))
    after["output"] = "more"

    diff = compare(residual(), after)

    assert [node["id"] for node in diff.added] == ["bend", "more"]
    assert [node["id"] for node in diff.removed] == ["act"]
    assert [(change.id, change.inputs) for change in diff.changed] == [("fc2", Change("inputs", ["act"], ["bend"]))]
    assert diff.fields == (Change("output", "fc2", "more"),)


def test_the_order_of_operands_is_a_difference() -> None:
    def joined(*inputs: str) -> dict[str, Any]:
        spec = residual()
        spec["nodes"].append({"id": "out", "op": "mul", "inputs": list(inputs)})
        return {**spec, "output": "out"}

    diff = compare(joined("fc2", "input"), joined("input", "fc2"))
    assert [change.inputs for change in diff.changed] == [Change("inputs", ["fc2", "input"], ["input", "fc2"])]


def test_what_is_no_blueprint_cannot_be_compared() -> None:
    with pytest.raises(SpecError):
        compare(residual(), {**residual(), "output": "nowhere"})
