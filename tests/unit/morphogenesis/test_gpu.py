"""The engine on a CUDA device: the same rules, the same digests twice, the same after a pause."""

import pytest
import torch

from apps.morphogenesis.library import EventList, InMemoryCheckpoints, NeverInterrupt
from apps.morphogenesis.protocols import Command, Control
from apps.morphogenesis.trainer import Outcome, RunState, Trainer
from apps.morphogenesis.trees import tensors_of
from tests.unit.morphogenesis.runs import RUNS, run_of
from tests.unit.morphogenesis.test_resume import CommandAt

pytestmark = pytest.mark.gpu


def run_on_gpu(name: str, checkpoints: InMemoryCheckpoints, control: Control | None = None) -> Outcome:
    run, events = run_of(name), EventList()
    return Trainer(
        settings=run.settings,
        kernels=run.library,
        checkpoints=checkpoints,
        telemetry=events,
        decisions=events,
        control=control or NeverInterrupt(),
        data=run.data,
        device="cuda",
    ).run()


@pytest.mark.parametrize("name", RUNS)
def test_the_same_settings_give_the_same_bits_on_one_device(name: str) -> None:
    first, second = (run_on_gpu(name, InMemoryCheckpoints()).result for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", RUNS)
def test_a_pause_within_an_epoch_changes_nothing(name: str) -> None:
    whole = run_on_gpu(name, InMemoryCheckpoints())
    checkpoints = InMemoryCheckpoints()
    assert run_on_gpu(name, checkpoints, CommandAt(Command.PAUSE, 40)).state is RunState.PAUSED
    assert run_on_gpu(name, checkpoints).result == whole.result


def test_snapshots_in_memory_hold_cpu_tensors_alone() -> None:
    checkpoints = InMemoryCheckpoints()
    run_on_gpu("widen mlp", checkpoints)
    latest = checkpoints.latest()
    assert latest is not None
    assert {tensor.device for tensor in tensors_of(latest.components)} == {torch.device("cpu")}
