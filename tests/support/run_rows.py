"""Rows of runs as the runner leaves them, for tests of what reads them: curves, seeds and decisions of a plausible run.

Only tests use this. Everything follows from the arguments: the same call makes the same curves.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.utils import timezone

from apps.accounts.models import User, default_workspace_id
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.ids import new_id
from apps.morphogenesis.lifecycle import Gate, SeedState, gate_between
from apps.morphogenesis.protocols import Action
from apps.morphogenesis.settings import RunSettings
from apps.observability.contracts import Reading
from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert, Anomaly, Series, SeriesSource, Severity
from apps.observability.store import writing
from apps.training.lifecycle import RunState
from apps.training.models import (
    Decision,
    EpochMetric,
    RunKind,
    RunLease,
    Seed,
    SeedSlot,
    SeedTransition,
    TrainingRun,
)

STEPS = 40
"""Optimizer steps of one epoch."""
SITES = ("layers.0.residual", "layers.1.residual", "layers.0.width", "layers.1.width")
S = SeedState


@dataclass(frozen=True)
class Story:
    """One seed: its states with the epochs at which it enters them, and what the ledger says in the end."""

    site: str
    operator: str
    kernel: str
    moves: Sequence[tuple[SeedState, float]]
    why: str
    parameters: int
    outcome: Mapping[str, Any] = field(default_factory=dict)
    refused: Sequence[Mapping[str, str]] = ()


STORIES = (
    Story(
        site="layers.0.width",
        operator="widen",
        kernel="widen_linear-v1-fan_in64-fan_out32-units32",
        moves=((S.GERMINATED, 8), (S.STABILIZING, 8.4), (S.EVALUATING, 9.5), (S.FOSSILIZED, 12)),
        why="the training loss improved 3.1 % in 150 steps, below 5 %: widen the narrowest layer",
        parameters=3104,
        outcome={"contribution": 0.0412, "contribution_low": 0.0253, "contribution_high": 0.0581, "rent": 0.00155,
                 "accuracy_difference": 0.0148, "mcnemar_p": 0.041},
        refused=(
            {"action": "GERMINATE", "site": "layers.0.residual", "kernel": "residual_mlp-v1-d32-h32",
             "reason": "widening comes first while the layer is narrower than 64 units"},
            {"action": "GERMINATE", "site": "layers.1.width", "kernel": "widen_linear-v1-fan_in32-fan_out10-units32",
             "reason": "at most one live seed at a time"},
        ),
    ),
    Story(
        site="layers.1.residual",
        operator="residual",
        kernel="residual_mlp-v1-d32-h32",
        moves=((S.GERMINATED, 12.1), (S.TRAINING, 13), (S.GRAFTING, 15), (S.STABILIZING, 17), (S.EVALUATING, 18.2),
               (S.CULLED, 24), (S.EMBARGOED, 24), (S.DORMANT, 29)),
        why="the training loss improved 4.2 % in 150 steps, below 5 %: add depth where the gradient is largest",
        parameters=2112,
        outcome={"contribution": 0.0004, "contribution_low": -0.0011, "contribution_high": 0.0019, "rent": 0.00106,
                 "accuracy_difference": 0.0, "mcnemar_p": 1.0},
        refused=(
            {"action": "GERMINATE", "site": "layers.0.width", "kernel": "widen_linear-v1-fan_in64-fan_out32-units32",
             "reason": "the layer has its target width of 64 units"},
        ),
    ),
    Story(
        site="layers.1.width",
        operator="widen",
        kernel="widen_linear-v1-fan_in64-fan_out10-units32",
        moves=((S.GERMINATED, 14.5), (S.STABILIZING, 14.9), (S.EVALUATING, 16), (S.FOSSILIZED, 19)),
        why="growth is forced at 30 % of the steps: the trigger has not fired",
        parameters=2400,
        outcome={"contribution": 0.0187, "contribution_low": 0.0071, "contribution_high": 0.0302, "rent": 0.0012,
                 "accuracy_difference": 0.0074, "mcnemar_p": 0.29},
    ),
)  # fmt: skip

ACTION_INTO = {
    S.GERMINATED: Action.GERMINATE,
    S.FOSSILIZED: Action.FOSSILIZE,
    S.CULLED: Action.CULL,
    S.CANCELLED: Action.CANCEL,
    S.ROLLED_BACK: Action.ROLLBACK,
}
MEASURED: dict[Gate, tuple[dict[str, Any], dict[str, Any]]] = {
    Gate.G0: ({"max_output_difference": 0.0, "parameters": 6410}, {"identity_tolerance": 1e-5}),
    Gate.GW: ({"max_output_difference": 2.4e-7}, {"identity_tolerance": 1e-5}),
    Gate.G2: ({"gradient_ratio": 0.62, "shadow_gain": 0.0131}, {"min_gradient_ratio": 0.1, "shadow_gain": 0.0}),
    Gate.G3: ({"alpha": 1.0}, {"alpha": 1.0}),
    Gate.G4: ({"steps": 44, "loss_slope": -0.0002}, {"stabilize_steps": 40}),
    Gate.G5: ({"contribution_low": 0.0253, "samples": 270}, {"rent": 0.00155, "confidence": 0.95}),
}


def make_user(username: str = "ada", role: str = "operator") -> User:
    """A user who can log in with the password "correct horse"."""
    user = User(username=username, role=role, is_staff=role != "viewer")
    user.set_password("correct horse")
    user.save()
    return user


def make_run(
    *,
    name: str = "digits-mlp",
    state: str = RunState.COMPLETED,
    done: int | None = None,
    epochs: int = 40,
    task: str = "digits",
    host: str = "mlp",
    seed: int = 0,
    owner: User | None = None,
    stories: Sequence[Story] = STORIES,
    failure: str = "",
    seconds_per_epoch: float = 2.0,
    silent_seconds: float = 0.5,
    gap: range = range(0),
) -> TrainingRun:
    """A run in ``state`` with ``done`` epochs behind it. Epochs in ``gap`` left no row."""
    done = (0 if state == RunState.QUEUED else epochs) if done is None else done
    settings = RunSettings(task=task, host=host, seed=seed, epochs=epochs)
    run = TrainingRun.objects.create(
        name=name,
        task=task,
        host=host,
        seed=seed,
        epochs=epochs,
        owner=owner,
        settings=settings.to_dict(),
        environment={"torch": "2.13.0", "threads": 1, "cpu_capability": "AVX2"},
    )
    if state == RunState.QUEUED:
        return run
    began = timezone.now() - timedelta(seconds=silent_seconds + done * seconds_per_epoch)
    metrics = _metrics(run, done, stories, gap)
    EpochMetric.objects.bulk_create(metrics)
    for metric in metrics:
        metric.at = began + timedelta(seconds=metric.epoch * seconds_per_epoch)
    EpochMetric.objects.bulk_update(metrics, ["at"])
    slots = {site: SeedSlot.objects.create(run=run, site=site) for site in SITES}
    _grow(run, done, stories, slots)
    _snapshots(run, done)
    _finish(run, state, metrics, stories, began, failure, silent_seconds)
    return run


def make_control(run: TrainingRun, *, done: int | None = None, accuracy: float = -0.004) -> TrainingRun:
    """The static net of the grown run's final size, ``accuracy`` better than it."""
    settings = {**run.settings, "topology": {"host": run.host}, "growth": {**run.settings["growth"], "enabled": False}}
    control = TrainingRun.objects.create(
        name=f"{run.name} (static)", kind=RunKind.CONTROL, control_of=run, task=run.task, host=run.host,
        seed=run.seed, epochs=run.epochs, settings=settings, owner=run.owner,
    )  # fmt: skip
    done = run.epochs if done is None else done
    size = run.result.get("parameters", 11_914)
    rows = _metrics(control, done, (), range(0), parameters=size, shift=accuracy)
    EpochMetric.objects.bulk_create(rows)
    _move(control, RunState.RUNNING)
    if done == run.epochs:
        control.result = {
            "test_accuracy": run.result.get("test_accuracy", 0.96) + accuracy,
            "parameters": size,
            "train_flops": rows[-1].train_flops,
        }
        control.ended_at = timezone.now()
        _move(control, RunState.COMPLETED)
    return control


