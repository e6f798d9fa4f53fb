"""Snapshots: what is in them, when they are taken, and that a run goes on from any of them as if nothing had been."""

import dataclasses
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from apps.checkpoints.store.trees import flatten, unflatten
from apps.morphogenesis.library import EventList, InMemoryCheckpoints
from apps.morphogenesis.protocols import (
    COMPONENTS,
    Command,
    EpochRecord,
    Restored,
    RunFailed,
    Snapshot,
)
from apps.morphogenesis.session import Session
from apps.morphogenesis.trainer import RunState
from apps.morphogenesis.trees import copied, tensors_of
from tests.unit.morphogenesis.runs import RUNS, finished, run_of
from tests.unit.morphogenesis.support import Run, is_same, quick_settings
from tests.unit.morphogenesis.test_resume import CommandAt

GROWS = "residual mlp"
"""Its seed is isolated, ramps, stabilises and is judged."""


@cache
def every_step_of(name: str) -> list[Snapshot]:
    """A snapshot after each step. Read them, do not change them."""
    run = run_of(name)
    checkpoints = run.checkpoints = InMemoryCheckpoints(every_step=True)
    outcome = run()
    assert outcome.result == finished(name)[1].result, "snapshots changed the run"
    return checkpoints.saved


def goes_on_as_ever(name: str, saved: Snapshot) -> bool:
    """Does a fresh trainer end from there with the same result, and repeat the same events?"""
    known = finished(name)[0].events.by_sequence
    run = run_of(name)
    run.checkpoints = InMemoryCheckpoints([saved])
    outcome = run()
    repeated = run.events.events
    return outcome.result == finished(name)[1].result and repeated == [known[event.sequence] for event in repeated]


def states(saved: list[Snapshot]) -> set[str]:
    return {seed["state"] for snapshot in saved for seed in snapshot.components["kasmina"]["seeds"]}


def session_of(run: Run) -> Session:
    return Session(
        run.settings,
        kernels=run.library,
        decisions=run.events,
        telemetry=run.events,
        device=torch.device("cpu"),
        data=run.data,
    )


@pytest.mark.campaign
@pytest.mark.parametrize("name", RUNS)
def test_from_every_step_on_a_run_repeats_itself(name: str) -> None:
    saved = every_step_of(name)
    assert len(saved) == saved[-1].step
    assert all(goes_on_as_ever(name, snapshot) for snapshot in saved)


def test_from_steps_inside_epochs_on_a_run_repeats_itself() -> None:
    saved = every_step_of(GROWS)
    sample = saved[15::13]
    assert {"GERMINATED", "TRAINING", "GRAFTING", "STABILIZING", "EVALUATING"} <= states(sample) | states(saved[16:18])
    assert any(snapshot.step % 6 for snapshot in sample)
    assert all(goes_on_as_ever(GROWS, snapshot) for snapshot in [*sample, saved[16]])


def test_a_snapshot_is_three_trees_that_the_store_can_keep() -> None:
    saved = every_step_of(GROWS)[60]
    assert tuple(saved.components) == COMPONENTS
    skeleton, leaves = flatten(saved.components, lambda value: "tensor" if isinstance(value, torch.Tensor) else None)
    assert is_same(unflatten(skeleton, leaves), saved.components)


def test_a_snapshot_refers_to_the_tensors_in_use_and_names_those_that_nobody_writes_to() -> None:
    session = session_of(run_of(GROWS))
    snapshot = session.snapshot()
    model, good = snapshot.components["tolaria"]["model"], snapshot.components["tamiyo"]["good"]
    in_use = {parameter.data_ptr() for parameter in session.learner.host.parameters()}
    assert in_use <= {tensor.data_ptr() for tensor in model.values()}
    assert {id(tensor) for tensor in tensors_of(good)} == snapshot.frozen
    assert not in_use & {tensor.data_ptr() for tensor in tensors_of(good)}


def test_taking_a_snapshot_changes_nothing() -> None:
    session = session_of(run_of(GROWS))
    before = InMemoryCheckpoints()
    before.save(session.snapshot(), "demand")
    assert is_same(session.snapshot().components, before.saved[0].components)


def test_a_run_leaves_the_random_state_of_its_caller_alone() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.Random(3).random(), np.random.RandomState(3).random_sample()
    run_of(GROWS)(until_epoch=1)
    assert (random.random(), np.random.random_sample()) == expected


def test_the_fingerprint_is_of_the_weights_as_they_are() -> None:
    session = session_of(run_of(GROWS))
    first = session.fingerprint()
    assert session.fingerprint() == first
    with torch.no_grad():
        next(session.learner.host.parameters())[0] += 1
    assert session.fingerprint() != first


def test_the_metrics_are_those_of_the_last_epoch() -> None:
    saved = every_step_of(GROWS)[20]
    record = next(record for record in finished(GROWS)[0].events.of(EpochRecord) if record.epoch == 3)
    assert saved.metrics == {
        "train_loss": record.train_loss,
        "validation_loss": record.validation_loss,
        "validation_accuracy": record.validation_accuracy,
    }


# One component alone


