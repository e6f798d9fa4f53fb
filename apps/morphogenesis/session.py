"""Everything a run is at one step boundary: made anew, turned back, or written to and read from a snapshot.

Two layers. The core (weights, moments, random state, data position, monitors) is what the governor turns back to the
last good state. Around it stands what must never be forgotten: events and their sequence, seeds, slots, policy, ledger.

A snapshot has three components: ``tolaria`` (the core, learning rate, counters), ``tamiyo`` (policy, governor and the
last good core, journal) and ``kasmina`` (seeds, slots, ramps, ledgers). Each can be put into a session alone.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray

from apps.morphogenesis import randomness
from apps.morphogenesis.catalogue import HOSTS
from apps.morphogenesis.contracts import start_topology
from apps.morphogenesis.datasets import Dataset, epoch_order, load
from apps.morphogenesis.governor import Governor
from apps.morphogenesis.growth import Growth
from apps.morphogenesis.hosts import Host, build_host
from apps.morphogenesis.journal import Journal
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.monitors import Monitors
from apps.morphogenesis.policy import Policy
from apps.morphogenesis.protocols import (
    COMPONENTS,
    DecisionLog,
    KernelSource,
    RunFailed,
    Shape,
    Snapshot,
    TelemetrySink,
)
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.trees import copied, tensors_of

FORMAT = 2
FINGERPRINT_SAMPLES = 64

Position = tuple[int, int, int]


class Session:
    """A run in memory. ``epoch`` counts completed epochs, ``step_in_epoch`` the steps of the one under way."""

    def __init__(
        self,
        settings: RunSettings,
        *,
        kernels: KernelSource,
        decisions: DecisionLog,
        telemetry: TelemetrySink,
        device: torch.device,
        host: Host | None = None,
        data: Dataset | None = None,
        governor: Governor | None = None,
    ) -> None:
        growth = settings.growth
        self.settings = settings
        self.learner = Learner(host or _fresh_host(settings), data or load(settings.task), settings, device)
        self.monitors = Monitors(decay=growth.trigger_decay, horizon=growth.trigger_steps)
        self.governor = governor or Governor()
        self.journal = Journal(decisions, telemetry)
        self.policy = Policy(
            growth,
            planned_steps=settings.epochs * self.learner.steps_per_epoch,
            preference=HOSTS[settings.host].preference,
        )
        self.growth = Growth(
            settings=settings,
            learner=self.learner,
            journal=self.journal,
            policy=self.policy,
            governor=self.governor,
            kernels=kernels,
        )
        self.epoch = 0
        self.step_in_epoch = 0
        self.train_flops = 0
        self.rollbacks = 0
        self.learning_rate_scale = 1.0
        self.parameters_start = self.learner.parameters
        self.held_loss = self.learner.judge(self.learner.data.validation).loss
        self.metrics: dict[str, float] = {}
        """What was measured at the end of the last epoch."""
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self.keep_good()

    @property
    def step(self) -> int:
        """Training steps done on the way to here (a rollback turns them back)."""
        return self.epoch * self.learner.steps_per_epoch + self.step_in_epoch

    @property
    def position(self) -> Position:
        """No two moments of a run have the same."""
        return self.epoch, self.step_in_epoch, self.rollbacks

    @property
    def order(self) -> NDArray[np.int64]:
        """The data order of the epoch under way."""
        if self._order is None or self._order[0] != self.epoch:
            self._order = (self.epoch, epoch_order(self.settings.seed, self.epoch, len(self.learner.data.train)))
        return self._order[1]

    def tell_time(self) -> None:
        """Let the journal know where the run stands."""
        self.journal.epoch, self.journal.step = self.epoch + 1, self.step

    def keep_good(self) -> None:
        """Remember this state as the one to turn back to. Only while no seed is live."""
        self._good: dict[str, Any] = copied(self._core())

    def turn_back(self) -> None:
        """Restore the last good state; the learning rate follows ``learning_rate_scale``."""
        self._load_core(self._good)
        self.governor.restart()

    def snapshot(self) -> Snapshot:
        """All that ``resume`` needs. Its tensors are those in use: nothing is copied here."""
        head = {"format": FORMAT, "settings": self.settings.to_dict()}
        tolaria = {
            **head,
            **self._core(),
            "scheduler": {"learning_rate": self.learner.optimizer.learning_rate, "scale": self.learning_rate_scale},
            "train_flops": self.train_flops,
            "parameters_start": self.parameters_start,
            "held_loss": self.held_loss,
            "metrics": dict(self.metrics),
        }
        tamiyo = {
            **head,
            "policy": self.policy.state(),
            "governor": self.governor.state(),
            "rollbacks": self.rollbacks,
            "journal": self.journal.state(),
            "good": self._good,
        }
        return Snapshot(
            epoch=self.epoch,
            step=self.step,
            components={"tolaria": tolaria, "tamiyo": tamiyo, "kasmina": {**head, **self.growth.state()}},
            metrics=dict(self.metrics),
            fingerprint=self.fingerprint(),
            frozen=frozenset(map(id, tensors_of(self._good))),
        )

    def resume(
        self, snapshot: Snapshot, components: Collection[str] | None = None
    ) -> dict[str, tuple[Shape | None, Shape | None]]:
        """Go on where ``snapshot`` was taken, bit for bit; with ``components``, put only these into this session.

        Returns the tensors of the model that had another shape here: name -> (shape there, shape here), None where
        there is no such tensor.

        Raises:
            RunFailed: the snapshot is of another run or another format, or its parts do not fit what is here.
        """
        chosen = COMPONENTS if components is None else tuple(components)
        states = {name: self._checked(snapshot, name) for name in chosen}
        differences: dict[str, tuple[Shape | None, Shape | None]] = {}
        if "tolaria" in states:
            differences = self._differences(states["tolaria"]["model"])
            self._load_tolaria(states["tolaria"])
        if "tamiyo" in states:
            self._load_tamiyo(states["tamiyo"])
        if "kasmina" in states:
            self.growth.load(states["kasmina"])
        elif "tolaria" in states:
            self.growth.attach()
        return differences

    def fingerprint(self) -> str:
        """blake3, in hex, of the logits of a pass over the first validation samples. Changes nothing."""
        with randomness.kept(self.learner.device):
            logits = self.learner.logits(self.learner.data.validation.head(FINGERPRINT_SAMPLES))
        return blake3(logits.cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()

    def weights_digest(self) -> str:
        """sha256, in hex, over the host's parameters and buffers: sorted names, types, shapes, raw bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.learner.host.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _core(self) -> dict[str, Any]:
        return {
            **self.learner.state(),
            "random": randomness.state(self.learner.device),
            "position": {"epoch": self.epoch, "step_in_epoch": self.step_in_epoch},
            "monitors": self.monitors.state(),
        }

    def _load_core(self, core: Mapping[str, Any]) -> None:
        self.learner.optimizer.learning_rate = self.settings.learning_rate * self.learning_rate_scale
        self.learner.load(core)
        randomness.load(core["random"], self.learner.device)
        self.monitors.load(core["monitors"])
        self.epoch, self.step_in_epoch = core["position"]["epoch"], core["position"]["step_in_epoch"]
        self.tell_time()

    def _load_tolaria(self, state: Mapping[str, Any]) -> None:
        self.learning_rate_scale = state["scheduler"]["scale"]
        self._load_core(state)
        self.train_flops = state["train_flops"]
        self.parameters_start = state["parameters_start"]
        self.held_loss = state["held_loss"]
        self.metrics = dict(state["metrics"])

    def _load_tamiyo(self, state: Mapping[str, Any]) -> None:
        self.policy.load(state["policy"])
        self.governor.load(state["governor"])
        self.rollbacks = state["rollbacks"]
        self.journal.load(state["journal"])
        self._good = state["good"]

    def _checked(self, snapshot: Snapshot, name: str) -> Mapping[str, Any]:
        state: Mapping[str, Any] | None = snapshot.components.get(name)
        if state is None:
            known = ", ".join(snapshot.components)
            raise RunFailed(f"the snapshot has no component {name!r}; it has: {known}")
        if state.get("format") != FORMAT:
            raise RunFailed(f"the snapshot's format is {state.get('format')!r}, this engine reads {FORMAT}")
        if state["settings"] != self.settings.to_dict():
            raise RunFailed("the snapshot belongs to a run with other settings")
        return state

    def _differences(self, model: Mapping[str, Any]) -> dict[str, tuple[Shape | None, Shape | None]]:
        there = {name: tuple(tensor.shape) for name, tensor in model.items()}
        here = {name: tuple(tensor.shape) for name, tensor in self.learner.host.state_dict().items()}
        names = sorted({*there, *here})
        return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}


def _fresh_host(settings: RunSettings) -> Host:
    return build_host(start_topology(settings), torch.Generator().manual_seed(settings.seed))
