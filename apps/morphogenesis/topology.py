"""What shape a host network has, as plain data: layer widths and the residual branches grafted between them.

A grown net's topology is JSON, so that a control of the same final shape can be trained from scratch. Pure Python:
the API checks a request's topology with this.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from apps.blueprints.spec import SpecError, parse
from apps.morphogenesis.catalogue import HOSTS

VERSION = 1
MAX_WIDTH = 65_536
MAX_LAYERS = 64
FIELDS = ("version", "host", "input_shape", "classes", "widths", "branches")

Shape = tuple[int | str, ...]


class TopologyError(ValueError):
    """A topology that no host has. ``pointer`` is the JSON pointer (RFC 6901) of the field at fault."""

    def __init__(self, message: str, *, pointer: str) -> None:
        super().__init__(message)
        self.pointer = pointer


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A host's shape. ``widths`` are those of the hidden layers; ``branches`` maps a site to bound residual specs."""

    host: str
    input_shape: tuple[int, ...]
    classes: int
    widths: tuple[int, ...]
    branches: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Read and check a topology's JSON.

        Raises:
            TopologyError: a field is missing, unknown or impossible, or a branch does not fit its layer.
        """
        _check_fields(values)
        topology = cls(
            host=_host(values["host"]),
            input_shape=_sizes(values["input_shape"], "/input_shape", longest=3),
            classes=_sizes([values["classes"]], "/classes", longest=1)[0],
            widths=_sizes(values["widths"], "/widths", longest=MAX_LAYERS),
            branches=_branches(values["branches"]),
        )
        for site, specs in topology.branches.items():
            topology._check_branches(site, specs)
        return topology

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; ``parse`` gives an equal value back."""
        return {
            "version": VERSION,
            "host": self.host,
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "widths": list(self.widths),
            "branches": {site: [dict(spec) for spec in specs] for site, specs in sorted(self.branches.items())},
        }

    @property
    def residual_shapes(self) -> dict[str, Shape]:
        """The activation's shape at each residual site, batch first; free dimensions are symbols."""
        return {residual_site(index): self._shape(width) for index, width in enumerate(self.widths)}

    @property
    def widen_shapes(self) -> dict[str, tuple[Shape, Shape]]:
        """Input and output shape of each producer/consumer pair that a hidden layer's width sits between."""
        sizes = (self.fan_in, *self.widths, self.classes)
        # A CNN's last convolution feeds the linear head through pooling: no widening kernel is of that form.
        pairs = len(self.widths) - (self.host == "cnn")
        return {widen_site(index): (self._shape(sizes[index]), self._shape(sizes[index + 2])) for index in range(pairs)}

    @property
    def fan_in(self) -> int:
        """Features (MLP) or channels (CNN) that the first layer reads."""
        if self.host == "cnn":
            return self.input_shape[0]
        size = 1
        for dimension in self.input_shape:
            size *= dimension
        return size

    def _shape(self, features: int) -> Shape:
        return ("N", features, "H", "W") if self.host == "cnn" else ("N", features)

    def _check_branches(self, site: str, specs: tuple[Mapping[str, Any], ...]) -> None:
        shape = self.residual_shapes.get(site)
        if shape is None:
            known = ", ".join(self.residual_shapes)
            raise TopologyError(f"no residual site {site!r}; known: {known}", pointer=f"/branches/{site}")
        for index, spec in enumerate(specs):
            pointer = f"/branches/{site}/{index}"
            try:
                graph = parse(spec)
            except SpecError as error:
                raise TopologyError(str(error), pointer=pointer + error.pointer) from error
            if graph.operator != "residual" or graph.input_shape != shape:
                raise TopologyError(f"needs a residual spec of shape {list(shape)}", pointer=pointer)


def residual_site(layer: int) -> str:
    """The name of the residual slot after a layer."""
    return f"layers.{layer}.residual"


def widen_site(layer: int) -> str:
    """The name of the slot that widens a layer."""
    return f"layers.{layer}.width"


def digest(topology: Mapping[str, Any]) -> str:
    """sha256, in hex, of a topology's canonical JSON."""
    return hashlib.sha256(json.dumps(topology, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check_fields(values: Mapping[str, Any]) -> None:
    if not isinstance(values, Mapping):
        raise TopologyError("must be an object", pointer="")
    for name in values:
        if name not in FIELDS:
            raise TopologyError(f"unknown field {name!r:.80}; known: {', '.join(FIELDS)}", pointer=f"/{name}")
    for name in FIELDS:
        if name not in values:
            raise TopologyError(f"{name} is missing", pointer=f"/{name}")
    if values["version"] != VERSION:
        raise TopologyError(f"version must be {VERSION}", pointer="/version")


def _host(value: Any) -> str:
    if not isinstance(value, str) or value not in HOSTS:
        raise TopologyError(f"{value!r:.80} is not one of: {', '.join(HOSTS)}", pointer="/host")
    return value


def _sizes(value: Any, pointer: str, *, longest: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= longest:
        raise TopologyError(f"must be an array of 1 to {longest} sizes", pointer=pointer)
    for size in value:
        if type(size) is not int or not 1 <= size <= MAX_WIDTH:
            raise TopologyError(f"sizes must be whole numbers from 1 to {MAX_WIDTH:,}", pointer=pointer)
    return tuple(value)


def _branches(value: Any) -> dict[str, tuple[Mapping[str, Any], ...]]:
    if not isinstance(value, Mapping) or not all(isinstance(specs, list | tuple) for specs in value.values()):
        raise TopologyError("must map each site to an array of specs", pointer="/branches")
    return {site: tuple(specs) for site, specs in sorted(value.items())}
