"""The starter library: every blueprint is valid at several sizes, and says the truth about itself."""

import pytest
import torch

from apps.blueprints.spec import bind, parse
from apps.blueprints.starter import starter_library
from apps.morphogenesis.operators import build

SYMBOLS = {
    "widen_linear": {"FAN_IN", "UNITS", "FAN_OUT"},
    "widen_conv": {"FAN_IN", "UNITS", "FAN_OUT"},
    "residual_mlp": {"D", "H"},
    "residual_conv": {"C", "H"},
}
NAMES = sorted(SYMBOLS)


def test_the_library_holds_what_the_engine_asks_for() -> None:
    assert list(starter_library()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_symbols_are_those_that_the_engine_binds(name: str) -> None:
    assert parse(starter_library()[name].spec).symbols.keys() == SYMBOLS[name]


@pytest.mark.parametrize("name", NAMES)
def test_tags_agree_with_the_spec(name: str) -> None:
    blueprint = starter_library()[name]
    graph = parse(blueprint.spec)
    assert blueprint.name == name
    assert blueprint.tags["operator"] == graph.operator
    assert blueprint.tags["layer"] == graph.nodes[0].op
    assert blueprint.title
    assert blueprint.card["summary"]


@pytest.mark.parametrize("size", [1, 2, 17, 64])
@pytest.mark.parametrize("name", NAMES)
def test_any_size_is_the_identity_at_birth_and_counts_its_parameters(name: str, size: int) -> None:
    spec = starter_library()[name].spec
    graph = parse(bind(spec, **dict.fromkeys(SYMBOLS[name], size)))
    branch = build(graph, generator=torch.Generator().manual_seed(0))
    h = torch.randn([dim if isinstance(dim, int) else 4 for dim in graph.input_shape])
    assert not branch(h).any()
    assert sum(p.numel() for p in branch.parameters()) == graph.parameters


@pytest.mark.parametrize("name", NAMES)
def test_free_dimensions_stay_free_when_bound(name: str) -> None:
    graph = parse(bind(starter_library()[name].spec))
    free = [dim for dim in graph.input_shape if isinstance(dim, str)]
    assert free == (["N"] if graph.rank == 2 else ["N", "H", "W"])
