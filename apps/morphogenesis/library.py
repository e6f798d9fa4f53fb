"""Ports in memory: a kernel library built from blueprints, and sinks that keep what they are given.

For benchmarks, tests and scripts that use the engine without the platform.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch

from apps.blueprints.spec import bind, parse
from apps.morphogenesis.contracts import Binding
from apps.morphogenesis.operators import build, pack
from apps.morphogenesis.protocols import (
    Command,
    DecisionRecord,
    EpochRecord,
    GraftOutcome,
    KernelOffer,
    KernelUnavailable,
    Restored,
    RunFailed,
    Snapshot,
    TransitionRecord,
)
from apps.morphogenesis.trees import copied

Event = DecisionRecord | TransitionRecord | GraftOutcome | EpochRecord


class Blueprint(Protocol):
    """A design with symbols; ``tags`` name its operator and layer."""

    @property
    def name(self) -> str: ...

    @property
    def tags(self) -> Mapping[str, str]: ...

    @property
    def spec(self) -> Mapping[str, Any]: ...


class InMemoryKernels:
    """A kernel source built here and now: each binding from the blueprint of its operator and layer."""

    def __init__(self, blueprints: Iterable[Blueprint], bindings: Iterable[Binding], *, seed: int = 0) -> None:
        library = _by_fit(blueprints)
        self._artefacts: dict[str, bytes] = {}
        self._offers: list[KernelOffer] = []
        for number, binding in enumerate(bindings):
            blueprint = library[binding.operator, binding.layer]
            spec = bind(blueprint.spec, **binding.symbols)
            graph = parse(spec)
            data = pack(build(graph, generator=torch.Generator().manual_seed(seed + number)), spec)
            digest = hashlib.sha256(data).hexdigest()
            self._artefacts[digest] = data
            self._offers.append(
                KernelOffer(
                    digest=digest,
                    name=blueprint.name,
                    operator=graph.operator,
                    input_shape=graph.input_shape,
                    output_shape=graph.output_shape,
                    parameters=graph.parameters,
                )
            )

    def offers(self) -> Sequence[KernelOffer]:
        return tuple(self._offers)

    def load(self, digest: str) -> bytes:
        if digest not in self._artefacts:
            raise KernelUnavailable(f"no kernel {digest}")
        return self._artefacts[digest]


def _by_fit(blueprints: Iterable[Blueprint]) -> dict[tuple[str, str], Blueprint]:
    """Raises ValueError: two fit the same bindings, and the figures of a run would hang on their order."""
    library: dict[tuple[str, str], Blueprint] = {}
    for blueprint in blueprints:
        twin = library.setdefault((blueprint.tags["operator"], blueprint.tags["layer"]), blueprint)
        if twin is not blueprint:
            raise ValueError(f"{twin.name} and {blueprint.name} are for the same operator and layer: choose one")
    return library


class InMemoryCheckpoints:
    """Keeps copies of the snapshots; with ``every_step`` it asks for one after each step."""

    def __init__(self, saved: Sequence[Snapshot] = (), *, every_step: bool = False) -> None:
        self.saved = list(saved)
        self._due = "interval" if every_step else ""

    def due(self) -> str:
        return self._due

    def save(self, snapshot: Snapshot, reason: str) -> bool:
        components = copied(dict(snapshot.components), keep=snapshot.frozen)
        self.saved.append(dataclasses.replace(snapshot, components=components))
        return True

    def settle(self) -> bool:
        return True

    def latest(self) -> Snapshot | None:
        return self.saved[-1] if self.saved else None

    def restored(self, restored: Restored) -> bool:
        """Raises RunFailed: the network is not the one that was saved."""
        if restored.fingerprint != restored.snapshot.fingerprint:
            raise RunFailed("the restored network does not compute what the saved one did")
        return True


class EventList:
    """Telemetry sink and decision log: every event in the order of its sequence, each sequence once."""

    def __init__(self) -> None:
        self.by_sequence: dict[int, Event] = {}
        self.readings: dict[str, list[float]] = {}
        """Name -> what was read, in order."""

    def _keep(self, record: Event) -> None:
        self.by_sequence.setdefault(record.sequence, record)

    epoch = decision = transition = outcome = _keep

    def reading(self, name: str, value: float) -> None:
        self.readings.setdefault(name, []).append(value)

    @property
    def events(self) -> list[Event]:
        return [self.by_sequence[sequence] for sequence in sorted(self.by_sequence)]

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class NeverInterrupt:
    """A control that lets the run go on."""

    def poll(self) -> Command:
        return Command.CONTINUE
