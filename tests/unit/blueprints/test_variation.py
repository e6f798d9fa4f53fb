"""New specs from old ones: a blueprint of the same contract, another design, the same for the same seed."""

import copy
import json
from typing import Any

import pytest

from apps.blueprints.spec import Graph, bind, parse
from apps.blueprints.starter import starter_library
from apps.blueprints.variation import ContractsDiffer, NoVariation, cross, design, mutate
from apps.morphogenesis import checks
from apps.morphogenesis.operators import build
from tests.unit.blueprints.specs import residual, widen_conv

LIBRARY = starter_library()
NAMES = list(LIBRARY)
MUTATIONS_EACH = 10
"""Seeds for each of the 22 designs: 220 mutants."""


def spec_of(name: str) -> dict[str, Any]:
    return dict(LIBRARY[name].spec)


def contract(graph: Graph) -> tuple[Any, ...]:
    return graph.operator, graph.input_shape, graph.output_shape


def crossable() -> list[tuple[str, str]]:
    """Pairs of different designs for one kind of slot."""
    return [
        (left, right)
        for left in NAMES
        for right in NAMES
        if left != right and all(LIBRARY[left].tags[tag] == LIBRARY[right].tags[tag] for tag in ("operator", "layer"))
    ]


def is_zero_at_birth_and_agrees_with_torch(spec: dict[str, Any]) -> bool:
    import torch

    graph = parse(bind(spec))
    branch = build(graph, generator=torch.Generator().manual_seed(0))
    zero = checks.largest_output(branch, checks.probe(graph.input_shape)) == 0
    return zero and checks.check_shapes(branch, graph) == []


@pytest.mark.parametrize("name", NAMES)
def test_mutants_keep_the_contract_and_differ_from_their_parent(name: str) -> None:
    parent = parse(spec_of(name))
    for seed in range(MUTATIONS_EACH):
        child = mutate(spec_of(name), seed=seed)
        graph = parse(child.spec)
        assert contract(graph) == contract(parent), child.change
        assert design(child.spec) != design(spec_of(name)), child.change


@pytest.mark.parametrize("name", NAMES)
def test_mutants_keep_the_contract_at_any_size(name: str) -> None:
    parent = spec_of(name)
    pinned = {size for size in (parent["input"][1], *parent["symbols"]) if size in ("D", "C", "FAN_IN", "FAN_OUT")}
    sizes = {name: 4 * parent["symbols"][name] for name in pinned}
    for seed in range(MUTATIONS_EACH):
        child = mutate(parent, seed=seed)
        assert contract(parse(bind(child.spec, **sizes))) == contract(parse(bind(parent, **sizes))), child.change


@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_the_identity_at_birth_in_torch(name: str) -> None:
    for seed in range(2):
        child = mutate(spec_of(name), seed=seed)
        assert is_zero_at_birth_and_agrees_with_torch(child.spec), child.change


@pytest.mark.parametrize("left", NAMES)
def test_crossings_keep_the_contract_and_differ_from_both_parents(left: str) -> None:
    for index, (_, right) in enumerate(pair for pair in crossable() if pair[0] == left):
        for seed in (2 * index, 2 * index + 1):
            child = cross(spec_of(left), spec_of(right), seed=seed)
            symbol = LIBRARY[left].spec["input"][1]
            graph, parent = parse(child.spec), parse(spec_of(left))
            assert (graph.operator, graph.input_shape) == (parent.operator, parent.input_shape), child.change
            assert child.spec["input"][1] == symbol
            assert design(child.spec) not in (design(spec_of(left)), design(spec_of(right))), child.change
            assert 0 < child.share < 1, child.change


def test_crossings_are_the_identity_at_birth_in_torch() -> None:
    for seed, (left, right) in enumerate(crossable()[::9]):
        child = cross(spec_of(left), spec_of(right), seed=seed)
        assert is_zero_at_birth_and_agrees_with_torch(child.spec), child.change


def test_every_way_of_crossing_is_taken_by_some_seed() -> None:
    ways = {cross(spec_of("swiglu_mlp"), spec_of("prenorm_mlp"), seed=seed).change.split(",")[0] for seed in range(40)}
    assert ways == {"side by side", "one after the other", "one as the gate of the other", "the beginning of one"}


def test_a_crossing_of_widenings_has_the_units_of_both() -> None:
    crossings = (cross(spec_of("widen_linear"), spec_of("widen_linear_gelu"), seed=seed) for seed in range(9))
    units = {parse(crossing.spec).nodes[0].output_shape[1] for crossing in crossings}
    assert 64 in units


def test_equal_seeds_give_equal_specs_and_other_seeds_others() -> None:
    specs = [json.dumps(mutate(spec_of("convnext_block"), seed=seed).spec) for seed in (*range(12), *range(12))]
    assert specs[:12] == specs[12:]
    assert len(set(specs)) > 8


def test_generations_stay_blueprints_within_the_limits() -> None:
    spec = spec_of("inverted_bottleneck_conv")
    for seed in range(30):
        spec = mutate(spec, seed=seed).spec
        if seed % 10 == 9:
            spec = cross(spec, spec_of("attention_conv"), seed=seed).spec
    assert is_zero_at_birth_and_agrees_with_torch(spec)


def test_the_arguments_stay_as_they_are() -> None:
    left, right = spec_of("gated_conv"), spec_of("dilated_conv")
    before = copy.deepcopy((left, right))
    mutate(left, seed=1)
    cross(left, right, seed=1)
    assert (left, right) == before


def test_blueprints_for_other_slots_are_not_crossed() -> None:
    for left, right in ((residual(), widen_conv()), (spec_of("low_rank_linear"), spec_of("low_rank_conv"))):
        with pytest.raises(ContractsDiffer):
            cross(left, right, seed=0)


def test_sizes_that_are_fixed_must_be_equal() -> None:
    bound = bind(residual())
    with pytest.raises(ContractsDiffer, match="for the size"):
        cross(bound, bind(residual(), D=8), seed=0)
    assert cross(bound, bind(residual(), H=9), seed=0)


def deepest_chain() -> dict[str, Any]:
    """So deep that nothing can be put behind or beside it."""
    nodes: list[dict[str, Any]] = [{"id": "n0", "op": "layer_scale", "inputs": ["input"], "params": {"init": "zeros"}}]
    nodes += [{"id": f"n{i}", "op": "layer_scale", "inputs": [f"n{i - 1}"]} for i in range(1, 48)]
    return {"version": 1, "operator": "residual", "input": ["N", 2], "nodes": nodes, "output": "n47"}


def test_what_leaves_no_room_for_a_combination_is_said_to_leave_none() -> None:
    assert mutate(deepest_chain(), seed=0)
    with pytest.raises(NoVariation, match="no combination"):
        cross(deepest_chain(), deepest_chain(), seed=0)
