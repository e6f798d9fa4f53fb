"""Everything a run is at one step boundary: made anew, turned back, or written to and read from a snapshot.

Two layers. The core (weights, moments, random state, data position, monitors) is what the governor turns back to the
last good state. Around it stands what must never be forgotten: events and their sequence, seeds, slots, policy, ledger.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from apps.morphogenesis.protocols import DecisionLog, KernelSource, RunFailed, Snapshot, TelemetrySink
from apps.morphogenesis.settings import RunSettings

FORMAT = 1
GOOD = "good/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """Copies of what the governor can turn back."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


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
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self.good = self._capture()

    @property
    def step(self) -> int:
        """Training steps done on the way to here (a rollback turns them back)."""
        return self.epoch * self.learner.steps_per_epoch + self.step_in_epoch

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
        self.good = self._capture()

    def turn_back(self) -> None:
        """Restore the last good state; the learning rate follows ``learning_rate_scale``."""
        self._restore(self.good)
        self.governor.restart()

    def snapshot(self) -> Snapshot:
        """All that ``resume`` needs."""
        current = self.good.state["position"] == self._position()
        core = self.good if current else self._capture()
        tensors = dict(core.tensors)
        if not current:
            tensors |= {GOOD + name: tensor for name, tensor in self.good.tensors.items()}
        state = {
            "format": FORMAT,
            "settings": self.settings.to_dict(),
            "core": core.state,
            "good": None if current else self.good.state,
            "journal": self.journal.state(),
            "growth": self.growth.state(),
            "policy": self.policy.state(),
            "governor": self.governor.state(),
            "train_flops": self.train_flops,
            "rollbacks": self.rollbacks,
            "learning_rate_scale": self.learning_rate_scale,
            "parameters_start": self.parameters_start,
            "held_loss": self.held_loss,
        }
        return Snapshot(epoch=self.epoch, step=self.step, tensors=tensors, state=state)

    def resume(self, snapshot: Snapshot) -> None:
        """Go on where ``snapshot`` was taken, bit for bit.

        Raises:
            RunFailed: the snapshot is of another run or another format.
        """
        state = snapshot.state
        if state.get("format") != FORMAT:
            raise RunFailed(f"the snapshot's format is {state.get('format')!r}, this engine reads {FORMAT}")
        if state["settings"] != self.settings.to_dict():
            raise RunFailed("the snapshot belongs to a run with other settings")
        core = {name: tensor for name, tensor in snapshot.tensors.items() if not name.startswith(GOOD)}
        good = {name.removeprefix(GOOD): tensor for name, tensor in snapshot.tensors.items() if name.startswith(GOOD)}
        here = Core(tensors=core, state=state["core"])
        self.good = here if state["good"] is None else Core(tensors=good, state=state["good"])
        self.learning_rate_scale = state["learning_rate_scale"]
        self._restore(here)
        self.journal.load(state["journal"])
        self.policy.load(state["policy"])
        self.governor.load(state["governor"])
        self.growth.load(state["growth"])
        self.train_flops = state["train_flops"]
        self.rollbacks = state["rollbacks"]
        self.parameters_start = state["parameters_start"]
        self.held_loss = state["held_loss"]

    def weights_digest(self) -> str:
        """sha256, in hex, over the host's parameters and buffers: sorted names, types, shapes, raw bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.learner.host.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _position(self) -> list[int]:
        return [self.epoch, self.step_in_epoch, self.rollbacks]

    def _capture(self) -> Core:
        tensors, state = self.learner.capture()
        tensors["random/cpu"] = torch.get_rng_state()
        if self.learner.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.learner.device)
        return Core(tensors=tensors, state={**state, "position": self._position(), "monitors": self.monitors.state()})

    def _restore(self, core: Core) -> None:
        self.learner.optimizer.learning_rate = self.settings.learning_rate * self.learning_rate_scale
        self.learner.restore(core.tensors, core.state)
        torch.set_rng_state(core.tensors["random/cpu"])
        if self.learner.device.type == "cuda":
            torch.cuda.set_rng_state(core.tensors["random/cuda"], self.learner.device)
        self.monitors.load(core.state["monitors"])
        self.epoch, self.step_in_epoch, _ = core.state["position"]
        self.tell_time()


def _fresh_host(settings: RunSettings) -> Host:
    return build_host(start_topology(settings), torch.Generator().manual_seed(settings.seed))
