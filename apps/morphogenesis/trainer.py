"""The training loop (Tolaria): trains a host, lets growth work on it, and leaves snapshots to go on from.

    outcome = Trainer(settings=..., kernels=..., checkpoints=..., telemetry=..., decisions=..., control=...).run()

A run is a function of (settings, library snapshot): no clock and no timing decides anything. Killed after any snapshot
and run again, it gives the same events, topology and weights as an uninterrupted one on the same machine.
"""

import math
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from apps.morphogenesis import randomness
from apps.morphogenesis.datasets import Dataset
from apps.morphogenesis.evidence import Judged
from apps.morphogenesis.governor import Alarm, Governor
from apps.morphogenesis.hosts import Host
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.meter import Meter
from apps.morphogenesis.monitors import Monitors
from apps.morphogenesis.protocols import (
    END,
    EPOCH,
    Action,
    CheckpointSink,
    Command,
    Control,
    DecisionLog,
    KernelSource,
    Restored,
    RunFailed,
    TelemetrySink,
)
from apps.morphogenesis.session import Position, Session
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.topology import digest

LEARNING_RATE_CUT = 0.5
LAST_ATTEMPTS = 3
"""At storing the state at the run's end, which is lost otherwise."""


class RunState(StrEnum):
    """How a call of ``Trainer.run`` ended."""

    COMPLETED = "COMPLETED"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    SEGMENT_END = "SEGMENT_END"


