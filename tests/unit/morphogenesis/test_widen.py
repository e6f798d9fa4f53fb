"""Widening: the function is kept at birth, the moments are carried, and a cull takes out exactly what was put in."""

from typing import Any

import pytest
import torch
from torch import nn

from apps.blueprints.spec import bind, parse
from apps.blueprints.starter import starter_library
from apps.morphogenesis import widen
from apps.morphogenesis.contracts import start_topology
from apps.morphogenesis.datasets import epoch_order
from apps.morphogenesis.hosts import build_host, place_slots
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.monitors import Monitors
from apps.morphogenesis.operators import Branch, build
from apps.morphogenesis.trees import copied
from apps.morphogenesis.widen import Pair
from tests.unit.morphogenesis.support import is_same, quick_settings, tiny_digits

WIDTH, UNITS = 6, 5
CASES = [("mlp", "layers.0.width"), ("mlp", "layers.1.width"), ("cnn", "layers.0.width"), ("cnn", "layers.1.width")]


def trained(host: str, steps: int = 6) -> Learner:
    settings = quick_settings(host=host, width=WIDTH)
    built = build_host(start_topology(settings), torch.Generator().manual_seed(3))
    learner = Learner(built, tiny_digits(), settings, torch.device("cpu"))
    return train(learner, steps)


def train(learner: Learner, steps: int) -> Learner:
    monitors = Monitors(decay=0.9, horizon=16)
    order = epoch_order(0, 0, len(learner.data.train))
    for step in range(steps):
        learner.train_step(order, step, monitors, watch=False)
    return learner


def branch_for(learner: Learner, site: str, **changes: Any) -> Branch:
    contract = next(contract for contract in learner.host.contracts() if contract.name == site)
    name = {"linear": "widen_linear", "conv2d": "widen_conv"}[contract.layer]
    sizes = {"FAN_IN": contract.input_shape[1], "UNITS": UNITS, "FAN_OUT": contract.output_shape[1], **changes}
    return build(parse(bind(starter_library()[name].spec, **sizes)), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("host", "site"), CASES)
def test_a_widened_host_computes_the_same_function(host: str, site: str) -> None:
    learner = trained(host)
    before = learner.logits(learner.data.validation)
    widen.merge(learner.host, learner.host.pairs[site], branch_for(learner, site))
    assert (learner.logits(learner.data.validation) - before).abs().max() <= 1e-5
    assert widen.units(learner.host, learner.host.pairs[site]) == WIDTH + UNITS


@pytest.mark.parametrize(("host", "site"), CASES)
def test_cutting_the_new_units_out_gives_every_bit_back(host: str, site: str) -> None:
    learner = trained(host)
    state = copied(learner.state())
    pair = learner.host.pairs[site]
    learner.changed(grown=widen.merge(learner.host, pair, branch_for(learner, site)))
    learner.changed(cut=widen.unmerge(learner.host, pair, WIDTH, UNITS))
    assert is_same(learner.state(), state)


@pytest.mark.parametrize(("host", "site"), CASES)
def test_old_moments_are_carried_and_new_ones_start_at_zero(host: str, site: str) -> None:
    learner = trained(host)
    before = {name: tensor.clone() for name, tensor in learner.optimizer.state().items()}
    pair = learner.host.pairs[site]
    learner.changed(grown=widen.merge(learner.host, pair, branch_for(learner, site)))
    after = learner.optimizer.state()
    assert after.keys() == before.keys()
    for axis, name in ((0, f"{pair.producer}.weight"), (1, f"{pair.consumer}.weight")):
        for moment in ("exp_avg", "exp_avg_sq"):
            old, new = before[f"{name}/{moment}"], after[f"{name}/{moment}"]
            assert old.abs().sum() > 0
            assert torch.equal(new.narrow(axis, 0, WIDTH), old)
            assert torch.equal(new.narrow(axis, WIDTH, UNITS), torch.zeros_like(new.narrow(axis, WIDTH, UNITS)))
        assert after[f"{name}/step"] == before[f"{name}/step"] == 6


