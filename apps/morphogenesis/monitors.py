"""What training watches of itself, without slowing it: nothing here waits for the device inside a step.

Each step leaves its loss as a tensor; every ``CHECK_STEPS`` steps the gradient norms too. Then one read moves them over
together and updates the training-loss average that the policy's trigger looks at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHECK_STEPS = 16
SAMPLE = 4096

Norms = tuple[Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One check: the losses since the last one, and gradient norms (root mean square per parameter) at its end.

    ``seed_gradient`` is None while no seed trains apart from the host. ``seed_share`` is the root mean square of its
    output as a share of the activation's.
    """

    step: int
    losses: tuple[float, ...]
    average: float
    host_gradient: float
    seed_gradient: float | None
    seed_share: float | None = None

    @property
    def mean_loss(self) -> float:
        return math.fsum(self.losses) / len(self.losses) if all(map(math.isfinite, self.losses)) else math.nan


class Monitors:
    """Training loss and gradients of a run."""

    def __init__(self, *, decay: float, horizon: int) -> None:
        self._decay = decay
        self._kept = horizon // CHECK_STEPS + 2
        self._window: list[Tensor | float] = []
        self._epoch: list[Tensor | float] = []
        self._norms: Norms = (None, None, None)
        self.average: float | None = None
        self.history: list[tuple[int, float]] = []
        """(step, average) at the last checks: enough to look ``horizon`` steps back."""

    @staticmethod
    def due(step: int) -> bool:
        """Does a check follow the training step that makes ``step`` steps?"""
        return step % CHECK_STEPS == 0

    def note(self, loss: Tensor) -> None:
        """Keep one step's loss (0-dimensional, detached)."""
        self._window.append(loss)
        self._epoch.append(loss)

    def note_norms(self, host: Tensor | None, seed: Tensor | None, seed_share: Tensor | None) -> None:
        """Keep what the step before a check measured: gradients of host and seed, the seed's share."""
        self._norms = (host, seed, seed_share)

    def read(self, step: int) -> Reading:
        """The check: one transfer for all that was kept."""
        losses = _floats(self._window)
        self._window = []
        for loss in losses:
            if math.isfinite(loss):
                self.average = loss if self.average is None else self._decay * self.average + (1 - self._decay) * loss
        average = math.nan if self.average is None else self.average
        self.history = [*self.history, (step, average)][-self._kept :]
        host, seed, share = self._norms
        self._norms = (None, None, None)
        return Reading(
            step=step,
            losses=tuple(losses),
            average=average,
            host_gradient=math.nan if host is None else float(host),
            seed_gradient=None if seed is None else float(seed),
            seed_share=None if share is None else float(share),
        )

    def end_epoch(self) -> float:
        """Mean training loss of the epoch; not a number when a step's loss was not finite."""
        losses = _floats(self._epoch)
        self._epoch = []
        return math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan

    def state(self) -> dict[str, Any]:
        """JSON types only (norms are never pending between steps)."""
        return {
            "window": _floats(self._window),
            "epoch": _floats(self._epoch),
            "average": self.average,
            "history": [list(entry) for entry in self.history],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave."""
        self._window = list(state["window"])
        self._epoch = list(state["epoch"])
        self.average = state["average"]
        self.history = [(step, average) for step, average in state["history"]]


def group_norm(parameters: Sequence[Tensor]) -> Tensor | None:
    """The 2-norm of the parameters' gradients together, as a tensor; None when none has a gradient."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return None
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def sample_rms(activation: Tensor) -> Tensor:
    """Root mean square of at most ``SAMPLE`` elements, as a tensor (``var_mean`` is 38x slower on a CPU)."""
    sample = activation.detach().flatten()[:SAMPLE]
    return (torch.dot(sample, sample) / sample.numel()).sqrt()


def _floats(losses: Sequence[Tensor | float]) -> list[float]:
    """The losses as numbers; those that a snapshot gave are numbers already, and come first."""
    known = [loss for loss in losses if not isinstance(loss, Tensor)]
    tensors = [loss for loss in losses if isinstance(loss, Tensor)]
    values: list[float] = torch.stack(tensors).tolist() if tensors else []
    return known + values
