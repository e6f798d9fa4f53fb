"""The registry of operations and the torch builders are one table in two places: they must agree."""

import copy
import random
import re
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from apps.blueprints.ops import OPS
from apps.blueprints.readers import NODE_ID, RESERVED_IDS
from apps.blueprints.rules import zero_at_birth
from apps.blueprints.spec import Graph, bind, parse
from apps.morphogenesis.operators import OPERATIONS, Branch, build
from tests.unit.blueprints.specs import residual_specs


def built(graph: Graph) -> Branch:
    return build(graph, generator=torch.Generator().manual_seed(1))


def sample(graph: Graph) -> torch.Tensor:
    sizes = [size if isinstance(size, int) else 3 for size in graph.input_shape]
    return torch.randn(sizes, generator=torch.Generator().manual_seed(2))


def node_outputs(branch: Branch, h: torch.Tensor) -> dict[str, torch.Tensor]:
    outputs: dict[str, torch.Tensor] = {}
    for name, module in branch.named_children():
        module.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output}))
    branch(h)
    return outputs


def test_every_operation_has_a_builder_and_every_builder_an_operation() -> None:
    assert OPERATIONS.keys() == OPS.keys()


def test_no_node_can_be_called_like_a_part_of_a_module() -> None:
    names = {name for name in dir(nn.Module()) if re.fullmatch(NODE_ID, name)}
    assert names <= RESERVED_IDS


@settings(deadline=None, max_examples=60)
@given(residual_specs())
def test_tensors_and_parameters_are_those_that_torch_makes(spec: dict[str, Any]) -> None:
    graph = parse(spec)
    branch = built(graph)
    assert {name: tuple(t.shape) for name, t in branch.state_dict().items()} == {
        name: tensor.shape for name, tensor in graph.tensors.items()
    }
    assert sum(p.numel() for p in branch.parameters()) == graph.parameters


@settings(deadline=None, max_examples=60)
@given(residual_specs())
def test_inferred_shapes_are_those_that_torch_computes(spec: dict[str, Any]) -> None:
    graph = parse(spec)
    outputs = node_outputs(built(graph), sample(graph))
    for node in graph.nodes:
        assert [size if isinstance(size, int) else 3 for size in node.output_shape] == list(outputs[node.id].shape)


@settings(deadline=None, max_examples=60)
@given(residual_specs())
def test_what_the_rules_call_zero_is_zero_in_both_modes(spec: dict[str, Any]) -> None:
    graph = parse(spec)
    zero = zero_at_birth(graph)
    for training in (True, False):
        outputs = node_outputs(built(graph).train(training), sample(graph))
        assert all(not outputs[node.id].any() for node in graph.nodes if zero[node.id])
        assert zero[graph.output]


@given(residual_specs(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_changes_nothing_but_the_order(spec: dict[str, Any], chance: random.Random) -> None:
    shuffled = copy.deepcopy(spec)
    chance.shuffle(shuffled["nodes"])
    one, other = parse(spec), parse(shuffled)
    assert (one.parameters, one.flops((4, 4)), one.output_shape) == (
        other.parameters,
        other.flops((4, 4)),
        other.output_shape,
    )


@given(residual_specs())
def test_binding_defaults_gives_the_same_graph_without_symbols(spec: dict[str, Any]) -> None:
    bound = parse(bind(spec))
    assert not bound.symbols
    assert bound.nodes == parse(spec).nodes