def make_alert(
    run: TrainingRun,
    state: str = AlertState.FIRING,
    *,
    epoch: float = 20,
    until: float | None = None,
    summary: str = "The loss jumped to 0.94, 6 times its usual spread above its median",
) -> Alert:
    """An alert about the run that began at ``epoch``, and was over at ``until`` (None: at the end of the run)."""
    began, ended = moment_of(run, epoch), moment_of(run, run.epochs if until is None else until)
    key = new_id()
    alert = Alert.objects.create(
        workspace_id=run.workspace_id, rule_id=key, rule_name="loss spike", fingerprint=f"{key.int:064x}"[-64:],
        state=AlertState.FIRING if state == AlertState.RESOLVED else state, severity=Severity.WARNING,
        metric="esper_run_train_loss", run_id=run.pk,
        labels={"alertname": "loss spike", "severity": "warning", "run": str(run.pk)}, summary=summary,
        started_at=began, fired_at=None if state == AlertState.PENDING else began, last_true_at=ended,
        last_seen_at=ended,
    )  # fmt: skip
    if state == AlertState.RESOLVED:
        alert.state, alert.resolved_at = state, ended
        alert.save()
    return alert


def make_anomaly(
    run: TrainingRun,
    *,
    epoch: float = 20,
    until: float | None = None,
    value: float = 0.94,
    expected: tuple[float, float] = (0.18, 0.31),
) -> Anomaly:
    """An anomaly of the run's training loss from ``epoch`` until ``until``."""
    low, high = expected
    series, _ = Series.objects.get_or_create(
        workspace_id=run.workspace_id, name="esper_run_train_loss", run_id=run.pk, labels={"run": str(run.pk)},
        source=SeriesSource.RUN, digest=sha256(f"loss of {run.pk}".encode()).hexdigest(),
    )  # fmt: skip
    return Anomaly.objects.create(
        workspace_id=run.workspace_id, series=series, run_id=run.pk, at=moment_of(run, epoch),
        until=moment_of(run, epoch if until is None else until), value=value, score=0.97, component="extreme",
        components={"extreme": 0.9}, expected_low=low, expected_high=high,
        explanation=f"{value:g} lies above everything of the last 300 values, {low:g} to {high:g}",
    )  # fmt: skip


