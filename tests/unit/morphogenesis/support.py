"""What the engine's tests share: a tiny task, kernels in memory, and runs on them that take a fraction of a second."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch

from apps.blueprints.starter import core_library
from apps.morphogenesis.contracts import wanted_bindings
from apps.morphogenesis.datasets import Dataset, load
from apps.morphogenesis.governor import Governor
from apps.morphogenesis.library import EventList, InMemoryCheckpoints, InMemoryKernels, NeverInterrupt
from apps.morphogenesis.protocols import CheckpointSink, Control, KernelSource, TransitionRecord
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.trainer import Outcome, Trainer

torch.set_num_threads(1)

QUICK: Mapping[str, Any] = {
    "seed": 7,
    "width": 6,
    "epochs": 24,
    "learning_rate": 5e-3,
    "snapshot_epochs": 1,
    "growth": {
        "window_start": 0.02,
        "forced_at": 0.05,
        "deadline": 0.9,
        "stabilize_steps": 6,
        "max_seeds": 2,
        "embargo_epochs": 2,
    },
}
"""A run of 24 epochs of 6 steps on the tiny digits, which grows at its first check."""


@cache
def tiny_digits() -> Dataset:
    """192 training images (6 steps of 32), 100 for validation, 100 for the test."""
    digits = load("digits")
    return Dataset(train=digits.train.head(192), validation=digits.validation.head(100), test=digits.test.head(100))


def quick_settings(**changes: Any) -> RunSettings:
    """``QUICK`` with changes; ``growth`` is merged."""
    growth = {**QUICK["growth"], **changes.pop("growth", {})}
    return RunSettings.from_mapping({**QUICK, **changes, "growth": growth})


def kernels(settings: RunSettings, operators: Iterable[str] = ("widen", "residual")) -> InMemoryKernels:
    """Starter kernels of these operators for every contract of the run."""
    bindings = [binding for binding in wanted_bindings(settings) if binding.operator in operators]
    return InMemoryKernels(core_library().values(), bindings)


def is_same(left: Any, right: Any) -> bool:
    """Are the trees equal, tensors bit for bit?"""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left.cpu(), right.cpu())
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(is_same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(is_same, left, right))
    return type(left) is type(right) and bool(left == right)


class Run:
    """A run that can be called again and again: each call is a new process for the engine."""

    def __init__(
        self,
        settings: RunSettings,
        *,
        library: KernelSource | None = None,
        checkpoints: CheckpointSink | None = None,
        data: Dataset | None = None,
    ) -> None:
        self.settings = settings
        self.library = library or kernels(settings)
        self.checkpoints = checkpoints or InMemoryCheckpoints()
        self.events = EventList()
        self.data = data or tiny_digits()
        self.trainer: Trainer

    def __call__(
        self,
        until_epoch: int | None = None,
        *,
        control: Control | None = None,
        governor: Governor | None = None,
    ) -> Outcome:
        self.trainer = self.new_trainer(control=control, governor=governor)
        return self.trainer.run(until_epoch)

    def new_trainer(self, *, control: Control | None = None, governor: Governor | None = None) -> Trainer:
        return Trainer(
            settings=self.settings,
            kernels=self.library,
            checkpoints=self.checkpoints,
            telemetry=self.events,
            decisions=self.events,
            control=control or NeverInterrupt(),
            data=self.data,
            governor=governor,
        )

    def states(self, seed: int = 1) -> list[str]:
        """The states that a seed went through, after DORMANT."""
        return [str(move.target) for move in self.events.of(TransitionRecord) if move.seed == seed]
