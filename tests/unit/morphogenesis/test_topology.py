"""A topology is JSON from which the same shape is built again, anywhere."""

import json

import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.blueprints.spec import bind
from apps.blueprints.starter import starter_library
from apps.morphogenesis.hosts import build_host
from apps.morphogenesis.topology import Topology, digest

BLUEPRINTS = {"mlp": ("residual_mlp", "D"), "cnn": ("residual_conv", "C")}


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    host = draw(st.sampled_from(["mlp", "cnn"]))
    widths = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    name, symbol = BLUEPRINTS[host]
    branches = {
        f"layers.{layer}.residual": tuple(
            bind(starter_library()[name].spec, **{symbol: width, "H": draw(st.integers(1, 5))})
            for _ in range(draw(st.integers(0, 2)))
        )
        for layer, width in enumerate(widths)
        if draw(st.booleans())
    }
    return Topology(host=host, input_shape=(1, 8, 8), classes=10, widths=widths, branches=branches)


@given(topologies())
def test_a_topology_survives_json_and_keeps_its_digest(topology: Topology) -> None:
    values = topology.to_dict()
    again = Topology.parse(json.loads(json.dumps(values)))
    assert again.to_dict() == values
    assert digest(again.to_dict()) == digest(values)


@given(topologies())
def test_a_host_built_from_a_topology_has_it_and_computes_logits(topology: Topology) -> None:
    host = build_host(topology, torch.Generator().manual_seed(0)).eval()
    built = host.topology()
    assert built == {**topology.to_dict(), "branches": {k: v for k, v in topology.to_dict()["branches"].items() if v}}
    assert host(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@given(topologies(), topologies())
def test_a_host_takes_any_structure_of_its_kind_in_place(start: Topology, target: Topology) -> None:
    if (start.host, len(start.widths)) != (target.host, len(target.widths)):
        return
    if start.host == "cnn" and start.widths[-1] != target.widths[-1]:
        return
    host, wanted = (build_host(t, torch.Generator().manual_seed(0)) for t in (start, target))
    host.take_structure(wanted.structure())
    shapes = {name: tensor.shape for name, tensor in host.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in wanted.state_dict().items()}
    host.load_state_dict(wanted.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(host.eval()(x), wanted.eval()(x))


def test_different_shapes_have_different_digests() -> None:
    digests = {
        digest(Topology(host=host, input_shape=(1, 8, 8), classes=10, widths=widths).to_dict())
        for host in ("mlp", "cnn")
        for widths in ((4, 4), (4, 5), (5, 4), (4, 4, 4))
    }
    assert len(digests) == 8
