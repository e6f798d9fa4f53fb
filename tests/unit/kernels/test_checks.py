"""The measurements that validation rests on see what they must see."""

import math
from typing import Any

import pytest
import torch

from apps.blueprints.spec import bind, parse
from apps.morphogenesis import checks
from apps.morphogenesis.operators import Branch, build
from tests.unit.blueprints.specs import chain, residual, widen_conv


def built(spec: dict[str, Any]) -> tuple[Branch, torch.Tensor]:
    graph = parse(bind(spec))
    return build(graph, generator=torch.Generator().manual_seed(0)), checks.probe(graph.input_shape)


def test_the_probe_is_the_same_every_time() -> None:
    assert torch.equal(checks.probe(("N", 4)), checks.probe(("N", 4)))
    assert checks.probe(("N", 3, "H", "W")).shape == (8, 3, 8, 8)


def test_a_new_branch_gives_nothing_and_keeps_its_statistics() -> None:
    branch, h = built(widen_conv())
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    assert checks.largest_output(branch, h) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in branch.state_dict().items())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_bad_weight_spoils_the_largest_output(value: float) -> None:
    branch, h = built(residual())
    with torch.no_grad():
        branch.get_parameter("fc2.weight")[0, 0] = value
    assert checks.non_finite(branch) == ["fc2.weight"]
    assert not checks.largest_output(branch, h) <= 1e-5


def test_at_birth_only_the_zero_layer_learns_and_then_everything() -> None:
    branch, h = built(residual())
    born = checks.gradient_norms(branch, h, training=True)
    assert {name for name, norm in born.items() if norm > 0} == {"fc2.weight", "fc2.bias"}
    assert all(norm > 0 for norm in checks.gradient_norms_after_nudge(branch, h).values())


def test_measuring_gradients_leaves_the_branch_alone() -> None:
    branch, h = built(residual())
    checks.gradient_norms_after_nudge(branch, h)
    assert checks.largest_output(branch, h) == 0
    assert all(parameter.grad is None for parameter in branch.parameters())


def test_a_relu_behind_a_zero_layer_never_learns() -> None:
    branch, h = built(chain("relu", first_init="zeros"))
    norms = checks.gradient_norms_after_nudge(branch, h)
    assert norms["first.weight"] == 0


@pytest.mark.parametrize("name", ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"])
def test_the_fingerprint_sees_one_changed_weight_in_any_layer(name: str) -> None:
    branch, h = built(bind(residual(), D=64, H=64))
    reference = checks.fingerprint(branch, h)
    with torch.no_grad():
        branch.get_parameter(name).view(-1)[0] += 0.01
    assert checks.deviation(checks.fingerprint(branch, h), reference) > 1e-4


def test_the_fingerprint_of_equal_branches_is_equal() -> None:
    (one, h), (other, _) = built(widen_conv()), built(widen_conv())
    assert checks.deviation(checks.fingerprint(one, h), checks.fingerprint(other, h)) == 0


@pytest.mark.parametrize(
    "reference",
    [{}, {"a": [1.0, 2.0]}, {"a": [1.0, math.nan], "b": [1.0]}, {"a": [1.0], "b": [1.0]}],
    ids=["empty", "other nodes", "nan", "other length"],
)
def test_what_cannot_be_compared_deviates_infinitely(reference: dict[str, list[float]]) -> None:
    assert checks.deviation({"a": [1.0, 2.0], "b": [1.0]}, reference) == math.inf


def test_a_nan_is_not_hidden_by_a_later_node() -> None:
    assert checks.deviation({"a": [math.nan], "b": [1.0]}, {"a": [1.0], "b": [1.0]}) == math.inf


def test_the_benchmark_measures_against_a_baseline_of_the_same_run() -> None:
    timings = checks.benchmark(*built(residual()), rounds=3, round_s=0.001)
    assert 0 < timings["relative_low"] <= timings["relative"] <= timings["relative_high"]
    assert timings["rounds"] == 3
    assert min(timings.values()) > 0
