"""Data: the same splits for every run, and an order that is a function of seed and epoch alone."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.morphogenesis.catalogue import TASKS
from apps.morphogenesis.datasets import epoch_order, load


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_the_data_are_what_the_catalogue_says(task) -> None:  # type: ignore[no-untyped-def]
    data = load(task.name)
    for split in (data.train, data.validation, data.test):
        assert split.inputs.shape[1:] == task.input_shape
        assert split.inputs.dtype == torch.float32
        assert set(split.targets.tolist()) == set(range(task.classes))


@pytest.mark.parametrize("task", TASKS)
def test_no_sample_is_in_two_splits(task: str) -> None:
    data = load(task)
    rows = [row.numpy().tobytes() for split in (data.train, data.validation, data.test) for row in split.inputs]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("task", TASKS)
def test_the_training_split_is_standardised(task: str) -> None:
    inputs = load(task).train.inputs
    assert inputs.mean().abs() < 1e-3
    assert inputs.std() == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("task", TASKS)
def test_loading_twice_gives_the_same_bytes(task: str) -> None:
    digests = {hashlib.sha256(load(task).test.inputs.numpy().tobytes()).hexdigest() for _ in range(2)}
    assert len(digests) == 1


@given(st.integers(0, 2**31 - 1), st.integers(0, 10_000), st.integers(1, 300))
def test_an_epochs_order_visits_each_sample_once_and_is_repeatable(seed: int, epoch: int, samples: int) -> None:
    order = epoch_order(seed, epoch, samples)
    assert sorted(order) == list(range(samples))
    assert np.array_equal(order, epoch_order(seed, epoch, samples))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