def make_recordings(run: TrainingRun, *, gap: range = range(0)) -> None:
    """What its worker recorded each second of training; nothing during the epochs in ``gap``."""
    noise = random.Random(run.name)
    first, last = moment_of(run, 1), moment_of(run, run.epochs)
    readings = []
    for second in range(round((last - first).total_seconds())):
        epoch = 1 + second * (run.epochs - 1) / (last - first).total_seconds()
        for name, value in {
            "esper_run_samples_per_second": 2600 + 180 * noise.random() - 500 * (round(epoch) in {8, 12, 14}),
            "esper_run_gradient_norm": 0.004 * math.exp(-epoch / 18) + 0.0004 * noise.random(),
            "esper_run_overhead_ratio": 0.018 + 0.01 * noise.random() + 0.06 * (round(epoch) in {8, 12, 14}),
        }.items():
            if int(epoch) not in gap:
                at = first + timedelta(seconds=second)
                readings.append(Reading(name=name, value=value, at=at, labels={"run": str(run.pk)}, run_id=run.pk))
    writing.record(readings, source=SeriesSource.RUN)


def moment_of(run: TrainingRun, epoch: float) -> datetime:
    """When the run was at ``epoch``, by the first and the last that it measured."""
    first, last = run.metrics.order_by("epoch").first(), run.metrics.order_by("epoch").last()
    if first is None or last is None:
        return timezone.now()
    pace = (last.at - first.at) / max(1, last.epoch - first.epoch)
    return first.at + pace * (epoch - first.epoch)


