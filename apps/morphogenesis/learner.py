"""The network under training: one step, held-out passes, and what must follow when growth changes its shape."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from apps.morphogenesis.datasets import Dataset, Split
from apps.morphogenesis.evidence import Judged
from apps.morphogenesis.flops import TRAINING_FACTOR, forward_flops
from apps.morphogenesis.hosts import Host
from apps.morphogenesis.monitors import Monitors, group_norm
from apps.morphogenesis.optimizer import NamedAdamW
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.widen import Cut

HELD_OUT_BATCH = 1024
CLIP_EPSILON = 1e-6


class Learner:
    """A host, its optimizer and its data on one device. Call ``changed`` after every change of the host's shape."""

    def __init__(self, host: Host, data: Dataset, settings: RunSettings, device: torch.device) -> None:
        self.device = device
        self.host = host.to(device)
        self.data = data.to(device)
        self.batch_size = min(settings.batch_size, len(data.train))
        self.steps_per_epoch = len(data.train) // self.batch_size
        self._clip = settings.gradient_clip
        self.optimizer = NamedAdamW(self.host, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
        self.changed()

    def changed(self, *, grown: Iterable[Cut] = (), cut: Iterable[Cut] = ()) -> None:
        """The host has other parameters, or its seed runs otherwise: carry the optimizer over, recount FLOPs."""
        self.optimizer.rebuild(grown=grown, cut=cut)
        self._live = [slot for slot in map(self.host.slot, self.host.slots) if slot.live]
        self._seed_parameters = [parameter for slot in self._live for parameter in slot.branches[-1].parameters()]
        apart = {id(parameter) for parameter in self._seed_parameters}
        self._host_parameters = [parameter for parameter in self.host.parameters() if id(parameter) not in apart]
        self.forward_flops = forward_flops(self.host)

    @property
    def parameters(self) -> int:
        """Trainable scalars, live seeds included."""
        return _scalars(self._host_parameters) + _scalars(self._seed_parameters)

    @property
    def step_flops(self) -> int:
        """Training FLOPs of one step."""
        return TRAINING_FACTOR * self.forward_flops * self.batch_size

    def train_step(self, order: NDArray[np.int64], step: int, monitors: Monitors, *, watch: bool) -> None:
        """Train on batch ``step`` of an epoch's order. Nothing here waits for the device."""
        indices = torch.from_numpy(order[step * self.batch_size : (step + 1) * self.batch_size]).to(self.device)
        train = self.data.train
        for slot in self._live:
            slot.watch = watch
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.host(train.inputs[indices]), train.targets[indices])
        loss.backward()
        host_norm = self._clip_group(self._host_parameters)
        seed_norm = self._clip_group(self._seed_parameters)
        self.optimizer.step()
        monitors.note(loss.detach())
        if watch:
            share = self._live[0].share if self._live else None
            monitors.note_norms(_rms(host_norm, self._host_parameters), _rms(seed_norm, self._seed_parameters), share)

    def judge(self, split: Split) -> Judged:
        """A pass without gradient, normalisation by its running statistics."""
        return self.judge_logits(self.logits(split), split)

    def judge_logits(self, logits: Tensor, split: Split) -> Judged:
        """Per-sample loss and correctness of logits [N, classes]."""
        losses = F.cross_entropy(logits, split.targets, reduction="none")
        return Judged(losses=losses.double().cpu().numpy(), correct=(logits.argmax(1) == split.targets).cpu().numpy())

    def logits(self, split: Split) -> Tensor:
        """[N, classes] of a held-out pass."""
        self.host.eval()
        with torch.no_grad():
            logits = torch.cat([self.host(inputs) for inputs in torch.split(split.inputs, HELD_OUT_BATCH)])
        self.host.train()
        return logits

    def state(self) -> dict[str, Any]:
        """The host's structure as JSON types, and every tensor that training changes: those in use, not copies."""
        return {
            "structure": self.host.structure(),
            "model": dict(self.host.state_dict()),
            "optimizer": self.optimizer.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave; no seed is live after it."""
        self.host.take_structure(state["structure"])
        # load_state_dict copies into the host's own storage: results may depend on a tensor's alignment in memory.
        self.host.load_state_dict(state["model"])
        self.optimizer.load(state["optimizer"])
        self.changed()

    def _clip_group(self, parameters: Sequence[nn.Parameter]) -> Tensor | None:
        """Scale the group's gradients to at most the clip norm; the norm before, as a tensor."""
        norm = group_norm(parameters)
        if norm is not None and self._clip:
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            torch._foreach_mul_(gradients, (self._clip / (norm + CLIP_EPSILON)).clamp(max=1.0))
        return norm


def _rms(norm: Tensor | None, parameters: Sequence[nn.Parameter]) -> Tensor | None:
    return None if norm is None else norm / _scalars(parameters) ** 0.5


def _scalars(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