@pytest.mark.parametrize("name", COMPONENTS)
def test_one_component_is_restored_and_the_others_stay(name: str) -> None:
    saved = next(snapshot for snapshot in every_step_of("widen mlp") if snapshot.step == 14)
    session = session_of(run_of("widen mlp"))
    before = InMemoryCheckpoints()
    before.save(session.snapshot(), "demand")

    session.resume(saved, [name])

    after = session.snapshot().components
    for other in COMPONENTS:
        expected = saved if other == name else before.saved[0]
        assert is_same(after[other], expected.components[other])


def test_restoring_tells_which_shapes_the_network_had_not() -> None:
    saved = finished("widen mlp")[0].checkpoints.latest()
    assert saved is not None
    differences = session_of(run_of("widen mlp")).resume(saved)
    assert differences["layers.0.producer.weight"] == ((12, 64), (6, 64))


def test_a_seed_without_its_branch_is_refused_and_the_remedy_named() -> None:
    saved = next(snapshot for snapshot in every_step_of(GROWS) if snapshot.components["kasmina"]["seeds"])
    with pytest.raises(RunFailed, match="restore tolaria and kasmina together"):
        session_of(run_of(GROWS)).resume(saved, ["kasmina"])


def test_a_component_that_is_not_there_is_refused() -> None:
    saved = dataclasses.replace(every_step_of(GROWS)[0], components={})
    with pytest.raises(RunFailed, match="no component 'tolaria'"):
        session_of(run_of(GROWS)).resume(saved)


# When the trainer saves


class Sink(InMemoryCheckpoints):
    """Tells why it was given each snapshot; asks for one at some steps, and can be out of order."""

    def __init__(self, *, due: dict[int, str] | None = None, unsettled: int = 0, busy: bool = False) -> None:
        super().__init__()
        self.reasons: list[tuple[int, str]] = []
        self._at = due or {}
        self._asked = 0
        self._unsettled = unsettled
        self._busy = busy

    def due(self) -> str:
        self._asked += 1
        return self._at.get(self._asked, "")

    def save(self, snapshot: Snapshot, reason: str) -> bool:
        if reason == "epoch" and self._busy:
            return False
        self.reasons.append((snapshot.step, reason))
        return super().save(snapshot, reason)

    def settle(self) -> bool:
        self._unsettled -= 1
        return self._unsettled < 0


def plain(sink: InMemoryCheckpoints, **changes: Any) -> Run:
    return Run(quick_settings(growth={"enabled": False}, **changes), checkpoints=sink)


def test_it_saves_when_asked_every_so_many_epochs_and_at_the_end() -> None:
    sink = Sink(due={4: "demand", 6: "interval", 15: "interval"})
    plain(sink, epochs=5, snapshot_epochs=2)()
    assert sink.reasons == [(4, "demand"), (6, "interval"), (12, "epoch"), (15, "interval"), (24, "epoch"), (30, "end")]


def test_it_saves_no_state_twice() -> None:
    sink = Sink()
    run = plain(sink, snapshot_epochs=2)
    run(until_epoch=2)
    run(until_epoch=2)
    run(control=CommandAt(Command.PAUSE, 1))
    assert sink.reasons == [(12, "epoch")]


def test_what_the_sink_was_too_busy_to_take_is_saved_at_the_end() -> None:
    sink = Sink(busy=True)
    plain(sink, snapshot_epochs=1)(until_epoch=2)
    assert sink.reasons == [(12, "end")]


def test_it_stops_at_a_step_inside_an_epoch() -> None:
    sink = Sink()
    run = plain(sink)
    run.trainer = run.new_trainer()
    outcome = run.trainer.run(until_step=9)
    assert (outcome.state, outcome.step, sink.reasons[-1]) == (RunState.SEGMENT_END, 9, (9, "end"))


@pytest.mark.parametrize("command", [Command.PAUSE, Command.STOP])
def test_nobody_leaves_a_pause_that_is_not_stored_and_a_stop_does_not_wait(command: Command) -> None:
    class Always:
        def poll(self) -> Command:
            return command

    sink = Sink(unsettled=3)
    outcome = plain(sink)(control=Always())
    assert outcome.step == (3 if command is Command.PAUSE else 0)


def test_a_segment_goes_on_until_its_end_is_stored() -> None:
    sink = Sink(unsettled=2)
    assert plain(sink)(until_epoch=1).step == 8


def test_a_snapshot_that_the_sink_refuses_leaves_no_trace() -> None:
    class Doubtful(InMemoryCheckpoints):
        def restored(self, restored: Restored) -> bool:
            if restored.fingerprint == restored.snapshot.fingerprint:
                return True
            self.saved.pop()
            return False

    good, sound = every_step_of(GROWS)[40], every_step_of(GROWS)[70]
    bad = dataclasses.replace(sound, components=copied(sound.components))
    with torch.no_grad():
        next(iter(bad.components["tolaria"]["model"].values())).add_(1)
    for saved in ([bad], [good, bad]):
        run = run_of(GROWS)
        run.events = EventList()
        run.checkpoints = Doubtful(saved)
        assert run().result == finished(GROWS)[1].result