ENDS = {Command.PAUSE: RunState.PAUSED, Command.STOP: RunState.STOPPED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a completed run is worth. Accuracies in 0..1, losses in nats; ``topology`` builds a static control."""

    test_accuracy: float
    test_loss: float
    validation_accuracy: float
    validation_loss: float
    parameters_start: int
    parameters: int
    train_flops: int
    germinated: int
    fossilized: int
    culled: int
    decisions: int
    topology: dict[str, Any]
    topology_digest: str
    weights_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call of ``Trainer.run`` ended, where, and the result of a completed run."""

    state: RunState
    epoch: int
    step: int
    result: RunResult | None = None


class Trainer:
    """Runs one training run, from its last snapshot if it has one.

    ``host`` and ``data`` replace those that the settings name: any module made a host by ``place_slots``, and its data.
    ``governor`` replaces the default one.
    """

    def __init__(
        self,
        *,
        settings: RunSettings,
        kernels: KernelSource,
        checkpoints: CheckpointSink,
        telemetry: TelemetrySink,
        decisions: DecisionLog,
        control: Control,
        device: str = "cpu",
        host: Host | None = None,
        data: Dataset | None = None,
        governor: Governor | None = None,
    ) -> None:
        self._settings = settings
        self._kernels = kernels
        self._checkpoints = checkpoints
        self._telemetry = telemetry
        self._decisions = decisions
        self._control = control
        self._device = torch.device(device)
        self._given_host = host
        self._data = data
        self._governor = governor
        self._meter = Meter(telemetry, grows=settings.growth.enabled)
        self._session: Session | None = None
        self._saved: Position | None = None

    @property
    def host(self) -> Host:
        """The network as the last ``run`` left it. Raises RuntimeError before the first."""
        return self._last.learner.host

    @property
    def weights_digest(self) -> str:
        """Of the network as the last ``run`` left it (``Session.weights_digest``). Raises RuntimeError before that."""
        return self._last.weights_digest()

    @property
    def _last(self) -> Session:
        if self._session is None:
            raise RuntimeError("the trainer has not run yet")
        return self._session

    def run(self, until_epoch: int | None = None, *, until_step: int | None = None) -> Outcome:
        """Train until the run is complete, so many epochs or steps are done, or the control says otherwise.

        Raises:
            RunFailed: the loss diverges after every allowed rollback, or the snapshot is of another run.
            RunInterrupted: from the control or the checkpoint sink: this worker has lost the run.
        """
        with deterministic(self._settings.seed, self._device):
            session = self._session = self._open()
            self._meter.start()
            while session.epoch < self._settings.epochs:
                end = self._end(session, until_epoch, until_step)
                if end is not None and self._leave(session, end):
                    return self._outcome(end)
                done = session.epoch
                self._step(session)
                if session.step_in_epoch == session.learner.steps_per_epoch:
                    self._end_epoch(session)
                self._save_if_due(session, epoch_over=session.epoch > done)
            self._save_last(session)
            return self._outcome(RunState.COMPLETED, _result(session))

    def _open(self) -> Session:
        """The run as the newest snapshot that proves to be right has it, or from the start."""
        refused = False
        while True:
            randomness.seed(self._settings.seed)
            session = self._fresh()
            snapshot = self._checkpoints.latest()
            if snapshot is None:
                if refused and self._given_host is not None:
                    raise RunFailed("no snapshot is right, and they have changed the given network: give it anew")
                return session
            begun = time.perf_counter()
            differences = session.resume(snapshot)
            resumed = time.perf_counter()
            fingerprint = session.fingerprint()
            restored = Restored(
                snapshot=snapshot,
                fingerprint=fingerprint,
                differences=differences,
                restore_seconds=resumed - begun,
                validate_seconds=time.perf_counter() - resumed,
            )
            if self._checkpoints.restored(restored):
                self._saved = session.position
                return session
            refused = True

    def _fresh(self) -> Session:
        return Session(
            self._settings,
            kernels=self._kernels,
            decisions=self._decisions,
            telemetry=self._telemetry,
            device=self._device,
            host=self._given_host,
            data=self._data,
            governor=self._governor,
        )

    def _end(self, session: Session, until_epoch: int | None, until_step: int | None) -> RunState | None:
        """How the call is to end here, or None to train on."""
        epochs_done = until_epoch is not None and session.epoch >= until_epoch
        if epochs_done or (until_step is not None and session.step >= until_step):
            return RunState.SEGMENT_END
        return ENDS.get(self._control.poll())

    def _leave(self, session: Session, end: RunState) -> bool:
        """Save, and say whether the run may be left here. Nobody may go on from a state that was not stored."""
        self._save(session, END)
        return self._checkpoints.settle() or end is RunState.STOPPED

    def _save_last(self, session: Session) -> None:
        """Save what the run has come to. The sink knows whether it could be stored in the end."""
        for _attempt in range(LAST_ATTEMPTS):
            self._save(session, END)
            if self._checkpoints.settle():
                return
            self._saved = None

    def _save_if_due(self, session: Session, *, epoch_over: bool) -> None:
        if session.epoch == self._settings.epochs:
            return  # the run's end is saved as such
        reason = self._checkpoints.due()
        if epoch_over and session.epoch % self._settings.snapshot_epochs == 0:
            reason = reason or EPOCH
        if reason:
            self._save(session, reason)

    def _save(self, session: Session, reason: str) -> None:
        """Save unless this very state was saved, or restored, already."""
        if session.position != self._saved and self._checkpoints.save(session.snapshot(), reason):
            self._saved = session.position

    def _step(self, session: Session) -> None:
        watch = Monitors.due(session.step + 1)
        with self._meter.training:
            session.learner.train_step(session.order, session.step_in_epoch, session.monitors, watch=watch)
        self._meter.samples += session.learner.batch_size
        session.step_in_epoch += 1
        session.train_flops += session.learner.step_flops
        with self._meter.growing:
            session.growth.after_step()
        if watch:
            self._check(session)

    def _check(self, session: Session) -> None:
        session.tell_time()
        with self._meter.training:
            reading = session.monitors.read(session.step)
        self._meter.tell_check(reading)
        with self._meter.growing:
            alarm = session.governor.check_loss(reading.mean_loss)
            if alarm:
                self._roll_back(session, alarm)
                return
            session.growth.on_check(reading, session.monitors.history)

    def _end_epoch(self, session: Session) -> None:
        session.tell_time()
        train_loss = session.monitors.end_epoch()
        held = session.learner.judge(session.learner.data.validation)
        measured = _measurements(session, held, train_loss)
        with self._meter.growing:
            self._judge_epoch(session, held, measured)
        self._meter.tell_epoch(measured)

    def _judge_epoch(self, session: Session, held: Judged, measured: dict[str, Any]) -> None:
        alarm = _held_out_alarm(session, held, measured["train_loss"])
        if math.isfinite(held.loss) and math.isfinite(measured["train_loss"]):
            session.held_loss = held.loss
            session.metrics = _metrics(held, measured["train_loss"])
            session.journal.measure(measured)
        if alarm:
            self._roll_back(session, alarm)
            return
        session.growth.end_epoch(held)
        if session.epoch + 1 == self._settings.epochs:
            session.growth.end_run(held)
        session.governor.end_epoch()
        session.epoch, session.step_in_epoch = session.epoch + 1, 0
        if session.governor.quiet and not session.growth.seeds:
            session.keep_good()

    def _roll_back(self, session: Session, alarm: Alarm) -> None:
        session.rollbacks += 1
        if session.rollbacks > self._settings.max_rollbacks:
            raise RunFailed(f"training diverged: {alarm.reason}, after {self._settings.max_rollbacks} rollbacks")
        if not session.growth.roll_back(alarm, session.held_loss):
            # No seed can be to blame, and the same steps would go wrong again.
            session.learning_rate_scale *= LEARNING_RATE_CUT
            session.journal.decide(
                Action.ROLLBACK,
                rule=alarm.rule,
                reason=f"Turned back because {alarm.reason}. No graft is to blame: the learning rate is halved.",
                observed={**alarm.observed, "learning_rate_scale": session.learning_rate_scale},
            )
        session.turn_back()

    def _outcome(self, state: RunState, result: RunResult | None = None) -> Outcome:
        return Outcome(state=state, epoch=self._last.epoch, step=self._last.step, result=result)


@contextmanager
def deterministic(seed: int, device: torch.device) -> Iterator[None]:
    """Deterministic algorithms and a random state of the run's own; the caller's are put back afterwards."""
    if device.type == "cuda":
        # cuBLAS is deterministic only with a fixed workspace, and reads this when it starts (PyTorch's notes on it).
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    devices = [device] if device.type == "cuda" else []
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        randomness.seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            random.setstate(python)
            np.random.set_state(legacy)


def _held_out_alarm(session: Session, held: Judged, train_loss: float) -> Alarm | None:
    if not (held.finite and math.isfinite(train_loss)):
        return Alarm(rule="non_finite", reason="a loss is not a finite number", observed={})
    return session.governor.check_accuracy(held.accuracy, len(held.losses))


def _metrics(held: Judged, train_loss: float) -> dict[str, float]:
    return {"train_loss": train_loss, "validation_loss": held.loss, "validation_accuracy": held.accuracy}


def _measurements(session: Session, held: Judged, train_loss: float) -> dict[str, Any]:
    return {
        **_metrics(held, train_loss),
        "parameters": session.learner.parameters,
        "train_flops": session.train_flops,
        "learning_rate": session.learner.optimizer.learning_rate,
        "live_seeds": session.growth.live_states,
    }


def _result(session: Session) -> RunResult:
    learner = session.learner
    test, validation = learner.judge(learner.data.test), learner.judge(learner.data.validation)
    topology = learner.host.topology()
    counts = session.journal.counts
    return RunResult(
        test_accuracy=test.accuracy,
        test_loss=test.loss,
        validation_accuracy=validation.accuracy,
        validation_loss=validation.loss,
        parameters_start=session.parameters_start,
        parameters=learner.parameters,
        train_flops=session.train_flops,
        germinated=counts[SeedState.GERMINATED],
        fossilized=counts[SeedState.FOSSILIZED],
        culled=counts[SeedState.CULLED],
        decisions=counts["decisions"],
        topology=topology,
        topology_digest=digest(topology),
        weights_digest=session.weights_digest(),
    )
