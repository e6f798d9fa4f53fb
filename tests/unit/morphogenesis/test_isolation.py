"""Isolation: while a seed trains in the shadow, the host trains as if it were not there, whatever the seed computes."""

import math

import pytest
import torch
from torch import Tensor, nn

from apps.blueprints.spec import bind, parse
from apps.blueprints.starter import starter_library
from apps.morphogenesis.contracts import start_topology
from apps.morphogenesis.datasets import epoch_order
from apps.morphogenesis.hosts import Host, build_host
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.monitors import Monitors
from apps.morphogenesis.operators import build
from apps.morphogenesis.slots import Mode, SlotSite
from tests.unit.morphogenesis.support import quick_settings, tiny_digits

SITES = {"mlp": ("layers.0.residual", "layers.1.residual"), "cnn": ("layers.0.residual", "layers.2.residual")}
WIDTH = 6
POISONS = {"nan": math.nan, "inf": math.inf, "huge": 1e30}


def learner_with_seed(host: str, site: str, mode: Mode, *, alpha: float = 0.0, noise: float = 0.3) -> Learner:
    """A fresh learner with a live residual seed whose weights are random, so that D(h) is not zero."""
    learner = plain_learner(host)
    name, symbol = ("residual_mlp", "D") if host == "mlp" else ("residual_conv", "C")
    spec = bind(starter_library()[name].spec, **{symbol: WIDTH, "H": 4})
    generator = torch.Generator().manual_seed(1)
    branch = build(parse(spec), generator=generator)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=noise)
    slot = learner.host.slot(site)
    slot.plant(branch, spec)
    slot.mode, slot.alpha = mode, alpha
    learner.changed()
    return learner


def plain_learner(host: str) -> Learner:
    settings = quick_settings(host=host, width=WIDTH, gradient_clip=0.1)
    built = build_host(start_topology(settings), torch.Generator().manual_seed(3))
    return Learner(built, tiny_digits(), settings, torch.device("cpu"))


def poison(learner: Learner, site: str, value: float) -> None:
    branch = learner.host.slot(site).seed
    assert branch is not None
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.fill_(value)


def train(learner: Learner, steps: int = 4) -> None:
    monitors = Monitors(decay=0.9, horizon=16)
    order = epoch_order(0, 0, len(learner.data.train))
    for step in range(steps):
        learner.train_step(order, step, monitors, watch=False)


def host_state(host: Host) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in host.state_dict().items() if ".branches." not in name}


def same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(("host", "site"), [(host, site) for host, sites in SITES.items() for site in sites])
@pytest.mark.parametrize("poisoned", [None, *POISONS])
def test_a_seed_in_the_shadow_leaves_the_hosts_training_bit_for_bit_as_it_was(
    host: str, site: str, poisoned: str | None
) -> None:
    alone = plain_learner(host)
    shadowed = learner_with_seed(host, site, Mode.SHADOW)
    if poisoned:
        poison(shadowed, site, POISONS[poisoned])
    train(alone)
    train(shadowed)
    assert same_bits(host_state(alone.host), host_state(shadowed.host))
    assert all(torch.isfinite(tensor).all() for tensor in host_state(shadowed.host).values())


@pytest.mark.parametrize("host", SITES)
@pytest.mark.parametrize("poisoned", POISONS)
def test_a_poisoned_seed_leaves_the_hosts_output_and_gradients_as_they_were(host: str, poisoned: str) -> None:
    site = SITES[host][0]
    alone, shadowed = plain_learner(host), learner_with_seed(host, site, Mode.SHADOW)
    poison(shadowed, site, POISONS[poisoned])
    inputs = alone.data.train.inputs[:16]
    outputs = [learner.host(inputs) for learner in (alone, shadowed)]
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(*outputs)
    gradients = [
        {name: parameter.grad for name, parameter in learner.host.named_parameters() if ".branches." not in name}
        for learner in (alone, shadowed)
    ]
    assert same_bits(*gradients)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", SITES)
def test_a_seed_in_the_shadow_trains(host: str) -> None:
    learner = learner_with_seed(host, SITES[host][0], Mode.SHADOW)
    learner.host(learner.data.train.inputs[:16]).square().sum().backward()
    branch = learner.host.slot(SITES[host][0]).seed
    assert branch is not None
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in branch.parameters())


