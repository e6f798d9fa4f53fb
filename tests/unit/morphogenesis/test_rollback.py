"""Turning back: the governor restores host, moments, random state and data position, and locks what is to blame."""

from typing import Any

import pytest
import torch

from apps.morphogenesis.governor import Alarm, Governor
from apps.morphogenesis.library import InMemoryCheckpoints
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action, DecisionRecord, EpochRecord, GraftOutcome, RunFailed, TransitionRecord
from apps.morphogenesis.trainer import RunState
from tests.unit.morphogenesis.support import Run, kernels, quick_settings


class FiresAt(Governor):
    """A governor that fires at these checks of the loss, counted over the whole run (and over snapshots)."""

    def __init__(self, *checks: int) -> None:
        super().__init__()
        self._checks = checks
        self._seen = 0

    def check_loss(self, loss: float) -> Alarm | None:
        self._seen += 1
        if self._seen in self._checks:
            return Alarm(rule="loss_rise", reason="a test says so", observed={"loss": loss})
        return None

    def state(self) -> dict[str, Any]:
        return {**super().state(), "seen": self._seen}

    def load(self, state: Any) -> None:
        super().load(state)
        self._seen = state["seen"]


def residual_run(**changes: Any) -> Run:
    settings = quick_settings(**changes)
    return Run(settings, library=kernels(settings, ["residual"]))


@pytest.mark.parametrize(("check", "state"), [(2, "TRAINING"), (3, "GRAFTING"), (4, "STABILIZING"), (5, "EVALUATING")])
def test_a_live_seed_is_rolled_back_and_its_slot_locked(check: int, state: str) -> None:
    run = residual_run()
    run(governor=FiresAt(check))
    moves = [move for move in run.events.of(TransitionRecord) if move.seed == 1]
    assert (moves[-1].source, moves[-1].target) == (SeedState(state), SeedState.ROLLED_BACK)
    later = [d.site for d in run.events.of(DecisionRecord) if d.action is Action.GERMINATE][1:]
    assert moves[-1].site not in later
    locked = run.checkpoints.saved[-1].components["kasmina"]["book"]["locked"]  # type: ignore[attr-defined]
    assert list(locked) == [moves[-1].site]
    assert run.events.of(GraftOutcome)[0].verdict is SeedState.ROLLED_BACK


def test_after_a_rollback_the_host_trains_on_as_if_the_seed_had_never_been() -> None:
    run = residual_run(growth={"max_seeds": 1})
    rolled = run(governor=FiresAt(4)).result
    plain = Run(quick_settings(growth={"enabled": False}))(governor=FiresAt()).result
    assert rolled is not None
    assert plain is not None
    assert rolled.weights_digest == plain.weights_digest
    assert rolled.train_flops > plain.train_flops


def test_a_rolled_back_widening_leaves_the_width_that_was() -> None:
    settings = quick_settings(growth={"max_seeds": 1})
    run = Run(settings, library=kernels(settings, ["widen"]))
    result = run(governor=FiresAt(2)).result
    assert run.states(1) == ["GERMINATED", "STABILIZING", "ROLLED_BACK"]
    assert result is not None
    assert result.topology["widths"] == [6, 6]


def test_a_rollback_turns_epochs_back_but_never_the_sequence() -> None:
    run = residual_run()
    run(governor=FiresAt(5))
    epochs = [record.epoch for record in run.events.of(EpochRecord)]
    assert epochs != sorted(epochs)
    assert set(epochs) == set(range(1, 25))
    sequences = [event.sequence for event in run.events.events]
    assert sequences == list(range(1, len(sequences) + 1))


def test_with_no_graft_to_blame_the_learning_rate_is_halved() -> None:
    run = Run(quick_settings(growth={"enabled": False}))
    run(governor=FiresAt(4))
    decision = next(d for d in run.events.of(DecisionRecord) if d.action is Action.ROLLBACK)
    assert "the learning rate is halved" in decision.reason
    assert run.events.of(EpochRecord)[-1].learning_rate == run.settings.learning_rate / 2


def test_fossils_survive_a_rollback() -> None:
    settings = quick_settings(growth={"max_seeds": 1})
    run = Run(settings, library=kernels(settings, ["widen"]))
    result = run(governor=FiresAt(7)).result
    assert run.states(1)[-1] == "FOSSILIZED"
    assert result is not None
    assert result.topology["widths"] == [12, 6]


def test_a_rollback_is_repeated_bit_for_bit_from_any_snapshot() -> None:
    whole = residual_run()
    expected = whole(governor=FiresAt(5))
    checkpoints = whole.checkpoints
    assert isinstance(checkpoints, InMemoryCheckpoints)
    for count in range(1, len(checkpoints.saved), 2):
        run = residual_run()
        run.checkpoints = InMemoryCheckpoints(checkpoints.saved[:count])
        assert run(governor=FiresAt(5)).result == expected.result
        assert all(whole.events.by_sequence[event.sequence] == event for event in run.events.events)


def test_training_that_always_diverges_fails_and_says_why() -> None:
    run = Run(quick_settings(growth={"enabled": False}, max_rollbacks=2))
    with pytest.raises(RunFailed, match="training diverged: a test says so, after 2 rollbacks"):
        run(governor=FiresAt(*range(1, 100)))


class PoisonAt:
    """A control that spoils a weight of the host at one poll, as a bad memory cell would."""

    def __init__(self, run: Run, poll: int) -> None:
        self._run = run
        self._left = poll

    def poll(self) -> Any:
        from apps.morphogenesis.protocols import Command

        self._left -= 1
        if self._left == 0:
            with torch.no_grad():
                next(self._run.trainer.host.parameters()).fill_(float("nan"))
        return Command.CONTINUE


@pytest.mark.parametrize("poll", [20, 36, 97])
def test_a_host_that_turns_into_nan_recovers_from_the_last_good_state(poll: int) -> None:
    run = Run(quick_settings(growth={"enabled": False}))
    outcome = run(control=PoisonAt(run, poll))
    decision = next(d for d in run.events.of(DecisionRecord) if d.action is Action.ROLLBACK)
    assert decision.rule == "non_finite"
    assert outcome.state is RunState.COMPLETED
    assert outcome.result is not None
    assert outcome.result.validation_loss < 2.0 < run.events.of(EpochRecord)[0].validation_loss
