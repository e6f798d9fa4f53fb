"""The data of the tasks that ship: fixed splits, independent of a run's seed; and the order of batches.

``train`` is learnt from, ``validation`` feeds the gates and the policy, ``test`` is only ever reported.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SPLIT_SEED = 20_240_001
"""The one seed of every split and of the generated points: the same data for every run."""

DIGITS_SIZES = (1000, 297)
SPIRALS_SIZES = (800, 400)
"""Samples for training and validation; the rest is the test split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """``inputs`` [N, ...] float32, ``targets`` [N] int64 class indices."""

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def head(self, count: int) -> "Split":
        """The first samples; the splits are shuffled."""
        return Split(inputs=self.inputs[:count], targets=self.targets[:count])

    def to(self, device: torch.device) -> "Split":
        """The split on another device."""
        return Split(inputs=self.inputs.to(device), targets=self.targets.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The three splits of a task."""

    train: Split
    validation: Split
    test: Split

    def to(self, device: torch.device) -> "Dataset":
        """The splits on another device."""
        return Dataset(train=self.train.to(device), validation=self.validation.to(device), test=self.test.to(device))


def load(task: str) -> Dataset:
    """The task's data. Raises KeyError for an unknown task."""
    return LOADERS[task]()


def epoch_order(seed: int, epoch: int, samples: int) -> NDArray[np.int64]:
    """The order in which one epoch visits the training samples: a function of (seed, epoch) alone."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch])))
    return generator.permutation(samples)


def make_dataset(
    inputs: NDArray[np.floating], targets: NDArray[np.integer], sizes: tuple[int, int], axes: tuple[int, ...]
) -> Dataset:
    """Shuffle, split into (train, validation, rest), standardise over ``axes`` by the training split's statistics."""
    order = np.random.Generator(np.random.Philox(SPLIT_SEED)).permutation(len(targets))
    train, validation, test = np.split(order, [sizes[0], sum(sizes)])
    mean = inputs[train].mean(axes, keepdims=True)
    scale = inputs[train].std(axes, keepdims=True)
    standard = ((inputs - mean) / np.where(scale > 0, scale, 1)).astype(np.float32)

    def split(indices: NDArray[np.int64]) -> Split:
        return Split(
            inputs=torch.from_numpy(standard[indices]), targets=torch.from_numpy(targets[indices].astype(np.int64))
        )

    return Dataset(train=split(train), validation=split(validation), test=split(test))


def _digits() -> Dataset:
    from sklearn.datasets import load_digits  # a second of import that other tasks need not pay

    bunch = load_digits()
    return make_dataset(bunch.images[:, None], bunch.target, DIGITS_SIZES, axes=(0, 1, 2, 3))


def _spirals() -> Dataset:
    points, arm = make_spirals(samples=2400, turns=2.0, noise=0.15)
    return make_dataset(points, arm, SPIRALS_SIZES, axes=(0,))


def make_spirals(*, samples: int, turns: float, noise: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two interleaved spirals: points [N, 2] within radius 1 and their arm, 0 or 1. ``noise`` is in arm gaps."""
    generator = np.random.Generator(np.random.Philox(SPLIT_SEED + 1))
    arm = np.arange(samples) % 2
    radius = np.sqrt(generator.uniform(0.02, 1.0, samples))
    angle = 2 * math.pi * turns * radius + math.pi * arm
    gap = 1 / (2 * turns)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points + generator.normal(0, noise * gap, points.shape), arm


LOADERS: Mapping[str, Callable[[], Dataset]] = {"digits": _digits, "spirals": _spirals}
