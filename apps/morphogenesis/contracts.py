"""Which kernels a run can use: the shapes of its sites now, and after each growth step its policy may take.

The platform compiles exactly ``wanted_bindings`` from the starter blueprints before a run. Pure Python: no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Self

from apps.morphogenesis.catalogue import HOSTS, TASKS
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.topology import Shape, Topology

LAYER_OF_RANK: Mapping[int, str] = {2: "linear", 4: "conv2d"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteContract:
    """What a kernel must be to grow at a site. ``layer`` is "linear" or "conv2d"; shapes are batch first."""

    name: str
    operator: str
    layer: str
    input_shape: Shape
    output_shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Sizes for the symbols of a starter blueprint of this operator and layer."""

    operator: str
    layer: str
    symbols: Mapping[str, int] = field(hash=False)

    @classmethod
    def of(cls, operator: str, layer: str, **symbols: int) -> Self:
        return cls(operator=operator, layer=layer, symbols=symbols)


def start_topology(settings: RunSettings) -> Topology:
    """The host's shape before any growth."""
    if settings.topology is not None:
        return Topology.parse(settings.topology)
    task, host = TASKS[settings.task], HOSTS[settings.host]
    width = settings.width or host.width
    return Topology(
        host=settings.host, input_shape=task.input_shape, classes=task.classes, widths=(width,) * host.depth
    )


def sites(settings: RunSettings) -> tuple[SiteContract, ...]:
    """The contract of each site of the start host, widening sites first."""
    return contracts_of(start_topology(settings))


def contracts_of(topology: Topology) -> tuple[SiteContract, ...]:
    """The contract of each site of a host of this shape, widening sites first."""
    widen = (_contract(site, "widen", *shapes) for site, shapes in topology.widen_shapes.items())
    residual = (_contract(site, "residual", shape, shape) for site, shape in topology.residual_shapes.items())
    return (*widen, *residual)


def target_width(start: int, settings: RunSettings) -> int:
    """The width to which the default policy grows a layer that starts at ``start``."""
    return max(start, round(start * settings.growth.widen_factor))


def residual_hidden(features: int) -> int:
    """Hidden size of the residual branch that the default policy wants at a site of so many features."""
    return max(4, features)


def wanted_bindings(settings: RunSettings) -> tuple[Binding, ...]:
    """Every contract that the default policy may reach in a run; none when growth is off."""
    return reachable_bindings(start_topology(settings), settings) if settings.growth.enabled else ()


def reachable_bindings(topology: Topology, settings: RunSettings) -> tuple[Binding, ...]:
    """Every contract that is reached from ``topology``: each layer at its start width or at its target width."""
    layer = LAYER_OF_RANK[2 if topology.host == "mlp" else 4]
    widths = [sorted({width, target_width(width, settings)}) for width in topology.widths]
    around = [[topology.fan_in], *widths, [topology.classes]]
    wanted: dict[Binding, None] = {}
    for index in range(len(topology.widen_shapes)):
        for fan_in, fan_out in product(around[index], around[index + 2]):
            units = widths[index][-1] - widths[index][0]
            if units:
                wanted[Binding.of("widen", layer, FAN_IN=fan_in, UNITS=units, FAN_OUT=fan_out)] = None
    for features in sorted({width for choices in widths for width in choices}):
        wanted[_residual_binding(layer, features)] = None
    return tuple(wanted)


def _residual_binding(layer: str, features: int) -> Binding:
    symbol = {"linear": "D", "conv2d": "C"}[layer]
    return Binding.of("residual", layer, **{symbol: features, "H": residual_hidden(features)})


def _contract(site: str, operator: str, input_shape: Shape, output_shape: Shape) -> SiteContract:
    return SiteContract(
        name=site,
        operator=operator,
        layer=LAYER_OF_RANK[len(input_shape)],
        input_shape=input_shape,
        output_shape=output_shape,
    )
