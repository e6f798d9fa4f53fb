"""Going on after a kill, a pause or a stop: the same events, topology and weights, bit for bit, from wherever."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.morphogenesis.library import InMemoryCheckpoints
from apps.morphogenesis.lifecycle import LIVE_STATES, SeedState
from apps.morphogenesis.protocols import Action, Command, DecisionRecord, RunFailed, RunInterrupted
from apps.morphogenesis.session import Session
from apps.morphogenesis.trainer import Outcome, RunState
from tests.unit.morphogenesis.runs import RUNS, finished, run_of
from tests.unit.morphogenesis.support import Run, is_same, quick_settings

EVERY_STATE = ("residual mlp", "widen mlp")
"""Two runs whose seeds are, between them, in each live state and under embargo at some snapshot."""


class CommandAt:
    """Gives a command at one poll, once."""

    def __init__(self, command: Command, poll: int) -> None:
        self._command = command
        self._left = poll

    def poll(self) -> Command:
        self._left -= 1
        return self._command if self._left == 0 else Command.CONTINUE


class KilledAt:
    """Raises at one poll, as a worker does that has lost its run."""

    def __init__(self, poll: int) -> None:
        self._left = poll

    def poll(self) -> Command:
        self._left -= 1
        if self._left == 0:
            raise RunInterrupted("killed")
        return Command.CONTINUE


def same(run: Run, outcome: Outcome, name: str) -> bool:
    """Did the run end and tell as the uninterrupted one?"""
    whole, expected = finished(name)
    return outcome.result == expected.result and run.events.events == whole.events.events


def snapshots(name: str) -> InMemoryCheckpoints:
    checkpoints = finished(name)[0].checkpoints
    assert isinstance(checkpoints, InMemoryCheckpoints)
    return checkpoints


@pytest.mark.parametrize("name", RUNS)
def test_from_any_snapshot_on_a_run_repeats_itself(name: str) -> None:
    whole, expected = finished(name)
    known = whole.events.by_sequence
    saved = snapshots(name).saved
    # Each snapshot of the quick runs; of the convolutional ones, which take longer, each third.
    for count in range(1, len(saved) + 1, 3 if "cnn" in name else 1):
        run = run_of(name)
        run.checkpoints = InMemoryCheckpoints(saved[:count])
        assert run().result == expected.result
        repeated = run.events.events
        assert repeated == [known[event.sequence] for event in repeated]
        assert not repeated or repeated[-1].sequence == len(known)


@pytest.mark.parametrize("name", EVERY_STATE)
@pytest.mark.parametrize("command", [Command.PAUSE, Command.STOP])
def test_a_pause_within_an_epoch_changes_nothing(name: str, command: Command) -> None:
    states = {Command.PAUSE: RunState.PAUSED, Command.STOP: RunState.STOPPED}
    for poll in range(2, 144, 13):
        run = run_of(name)
        paused = run(control=CommandAt(command, poll))
        assert (paused.state, paused.step, paused.result) == (states[command], poll - 1, None)
        assert same(run, run(), name)


@settings(max_examples=8, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "host": st.sampled_from(["mlp", "cnn"]),
            "width": st.integers(1, 6),
            "epochs": st.integers(1, 12),
            "seed": st.integers(0, 1000),
            "batch_size": st.sampled_from([7, 32, 4096]),
            "learning_rate": st.sampled_from([1e-4, 5e-3, 0.1, 10.0]),
            "snapshot_epochs": st.integers(1, 4),
            "growth": st.fixed_dictionaries(
                {
                    "max_seeds": st.integers(0, 6),
                    "embargo_epochs": st.integers(0, 2),
                    "rent": st.sampled_from([0.0, 1.0]),
                }
            ),
        }
    ),
    st.integers(2, 20),
)
def test_whatever_the_settings_pauses_change_nothing(values: dict[str, Any], poll: int) -> None:
    whole, paused = (Run(quick_settings(**copy.deepcopy(values))) for _ in range(2))
    expected = whole()
    while (outcome := paused(control=CommandAt(Command.PAUSE, poll))).state is RunState.PAUSED:
        pass
    assert outcome.result == expected.result
    assert paused.events.events == whole.events.events


def test_a_trigger_that_looks_back_over_a_pause_fires_as_without_it() -> None:
    plateau = {"growth": {"trigger_steps": 64, "window_start": 0.0, "forced_at": 0.9}, "learning_rate": 1e-6}
    whole = Run(quick_settings(**plateau))
    expected = whole()
    opened = next(d for d in whole.events.of(DecisionRecord) if d.action is Action.GERMINATE)
    assert (opened.rule, opened.step) == ("loss_plateau", 80)
    paused = Run(quick_settings(**plateau))
    paused(control=CommandAt(Command.PAUSE, 75))
    assert paused().result == expected.result
    assert paused.events.events == whole.events.events


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_session_would_save_the_snapshot_that_it_came_from(name: str) -> None:
    run = run_of(name)
    for count in range(1, len(snapshots(name).saved), 4):
        saved = InMemoryCheckpoints(snapshots(name).saved[:count]).latest()
        assert saved is not None
        session = Session(
            run.settings,
            kernels=run.library,
            decisions=run.events,
            telemetry=run.events,
            device=torch.device("cpu"),
            data=run.data,
        )
        session.resume(saved)
        again = session.snapshot()
        assert again.fingerprint == saved.fingerprint
        assert again.metrics == saved.metrics
        assert is_same(again.components, saved.components)


def test_many_pauses_in_one_run_change_nothing() -> None:
    run = run_of("residual mlp")
    while (outcome := run(control=CommandAt(Command.PAUSE, 8))).state is RunState.PAUSED:
        pass
    assert same(run, outcome, "residual mlp")


def test_a_kill_within_an_epoch_repeats_the_epoch() -> None:
    run = run_of("residual mlp")
    for poll in (10, 40, 3, 77):
        with pytest.raises(RunInterrupted):
            run(control=KilledAt(poll))
    assert same(run, run(), "residual mlp")


def test_segments_change_nothing() -> None:
    run = run_of("widen mlp")
    for until in (1, 5, 6, 20):
        outcome = run(until)
        assert (outcome.state, outcome.epoch) == (RunState.SEGMENT_END, until)
    assert same(run, run(), "widen mlp")


def test_the_end_of_a_segment_is_saved_whatever_the_interval() -> None:
    run = Run(quick_settings(snapshot_epochs=10))
    run(until_epoch=3)
    latest = run.checkpoints.latest()
    assert latest is not None
    assert (latest.epoch, latest.step) == (3, 18)


def test_a_completed_run_called_again_gives_its_result_again() -> None:
    run = run_of("widen mlp")
    first = run()
    events = len(run.events.events)
    assert run() == first
    assert len(run.events.events) == events


def test_the_kill_points_cover_every_live_state_and_the_embargo() -> None:
    seen: set[str] = set()
    for name in RUNS:
        for snapshot in snapshots(name).saved:
            growth = snapshot.components["kasmina"]
            seen |= {seed["state"] for seed in growth["seeds"]}
            seen |= {entry["seed"]["state"] for entry in growth["book"]["embargoed"].values()}
    # A GERMINATED seed enters TRAINING at the epoch's end, before the snapshot: only a pause meets it.
    assert seen >= {str(state) for state in LIVE_STATES - {SeedState.GERMINATED}} | {"EMBARGOED"}


def test_a_seed_that_has_only_germinated_survives_a_pause() -> None:
    run = run_of("residual mlp")
    run(control=CommandAt(Command.PAUSE, 18))
    snapshot = run.checkpoints.latest()
    assert snapshot is not None
    assert [seed["state"] for seed in snapshot.components["kasmina"]["seeds"]] == ["GERMINATED"]
    assert same(run, run(), "residual mlp")


def test_a_resumed_run_does_not_ask_for_kernels_that_it_has_already_grown() -> None:
    run = run_of("widen mlp")
    run(until_epoch=23)

    class Empty:
        def offers(self) -> list[Any]:
            return []

        def load(self, digest: str) -> bytes:
            raise AssertionError("a kernel was asked for")

    run.library = Empty()
    assert run().result == finished("widen mlp")[1].result


@pytest.mark.parametrize(
    ("change", "why"),
    [({"format": 99}, "format is 99"), ({"settings": {}}, "other settings")],
)
def test_a_snapshot_of_another_run_or_format_is_refused(change: dict[str, Any], why: str) -> None:
    run = run_of("widen mlp")
    run(until_epoch=1)
    good = run.checkpoints.latest()
    assert good is not None

    components = {**good.components, "tamiyo": {**good.components["tamiyo"], **change}}
    run.checkpoints = InMemoryCheckpoints([dataclasses.replace(good, components=components)])
    with pytest.raises(RunFailed, match=why):
        run()