def _metrics(
    run: TrainingRun,
    done: int,
    stories: Sequence[Story],
    gap: range,
    *,
    parameters: int = 4298,
    shift: float = 0.0,
) -> list[EpochMetric]:
    """Loss that decays in two phases, a dent of noise, and a jump in size at each graft that stays."""
    noise = random.Random(f"{run.seed}{run.name}")
    flops, rows = 0, []
    for epoch in range(1, done + 1):
        size = parameters + sum(story.parameters for story in stories if _stands(story, epoch))
        flops += 6 * size * STEPS * 32
        train = 2.1 * math.exp(-epoch / 5) + 0.22 * math.exp(-epoch / 30) + 0.004 * noise.random()
        held_out = train * 1.06 + 0.035 + 0.012 * noise.random()
        accuracy = min(0.995, 1 - 0.32 * held_out**0.9 + 0.004 * noise.random() + shift)
        if epoch in gap:
            continue
        rows.append(
            EpochMetric(
                run=run, epoch=epoch, step=epoch * STEPS, train_loss=train, validation_loss=held_out,
                validation_accuracy=max(0.1, accuracy), parameters=size, train_flops=flops, learning_rate=1e-3,
                live_seeds={story.site: str(_state_at(story, epoch)) for story in stories if _state_at(story, epoch)},
            )
        )  # fmt: skip
    return rows


def _state_at(story: Story, epoch: float) -> SeedState | None:
    entered = [state for state, when in story.moves if when <= epoch]
    return entered[-1] if entered else None


def _stands(story: Story, epoch: float) -> bool:
    """Whether the seed's parameters are part of the network."""
    return _state_at(story, epoch) not in {None, S.CULLED, S.CANCELLED, S.ROLLED_BACK, S.EMBARGOED, S.DORMANT}


def _grow(run: TrainingRun, done: int, stories: Sequence[Story], slots: Mapping[str, SeedSlot]) -> None:
    """Every move that fell within the epochs behind the run, in order, with its decision."""
    moves = sorted(
        (
            (when, number, state)
            for number, story in enumerate(stories, 1)
            for state, when in story.moves
            if when <= done
        ),
        key=lambda move: (move[0], move[1]),
    )
    seeds: dict[int, Seed] = {}
    sequence = _hold(run, 0, min(done, 7))
    for when, number, state in moves:
        story = stories[number - 1]
        if number not in seeds:
            seeds[number] = Seed.objects.create(
                run=run, slot=slots[story.site], number=number, operator=story.operator,
                kernel_digest=f"{number:02d}" * 32, kernel_name=story.kernel, germinated_epoch=int(when),
            )  # fmt: skip
        sequence = _advance(run, seeds[number], story, state, when, sequence)
    run.last_sequence = sequence
    run.save()


def _hold(run: TrainingRun, sequence: int, until: int) -> int:
    for epoch in range(1, until + 1):
        sequence += 1
        Decision.objects.create(
            run=run, sequence=sequence, epoch=epoch, step=epoch * STEPS, action=Action.HOLD, rule="before_window",
            reason="growth begins after 10 % of the planned steps", observed={"share_of_steps": epoch / run.epochs},
        )  # fmt: skip
    return sequence