def test_the_shadow_hands_the_upstream_gradient_to_the_seed_and_to_h_alike() -> None:
    slot = learner_with_seed("mlp", SITES["mlp"][0], Mode.SHADOW).host.slot(SITES["mlp"][0])
    branch = slot.seed
    assert branch is not None
    h, upstream = torch.randn(16, WIDTH, requires_grad=True), torch.randn(16, WIDTH)
    expected = torch.autograd.grad(branch(h.detach()), list(branch.parameters()), grad_outputs=upstream)
    slot(h).backward(upstream)
    assert h.grad is not None
    assert torch.equal(h.grad, upstream)
    assert all(torch.equal(p.grad, g) for p, g in zip(branch.parameters(), expected, strict=True) if p.grad is not None)


@pytest.mark.parametrize("host", SITES)
def test_the_backbone_trains_at_full_strength(host: str) -> None:
    learner = learner_with_seed(host, SITES[host][1], Mode.GRAFT, alpha=1.0)
    learner.host(learner.data.train.inputs[:16]).square().sum().backward()
    first = learner.host.get_submodule("layers.0.producer")
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in first.parameters())


def test_a_seeds_gradient_does_not_shrink_the_hosts_when_clipping() -> None:
    site = SITES["mlp"][0]
    shadowed = learner_with_seed("mlp", site, Mode.SHADOW, noise=50.0)
    monitors = Monitors(decay=0.9, horizon=16)
    shadowed.train_step(epoch_order(0, 0, 192), 0, monitors, watch=True)
    host = torch.stack([p.grad.norm() for n, p in shadowed.host.named_parameters() if "branches" not in n]).norm()  # type: ignore[union-attr]
    assert host == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW])
def test_an_idle_or_shadow_seed_is_not_run_in_evaluation(mode: Mode) -> None:
    learner = learner_with_seed("mlp", SITES["mlp"][0], mode)
    poison(learner, SITES["mlp"][0], math.nan)
    plain = plain_learner("mlp")
    split = learner.data.validation
    assert torch.equal(learner.logits(split), plain.logits(split))


def test_a_seed_that_is_off_does_not_run_in_training_either() -> None:
    learner = learner_with_seed("mlp", SITES["mlp"][0], Mode.OFF)
    learner.host.slot(SITES["mlp"][0]).seed.register_forward_hook(_must_not_run)  # type: ignore[union-attr]
    train(learner, steps=1)


def test_a_site_holds_one_live_seed() -> None:
    learner = learner_with_seed("mlp", SITES["mlp"][0], Mode.OFF)
    slot = learner.host.slot(SITES["mlp"][0])
    branch = slot.seed
    assert branch is not None
    with pytest.raises(ValueError, match="already has a live seed"):
        slot.plant(branch, {})


@pytest.mark.parametrize("end", ["fossilize", "uproot"])
def test_an_empty_site_has_no_seed_to_end(end: str) -> None:
    with pytest.raises(ValueError, match="has no live seed"):
        getattr(SlotSite(), end)()


def test_an_empty_site_is_the_identity() -> None:
    h = torch.randn(4, 3)
    assert SlotSite()(h) is h


def _must_not_run(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    raise AssertionError("the seed ran")


def test_a_watched_seed_leaves_the_size_of_its_output_as_a_share_of_the_activation() -> None:
    learner = learner_with_seed("mlp", SITES["mlp"][0], Mode.SHADOW)
    slot = learner.host.slot(SITES["mlp"][0])
    monitors = Monitors(decay=0.9, horizon=16)
    order = epoch_order(0, 0, 192)
    learner.train_step(order, 0, monitors, watch=False)
    assert slot.share is None
    learner.train_step(order, 1, monitors, watch=True)
    share = monitors.read(16).seed_share
    assert share is not None
    assert 0.01 < share < 100


@pytest.mark.parametrize("name", sorted(starter_library()))
def test_no_kernel_draws_from_the_hosts_random_state(name: str) -> None:
    graph = parse(bind(starter_library()[name].spec))
    branch = build(graph, generator=torch.Generator().manual_seed(0)).train()
    h = torch.randn(3, *(size if isinstance(size, int) else 4 for size in graph.input_shape[1:]))
    before = torch.get_rng_state()
    branch(h)
    assert torch.equal(torch.get_rng_state(), before)
