"""Graphs become modules and artefacts: deterministic, from their own generator, equal after a round trip."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from apps.blueprints.spec import bind, parse
from apps.morphogenesis.operators import (
    Branch,
    KernelFormatError,
    build,
    dump_tensors,
    load_artefact,
    load_kernel,
    pack,
    unpack,
)
from tests.unit.blueprints.specs import residual, residual_specs, widen_conv


def built(spec: dict[str, Any], seed: int = 0) -> Branch:
    return build(parse(spec), generator=torch.Generator().manual_seed(seed))


def probe(branch: Branch) -> torch.Tensor:
    sizes = [size if isinstance(size, int) else 5 for size in branch.graph.input_shape]
    return torch.randn(sizes, generator=torch.Generator().manual_seed(3))


def randomised(branch: Branch) -> Branch:
    """Weights as after some training: nothing is zero any more."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.uniform_(-1, 1, generator=generator)
    return branch


def test_submodules_carry_the_ids_of_their_nodes() -> None:
    assert [name for name, _ in built(widen_conv()).named_children()] == ["incoming", "norm", "act", "outgoing"]


def test_the_global_generator_is_never_touched() -> None:
    before = torch.random.get_rng_state()
    load_artefact(pack(built(bind(widen_conv())), bind(widen_conv())))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_follow_the_seed() -> None:
    one, same, other = (built(residual(), seed).get_submodule("fc1").state_dict()["weight"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_default_initialisation_is_uniform_over_the_fan_in() -> None:
    spec = bind(residual(), D=400, H=200)
    weight = built(spec).get_submodule("fc1").state_dict()["weight"]
    bound = 1 / math.sqrt(400)
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_zero_layers_are_zero_and_norms_are_neutral() -> None:
    state = built(widen_conv()).state_dict()
    assert not state["outgoing.weight"].any()
    assert [float(state[f"norm.{name}"].mean()) for name in ("weight", "bias", "running_mean", "running_var")] == [
        1,
        0,
        0,
        1,
    ]
    assert int(state["norm.num_batches_tracked"]) == 0


@settings(deadline=None, max_examples=60)
@given(residual_specs())
def test_a_round_trip_keeps_every_bit_of_the_output(spec: dict[str, Any]) -> None:
    bound = bind(spec)
    branch = randomised(built(bound)).eval()
    again = load_artefact(pack(branch, bound)).eval()
    h = probe(branch)
    assert branch(h).numpy(force=True).tobytes() == again(h).numpy(force=True).tobytes()


@settings(deadline=None, max_examples=30)
@given(residual_specs())
def test_equal_branches_pack_into_equal_bytes(spec: dict[str, Any]) -> None:
    bound = bind(spec)
    assert pack(built(bound), bound) == pack(built(bound), bound)


def test_packing_a_loaded_artefact_gives_the_same_bytes() -> None:
    bound = bind(widen_conv())
    data = pack(built(bound), bound)
    assert pack(load_artefact(data), bound) == data


def test_loaded_weights_are_trainable_and_our_own() -> None:
    branch = load_artefact(pack(built(bind(residual())), bind(residual())))
    branch(probe(branch)).sum().backward()
    assert all(p.requires_grad and p.grad is not None for p in branch.parameters())


def test_dumped_tensors_load_with_their_spec() -> None:
    branch = randomised(built(residual()))
    again = load_kernel(residual(), dump_tensors(branch))
    assert torch.equal(again(probe(branch)), branch(probe(branch)))


def test_unpacking_gives_the_bound_spec_and_every_tensor() -> None:
    branch = built(bind(widen_conv()))
    spec, tensors = unpack(pack(branch, bind(widen_conv())))
    assert spec == bind(widen_conv())
    assert tensors.keys() == branch.state_dict().keys()


def test_an_unbound_spec_cannot_be_packed() -> None:
    with pytest.raises(KernelFormatError, match="D, H have no fixed size"):
        pack(built(residual()), residual())


def test_a_spec_of_another_branch_cannot_be_packed() -> None:
    with pytest.raises(KernelFormatError, match="not that of the branch"):
        pack(built(residual()), bind(residual(), H=3))
