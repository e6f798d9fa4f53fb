"""Export: a plain module of torch's own classes, with equal outputs, that trains on."""

import copy

import pytest
import torch
from torch import Tensor, nn

from apps.blueprints.spec import bind, parse
from apps.blueprints.starter import starter_library
from apps.morphogenesis.contracts import start_topology
from apps.morphogenesis.export import export
from apps.morphogenesis.hosts import Host, build_host, place_slots
from apps.morphogenesis.operators import build
from tests.unit.morphogenesis.support import Run, kernels, quick_settings, tiny_digits


def grown(host: str, operator: str) -> Run:
    settings = quick_settings(host=host, growth={"max_training_epochs": 10, "min_gradient_ratio": 0.0, "max_seeds": 3})
    run = Run(settings, library=kernels(settings, [operator]))
    run()
    return run


def platform_classes(module: nn.Module) -> list[str]:
    return [type(part).__qualname__ for part in module.modules() if not type(part).__module__.startswith("torch.")]


@pytest.mark.parametrize(("host", "operator"), [("mlp", "widen"), ("cnn", "widen"), ("cnn", "residual")])
def test_a_grown_network_leaves_with_equal_outputs_and_no_platform_code(host: str, operator: str) -> None:
    run = grown(host, operator)
    assert "FOSSILIZED" in run.states(1) + run.states(2) + run.states(3)
    inputs = tiny_digits().test.inputs
    plain = export(run.trainer.host.eval())
    with torch.no_grad():
        assert torch.equal(plain(inputs), run.trainer.host(inputs))
    assert platform_classes(plain) == []


def test_the_check_for_platform_code_can_fail() -> None:
    settings = quick_settings()
    assert platform_classes(build_host(start_topology(settings), torch.Generator()))


def test_the_exported_network_trains_on_without_touching_the_host() -> None:
    run = grown("mlp", "widen")
    before = copy.deepcopy(run.trainer.host.state_dict())
    plain = export(run.trainer.host).train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    plain(tiny_digits().train.inputs).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.trainer.host.state_dict().items())


class Gated(nn.Module):
    """Somebody's own module, with control flow that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        if h.sum() > 0:
            h = h.relu()
        out: Tensor = self.head(h)
        return out


def own_host() -> tuple[Gated, Host]:
    torch.manual_seed(0)
    module = Gated()
    return module, place_slots(module, ["body"], torch.zeros(1, 5))


def test_a_module_of_ones_own_comes_back_as_itself() -> None:
    _, host = own_host()
    plain = export(host)
    assert type(plain) is Gated
    assert isinstance(plain.body, nn.Linear)
    x = torch.randn(7, 5)
    assert torch.equal(plain(x), host(x))


def test_a_module_of_ones_own_keeps_its_fossils() -> None:
    _, host = own_host()
    spec = bind(starter_library()["residual_mlp"].spec, D=6, H=4)
    branch = build(parse(spec), generator=torch.Generator().manual_seed(0))
    nn.init.normal_(branch.get_submodule(branch.graph.output).weight)  # type: ignore[arg-type]
    slot = host.slot("body.residual")
    slot.plant(branch, spec)
    slot.fossilize()
    plain = export(host)
    x = torch.randn(7, 5)
    assert torch.equal(plain(x), host(x))
    assert platform_classes(plain) == ["Gated"]


def test_a_network_with_a_live_seed_cannot_leave() -> None:
    _, host = own_host()
    spec = bind(starter_library()["residual_mlp"].spec, D=6, H=4)
    host.slot("body.residual").plant(build(parse(spec), generator=torch.Generator().manual_seed(0)), spec)
    with pytest.raises(ValueError, match=r"body\.residual has a live seed"):
        export(host)


def test_a_layer_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="no layer 'nowhere'; known: body, head"):
        place_slots(Gated(), ["nowhere"], torch.zeros(1, 5))


def test_an_activation_that_no_seed_fits_is_refused() -> None:
    module = nn.Sequential(nn.Linear(5, 6), nn.Unflatten(1, (2, 3)), nn.Flatten())
    with pytest.raises(ValueError, match="cannot hold a seed"):
        place_slots(module, ["1"], torch.zeros(1, 5))
