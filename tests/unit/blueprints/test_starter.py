"""The starter library: every blueprint is valid at several sizes, learns, and says the truth about itself."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from apps.blueprints.ops import OPS
from apps.blueprints.spec import Graph, bind, digest, parse
from apps.blueprints.starter import core_library, starter_digests, starter_library
from apps.morphogenesis import checks
from apps.morphogenesis.library import InMemoryKernels
from apps.morphogenesis.operators import Branch, build

CORE = {
    "residual_conv": {"C", "H"},
    "residual_mlp": {"D", "H"},
    "widen_conv": {"FAN_IN", "UNITS", "FAN_OUT"},
    "widen_linear": {"FAN_IN", "UNITS", "FAN_OUT"},
}
NAMES = list(starter_library())
LAYER_OF_RANK = {2: "linear", 4: "conv2d"}
COUNTED = ("linear", "conv2d", "attention")
"""Operations in which torch counts: the matrix products and convolutions, without biases and softmax."""


def graph_of(name: str, **sizes: int) -> Graph:
    return parse(bind(starter_library()[name].spec, **sizes))


def built(graph: Graph) -> Branch:
    return build(graph, generator=torch.Generator().manual_seed(0))


def torchs_flops(graph: Graph, h: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built(graph).eval()(h)
    return int(counter.get_total_flops())


def products(graph: Graph, positions: int) -> int:
    """What the registry says of the matrix products and convolutions alone, for one sample."""
    total = 0
    for node in graph.nodes:
        if node.op in COUNTED:
            here = positions if node.call.rank == 4 else 1
            flops = OPS[node.op].flops(node.call, here)
            if node.op == "attention":
                flops -= 5 * node.params["heads"] * here**2
            elif node.params["bias"]:
                flops -= here * int(node.output_shape[1])
            total += flops
    return total


def test_there_are_at_least_fifteen_of_many_families() -> None:
    families = {blueprint.tags["family"] for blueprint in starter_library().values()}
    assert len(NAMES) >= 15
    assert {"widening", "convolution", "depthwise", "bottleneck", "attention", "mlp", "gated", "low_rank"} <= families


def test_no_two_are_the_same_design() -> None:
    assert len(set(starter_digests().values())) == len(NAMES)


def test_what_runs_grow_by_default_is_one_for_each_operator_and_layer_and_comes_first() -> None:
    core = core_library()
    assert NAMES[: len(core)] == list(core) == sorted(CORE)
    assert len({(blueprint.tags["operator"], blueprint.tags["layer"]) for blueprint in core.values()}) == len(core)


def test_the_core_specs_are_those_that_the_recorded_figures_grew_from() -> None:
    assert {name: digest(blueprint.spec)[:12] for name, blueprint in core_library().items()} == {
        "residual_conv": "3eae81afe263",
        "residual_mlp": "fda9b6da3083",
        "widen_conv": "307b8f799917",
        "widen_linear": "35359d0b9d2d",
    }


def test_the_whole_library_is_never_taken_for_the_core() -> None:
    with pytest.raises(ValueError, match="same operator and layer"):
        InMemoryKernels(starter_library().values(), [])
    assert InMemoryKernels(core_library().values(), []).offers() == ()


@pytest.mark.parametrize("name", CORE)
def test_symbols_are_those_that_the_engine_binds(name: str) -> None:
    assert parse(starter_library()[name].spec).symbols.keys() == CORE[name]


@pytest.mark.parametrize("name", NAMES)
def test_tags_and_card_agree_with_the_spec(name: str) -> None:
    blueprint = starter_library()[name]
    graph = parse(blueprint.spec)
    assert blueprint.name == name
    assert (blueprint.tags["operator"], blueprint.tags["layer"]) == (graph.operator, LAYER_OF_RANK[graph.rank])
    assert blueprint.title
    assert {"summary", "how", "use_when"} <= blueprint.card.keys()
    assert not {"parameters", "flops"} & {*blueprint.card, *blueprint.tags}, "these are computed"


@pytest.mark.parametrize("size", [1, 2, 17, 64])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_is_the_identity_at_birth_and_counts_its_parameters(name: str, size: int) -> None:
    graph = graph_of(name, **dict.fromkeys(parse(starter_library()[name].spec).symbols, size))
    branch = built(graph)
    assert checks.largest_output(branch, checks.probe(graph.input_shape)) == 0
    assert checks.check_shapes(branch, graph) == []
    assert sum(p.numel() for p in branch.parameters()) == graph.parameters


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_at_birth_and_every_parameter_from_the_next_step_on(name: str) -> None:
    graph = graph_of(name)
    branch, h = built(graph), checks.probe(graph.input_shape)
    assert any(norm > 0 for norm in checks.gradient_norms(branch, h, training=True).values())
    silent = [name for name, norm in checks.gradient_norms_after_nudge(branch, h).items() if norm == 0]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_flops_of_products_and_convolutions_are_those_that_torch_counts(name: str) -> None:
    """Two a multiply-add, biases apart, and a tap of a convolution also where it reads the padding."""
    graph = graph_of(name)
    h = checks.probe(graph.input_shape)
    positions = h[0, 0].numel() if graph.rank == 4 else 1
    assert torchs_flops(graph, h) == len(h) * products(graph, positions)
    assert graph.flops((checks.PROBE_SIDE, checks.PROBE_SIDE)) >= products(graph, positions)


@pytest.mark.parametrize("name", NAMES)
def test_free_dimensions_stay_free_when_bound(name: str) -> None:
    graph = graph_of(name)
    free = [dim for dim in graph.input_shape if isinstance(dim, str)]
    assert free == (["N"] if graph.rank == 2 else ["N", "H", "W"])


def test_attention_reads_every_position_and_agrees_with_torchs_own() -> None:
    node = next(node for node in graph_of("attention_conv", C=6, H=6, HEADS=3).nodes if node.op == "attention")
    branch = built(graph_of("attention_conv", C=6, H=6, HEADS=3))
    q, k, v = (torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3))

    def heads(tensor: torch.Tensor) -> Any:
        return tensor.flatten(2).unflatten(1, (3, 2)).transpose(-2, -1)

    fused = torch.nn.functional.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    found = branch.get_submodule(node.id)(q, k, v)
    torch.testing.assert_close(found, fused.transpose(-2, -1).reshape(2, 6, 4, 5))