def _advance(run: TrainingRun, seed: Seed, story: Story, state: SeedState, when: float, sequence: int) -> int:
    source, gate = SeedState(seed.state), gate_between(SeedState(seed.state), state)
    reason = {
        S.GERMINATED: story.why,
        S.FOSSILIZED: "it earns more than its rent on held-out data",
        S.CULLED: "it has not earned its rent within 6 epochs of evaluation",
    }.get(state, f"gate {gate} passed" if gate else "the timer ran out")
    at = {"run": run, "epoch": int(when), "step": round(when * STEPS)}
    if state in ACTION_INTO:
        sequence += 1
        Decision.objects.create(
            **at, sequence=sequence, action=ACTION_INTO[state], rule="loss_trigger" if state == S.GERMINATED else "g5",
            reason=reason, site=story.site, seed_number=seed.number, kernel_digest=seed.kernel_digest,
            observed={"improvement": 0.031, "look_back_steps": 150, "validation_loss": 0.2113}
            if state == S.GERMINATED
            else dict(story.outcome),
            refused=list(story.refused) if state == S.GERMINATED else [],
        )  # fmt: skip
    sequence += 1
    measured, thresholds = MEASURED.get(gate, ({}, {})) if gate else ({}, {})
    SeedTransition.objects.create(
        **at, seed=seed, sequence=sequence, source=source, target=state, gate=gate or "", reason=reason,
        measured=measured, thresholds=thresholds,
    )  # fmt: skip
    seed.state = state
    seed.alpha = 1.0 if state in {S.STABILIZING, S.EVALUATING, S.FOSSILIZED} else 0.0
    if state in {S.FOSSILIZED, S.CULLED}:
        seed.ended_epoch = int(when)
        seed.outcome = {
            **story.outcome, "verdict": str(state), "parameters": story.parameters, "train_flops": 6 * 32 * 40 * 9000,
            "loss_before": 0.231, "loss_after": 0.198,
        }  # fmt: skip
    seed.save()
    return sequence


def _snapshots(run: TrainingRun, done: int) -> None:
    made = Checkpoint.objects.bulk_create(
        Checkpoint(
            run_id=run.pk, epoch=epoch, step=epoch * STEPS, fencing_token=1, name=f"{run.pk}/{epoch}-{new_id()}",
            format="safetensors", workspace_id=default_workspace_id(), size=51_200 + 600 * epoch,
        )
        for epoch in range(1, done + 1)
    )  # fmt: skip
    is_last_whole = run.state == RunState.COMPLETED or done == run.epochs
    whole = [checkpoint for checkpoint in made if checkpoint.epoch < done or is_last_whole]
    for checkpoint in whole:
        checkpoint.state = CheckpointState.COMMITTED
        checkpoint.digest = f"{checkpoint.epoch:02x}" * 32
        checkpoint.verified_at = timezone.now()
    Checkpoint.objects.bulk_update(whole, ["state", "digest", "verified_at"])


def _finish(
    run: TrainingRun,
    state: str,
    metrics: Sequence[EpochMetric],
    stories: Sequence[Story],
    began: Any,
    failure: str,
    silent_seconds: float,
) -> None:
    now = timezone.now()
    run.started_at = began
    _move(run, RunState.RUNNING)
    alive = now - timedelta(seconds=silent_seconds)
    RunLease.objects.create(
        run=run, holder="train@worker-1", fencing_token=1, heartbeat_at=alive, expires_at=alive + timedelta(seconds=10)
    )
    if state == RunState.RUNNING:
        return
    if state == RunState.COMPLETED:
        done, last = run.epochs, metrics[-1]
        fates = [_state_at(story, done) for story in stories]
        run.result = {
            "test_accuracy": last.validation_accuracy - 0.006, "parameters_start": metrics[0].parameters,
            "parameters": last.parameters, "train_flops": last.train_flops,
            "seeds": {"germinated": len(stories), "fossilized": fates.count(S.FOSSILIZED),
                      "culled": sum(S.CULLED in dict(story.moves) for story in stories)},
            "decisions": run.decisions.count(), "topology_digest": "ab" * 32, "weights_digest": "cd" * 32,
        }  # fmt: skip
    run.failure = failure
    if state not in {RunState.PAUSED, RunState.RECOVERING}:
        run.ended_at = now
    _move(run, state)


def _move(run: TrainingRun, state: str) -> None:
    run.state = state
    run.save()
