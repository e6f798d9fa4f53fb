"""Host networks: what seeds grow in. MLP and CNN ship; ``place_slots`` makes a host of any ``nn.Module``."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apps.blueprints.spec import parse
from apps.morphogenesis import widen
from apps.morphogenesis.contracts import LAYER_OF_RANK, SiteContract
from apps.morphogenesis.operators import build
from apps.morphogenesis.slots import SlotSite
from apps.morphogenesis.topology import Shape, Topology, residual_site, widen_site
from apps.morphogenesis.widen import Pair

FREE_DIMENSIONS = ("H", "W")


class Host(nn.Module):
    """A network with insertion points.

    ``slots`` maps each residual site to the path of its ``SlotSite``; ``pairs`` maps each widening site to its layers;
    ``probe`` is one sample, batch first, by which the host measures the shapes of its activations.
    """

    slots: Mapping[str, str]
    pairs: Mapping[str, Pair]
    probe: Tensor

    def __init__(self, probe: Tensor) -> None:
        super().__init__()
        self.register_buffer("probe", probe, persistent=False)

    def slot(self, site: str) -> SlotSite:
        """The residual site of that name. Raises KeyError."""
        module = self.get_submodule(self.slots[site])
        assert isinstance(module, SlotSite)
        return module

    def contracts(self) -> tuple[SiteContract, ...]:
        """What a kernel must be to grow at each site as the host is now, widening sites first."""
        shapes = self._measure_shapes()
        widening = [
            _contract(site, "widen", shapes[pair.producer][0], shapes[pair.consumer][1])
            for site, pair in self.pairs.items()
        ]
        residual = [_contract(site, "residual", *shapes[path]) for site, path in self.slots.items()]
        return (*widening, *residual)

    def structure(self) -> dict[str, Any]:
        """What growth has made of the host, as JSON types."""
        return {
            "widths": {site: widen.units(self, pair) for site, pair in self.pairs.items()},
            "branches": {site: list(self.slot(site).specs) for site in self.slots},
        }

    def take_structure(self, structure: Mapping[str, Any]) -> None:
        """Take the shape that ``structure`` describes. Weights are undefined until they are loaded; no seed is live."""
        for site, width in structure["widths"].items():
            if widen.units(self, self.pairs[site]) != width:
                widen.resize(self, self.pairs[site], width)
        for site, specs in structure["branches"].items():
            self.slot(site).clear()
            for spec in specs:
                self.attach(site, spec, torch.Generator())

    def attach(self, site: str, spec: Mapping[str, Any], generator: torch.Generator) -> None:
        """Add a residual branch as an ordinary part of the host, its weights drawn from ``generator``."""
        slot = self.slot(site)
        slot.plant(build(parse(spec), generator=generator).to(self.probe.device), spec)
        slot.fossilize()

    def topology(self) -> dict[str, Any]:
        """The host's shape as JSON types: what a static control is built from."""
        return self.structure()

    def _measure_shapes(self) -> dict[str, tuple[Shape, Shape]]:
        """Input and output shape of each module that growth touches, by its path."""
        paths = {
            *self.slots.values(),
            *(path for pair in self.pairs.values() for path in (pair.producer, pair.consumer)),
        }
        shapes: dict[str, tuple[Shape, Shape]] = {}

        def record(path: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                shapes[path] = (_shape(inputs[0]), _shape(output))

            return hook

        handles = [self.get_submodule(path).register_forward_hook(record(path)) for path in sorted(paths)]
        training = self.training
        try:
            self.eval()
            with torch.no_grad():
                self(self.probe)
        finally:
            self.train(training)
            for handle in handles:
                handle.remove()
        return shapes


class HiddenLayer(nn.Module):
    """producer -> [norm] -> ReLU -> slot."""

    def __init__(self, producer: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.producer = producer
        self.norm = norm
        self.slot = SlotSite()

    def forward(self, x: Tensor) -> Tensor:
        h = self.producer(x)
        if self.norm is not None:
            h = self.norm(h)
        out: Tensor = self.slot(F.relu(h))
        return out


class LayeredHost(Host):
    """A chain of hidden layers and a linear head: the common part of the hosts that ship."""

    def __init__(self, topology: Topology) -> None:
        super().__init__(torch.zeros(1, *topology.input_shape))
        self.start = topology
        sizes = (topology.fan_in, *topology.widths)
        self.layers = nn.ModuleList(self._layer(*sizes[index : index + 2]) for index in range(len(topology.widths)))
        self.head = nn.Linear(sizes[-1], topology.classes)
        self.slots = {residual_site(index): f"layers.{index}.slot" for index in range(len(self.layers))}
        self.pairs = {site: self._pair(site) for site in topology.widen_shapes}

    def _layer(self, fan_in: int, width: int) -> HiddenLayer:
        raise NotImplementedError

    def topology(self) -> dict[str, Any]:
        structure = self.structure()
        return Topology(
            host=self.start.host,
            input_shape=self.start.input_shape,
            classes=self.start.classes,
            widths=tuple(widen.width(self, f"layers.{index}.producer") for index in range(len(self.layers))),
            branches={site: tuple(specs) for site, specs in structure["branches"].items() if specs},
        ).to_dict()

    def _pair(self, site: str) -> Pair:
        index = [widen_site(layer) for layer in range(len(self.layers))].index(site)
        last = index + 1 == len(self.layers)
        return Pair(
            producer=f"layers.{index}.producer",
            consumer="head" if last else f"layers.{index + 1}.producer",
            norm=f"layers.{index}.norm" if self.layers[index].norm is not None else None,
            slot=residual_site(index),
        )


class MLP(LayeredHost):
    """Fully connected layers with ReLU and a linear head. Takes [N, ...], flattened; gives logits [N, classes]."""

    def _layer(self, fan_in: int, width: int) -> HiddenLayer:
        return HiddenLayer(nn.Linear(fan_in, width))

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(h)
        return logits


class CNN(LayeredHost):
    """3x3 convolutions with batch norm and ReLU, global average pooling, a linear head. Takes [N, channels, H, W]."""

    def _layer(self, fan_in: int, width: int) -> HiddenLayer:
        return HiddenLayer(nn.Conv2d(fan_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for layer in self.layers:
            h = layer(h)
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


HOST_TYPES: Mapping[str, type[LayeredHost]] = {"mlp": MLP, "cnn": CNN}


def build_host(topology: Topology, generator: torch.Generator) -> LayeredHost:
    """A fresh host of this shape on the CPU, its weights drawn from ``generator`` alone."""
    # Built on the meta device, so that no constructor draws from the global generator.
    with torch.device("meta"):
        host = HOST_TYPES[topology.host](topology)
    host.to_empty(device="cpu")
    host.probe.zero_()
    initialise(host, generator)
    for site, specs in topology.branches.items():
        for spec in specs:
            host.attach(site, spec, generator)
    return host


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """torch's default fan-in initialisation, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), and neutral normalisation."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.reset_parameters()
            elif isinstance(part, nn.Linear | nn.Conv2d):
                bound = 1 / math.sqrt(part.weight[0].numel())
                for parameter in part.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)


class WrappedHost(Host):
    """Any module with slots placed behind layers of it. Made by ``place_slots``."""

    def __init__(self, module: nn.Module, probe: Tensor, slots: Mapping[str, str], pairs: Mapping[str, Pair]) -> None:
        super().__init__(probe)
        self.module = module
        self.slots = slots
        self.pairs = pairs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x)
        return out


def place_slots(
    module: nn.Module, names: Iterable[str], probe: Tensor, pairs: Mapping[str, Pair] | None = None
) -> WrappedHost:
    """Make a host of ``module``: a residual slot behind each named layer, and widening over ``pairs``.

    Each named layer becomes ``nn.Sequential(layer, slot)`` in place; its activation must be [N, features] or
    [N, channels, H, W]. ``pairs`` name modules by their paths before any wrapping. ``probe`` is one sample [1, ...].

    Raises:
        ValueError: a name is no layer of the module, or its activation has another shape.
    """
    paths = dict(module.named_modules())
    wrapped = {}
    for name in names:
        if not name or name not in paths:
            raise ValueError(f"no layer {name!r:.80}; known: {', '.join(path for path in paths if path)}")
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, nn.Sequential(paths[name], SlotSite()))
        wrapped[name] = f"{name}.0"
    slots = {f"{name}.residual": f"module.{name}.1" for name in wrapped}
    host = WrappedHost(module, probe, slots, {site: _rename(pair, wrapped) for site, pair in (pairs or {}).items()})
    host.contracts()
    return host


def _rename(pair: Pair, wrapped: Mapping[str, str]) -> Pair:
    def path(name: str) -> str:
        return f"module.{wrapped.get(name, name)}"

    return Pair(
        producer=path(pair.producer),
        consumer=path(pair.consumer),
        norm=path(pair.norm) if pair.norm is not None else None,
        activation=pair.activation,
        slot=pair.slot,
    )


def _contract(site: str, operator: str, input_shape: Shape, output_shape: Shape) -> SiteContract:
    layer = LAYER_OF_RANK.get(len(input_shape))
    if layer is None or len(output_shape) != len(input_shape):
        raise ValueError(f"site {site}: an activation of shape {list(output_shape)} cannot hold a seed")
    return SiteContract(name=site, operator=operator, layer=layer, input_shape=input_shape, output_shape=output_shape)


def _shape(tensor: Tensor) -> Shape:
    """Batch first, free dimensions as symbols: ("N", 64), ("N", 8, "H", "W")."""
    return ("N", *tensor.shape[1:2], *FREE_DIMENSIONS[: tensor.dim() - 2]) if tensor.dim() > 1 else tuple(tensor.shape)