@pytest.mark.parametrize(("host", "site"), CASES)
def test_new_units_train(host: str, site: str) -> None:
    learner = trained(host)
    pair = learner.host.pairs[site]
    learner.changed(grown=widen.merge(learner.host, pair, branch_for(learner, site)))
    train(learner, 4)
    columns = learner.host.get_parameter(f"{pair.consumer}.weight").narrow(1, WIDTH, UNITS)
    assert columns.abs().sum() > 0


@pytest.mark.parametrize(("host", "site"), CASES)
def test_masking_the_new_units_is_the_same_as_cutting_them_out(host: str, site: str) -> None:
    learner = trained(host)
    pair = learner.host.pairs[site]
    learner.changed(grown=widen.merge(learner.host, pair, branch_for(learner, site)))
    train(learner, 4)
    whole = learner.logits(learner.data.validation)
    with widen.masked(learner.host, pair, WIDTH, UNITS):
        masked = learner.logits(learner.data.validation)
    assert torch.equal(learner.logits(learner.data.validation), whole)
    learner.changed(cut=widen.unmerge(learner.host, pair, WIDTH, UNITS))
    cut = learner.logits(learner.data.validation)
    assert not torch.equal(masked, whole)
    assert torch.allclose(masked, cut, atol=1e-5)


def test_units_in_the_middle_can_be_cut_out() -> None:
    tensor = torch.arange(24.0).reshape(2, 12)
    assert widen.remove(tensor, 1, 3, 4).tolist() == [[0, 1, 2, 7, 8, 9, 10, 11], [12, 13, 14, 19, 20, 21, 22, 23]]
    assert torch.equal(widen.remove(widen.insert_zeros(tensor, 1, 3, 4), 1, 3, 4), tensor)


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"FAN_IN": 9}, "the incoming layer reads"), ({"FAN_OUT": 9}, "the outgoing layer feeds")],
)
def test_a_kernel_of_other_sizes_is_refused_with_the_reason(changes: dict[str, int], why: str) -> None:
    learner = trained("mlp", steps=0)
    pair = learner.host.pairs["layers.0.width"]
    fault = widen.mismatch(learner.host, pair, branch_for(learner, "layers.0.width", **changes))
    assert fault is not None
    assert why in fault


def test_a_kernel_of_another_kind_of_layer_is_refused() -> None:
    mlp, cnn = trained("mlp", steps=0), trained("cnn", steps=0)
    fault = widen.mismatch(mlp.host, mlp.host.pairs["layers.0.width"], branch_for(cnn, "layers.0.width"))
    assert fault == "the incoming layer is a Conv2d, the host's a Linear"


def test_a_kernel_of_another_activation_is_refused() -> None:
    learner = trained("mlp", steps=0)
    pair = learner.host.pairs["layers.0.width"]
    tanh = Pair(producer=pair.producer, consumer=pair.consumer, activation="tanh", slot=pair.slot)
    fault = widen.mismatch(learner.host, tanh, branch_for(learner, "layers.0.width"))
    assert fault == "the kernel's activation is relu, the host's tanh"


def test_any_module_can_be_widened_between_two_named_layers() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    pair = Pair(producer="0", consumer="3", norm="1", slot="2.residual")
    host = place_slots(module, ["2"], torch.zeros(1, 4), {"0.width": pair}).eval()
    x = torch.randn(8, 4)
    before = host(x)
    spec = {
        "version": 1,
        "operator": "widen",
        "input": ["N", 4],
        "nodes": [
            {"id": "incoming", "op": "linear", "inputs": ["input"], "params": {"out_features": 2}},
            {"id": "norm", "op": "batch_norm", "inputs": ["incoming"]},
            {"id": "act", "op": "relu", "inputs": ["norm"]},
            {
                "id": "out",
                "op": "linear",
                "inputs": ["act"],
                "params": {"out_features": 3, "bias": False, "init": "zeros"},
            },
        ],
        "output": "out",
    }
    branch = build(parse(spec), generator=torch.Generator().manual_seed(0))
    assert widen.mismatch(host, host.pairs["0.width"], branch) is None
    widen.merge(host, host.pairs["0.width"], branch)
    assert torch.allclose(host(x), before, atol=1e-6)
    assert host.contracts()[1].input_shape == ("N", 8)
