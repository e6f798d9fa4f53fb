"""Monitors: they read what was trained, survive a snapshot, and never wait for the device inside a step."""

import json
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from apps.morphogenesis.contracts import start_topology
from apps.morphogenesis.datasets import epoch_order
from apps.morphogenesis.flops import forward_flops
from apps.morphogenesis.hosts import build_host
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.monitors import CHECK_STEPS, Monitors, group_norm, sample_rms
from apps.morphogenesis.settings import RunSettings
from tests.unit.morphogenesis.support import quick_settings, tiny_digits


class NoTransfers(TorchDispatchMode):
    """Fails on any operation that moves a value to the host."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a training step waited for a value")
        return func(*args, **(kwargs or {}))


def learner() -> Learner:
    settings = quick_settings()
    host = build_host(start_topology(settings), torch.Generator().manual_seed(0))
    return Learner(host, tiny_digits(), settings, torch.device("cpu"))


def test_a_step_never_waits_for_a_value() -> None:
    trained, monitors = learner(), Monitors(decay=0.9, horizon=32)
    order = epoch_order(0, 0, 192)
    with NoTransfers():
        for step in range(4):
            trained.train_step(order, step, monitors, watch=True)


def test_the_guard_against_waiting_can_fail() -> None:
    with NoTransfers(), pytest.raises(AssertionError, match="waited for a value"):
        torch.ones(()).item()


def test_a_reading_gives_the_losses_since_the_last_one() -> None:
    monitors = Monitors(decay=0.5, horizon=32)
    for loss in (4.0, 2.0):
        monitors.note(torch.tensor(loss))
    monitors.note_norms(torch.tensor(0.25), None, None)
    first = monitors.read(16)
    monitors.note(torch.tensor(1.0))
    second = monitors.read(32)
    assert (first.losses, first.mean_loss, first.average, first.host_gradient) == ((4.0, 2.0), 3.0, 3.0, 0.25)
    assert first.seed_gradient is None
    assert (second.losses, second.average) == ((1.0,), 2.0)
    assert math.isnan(second.host_gradient)
    assert monitors.history == [(16, 3.0), (32, 2.0)]


def test_a_loss_that_is_not_finite_shows_in_the_mean_and_not_in_the_average() -> None:
    monitors = Monitors(decay=0.5, horizon=32)
    for loss in (2.0, math.nan):
        monitors.note(torch.tensor(loss))
    reading = monitors.read(16)
    assert math.isnan(reading.mean_loss)
    assert reading.average == 2.0


def test_the_epochs_mean_covers_every_step_of_it() -> None:
    monitors = Monitors(decay=0.5, horizon=32)
    for step in range(20):
        monitors.note(torch.tensor(float(step)))
        if step == CHECK_STEPS:
            monitors.read(step)
    assert monitors.end_epoch() == 9.5


def test_the_history_reaches_back_over_the_horizon_and_no_further() -> None:
    monitors = Monitors(decay=0.9, horizon=150)
    for check in range(1, 100):
        monitors.note(torch.tensor(1.0))
        monitors.read(check * CHECK_STEPS)
    last = monitors.history[-1][0]
    assert any(step <= last - 150 for step, _ in monitors.history)
    assert len(monitors.history) < 15


def test_monitors_survive_a_snapshot_between_two_checks() -> None:
    monitors, copy = (Monitors(decay=0.9, horizon=32) for _ in range(2))
    for loss in (0.1, 0.7, 1 / 3):
        monitors.note(torch.tensor(loss))
    copy.load(json.loads(json.dumps(monitors.state())))
    assert copy.read(16).losses == monitors.read(16).losses
    assert copy.end_epoch() == monitors.end_epoch()


def test_the_group_norm_is_that_of_all_gradients_together() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 4, 2)]
    parameters[0].grad, parameters[1].grad = torch.full((3,), 2.0), torch.full((4,), 1.0)
    norm = group_norm(parameters)
    assert norm is not None
    assert float(norm) == pytest.approx(4.0)
    assert group_norm(parameters[2:]) is None


def test_the_sample_rms_reads_at_most_its_sample() -> None:
    activation = torch.cat([torch.full((4096,), 3.0), torch.full((10_000,), 1e9)])
    assert float(sample_rms(activation)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("task", "host", "flops"),
    [
        ("digits", "mlp", 2 * (64 * 8 + 8 * 8 + 8 * 10)),
        ("spirals", "mlp", 2 * (2 * 8 + 8 * 8 + 8 * 2)),
        ("digits", "cnn", 2 * (64 * 9 * (8 + 8 * 8 + 8 * 8) + 8 * 10)),
    ],
)
def test_flops_are_two_per_multiply_add(task: str, host: str, flops: int) -> None:
    settings = RunSettings.from_mapping({"task": task, "host": host, "width": 8})
    assert forward_flops(build_host(start_topology(settings), torch.Generator().manual_seed(0))) == flops
