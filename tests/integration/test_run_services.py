"""Runs as rows: who may hold one, what a late worker may write, and how a lost one is taken up."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from django.db import DatabaseError, transaction
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core import queue
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid, InvalidTransition, LeaseLost
from apps.morphogenesis.lifecycle import Gate, SeedState
from apps.morphogenesis.protocols import Action, Command, DecisionRecord, EpochRecord, GraftOutcome, TransitionRecord
from apps.training import services, tasks
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, RunKind, RunLease, Seed, TrainingRun
from apps.training.services import leases

pytestmark = pytest.mark.django_db


@pytest.fixture
def run() -> TrainingRun:
    return services.create_run(
        settings={"task": "digits", "host": "mlp", "epochs": 4, "growth": {"enabled": False}}, actor=SYSTEM
    )


@pytest.fixture
def claimed(run: TrainingRun) -> tuple[TrainingRun, int]:
    claim = services.claim_run(run_id=run.pk, holder="worker-1")
    assert claim is not None
    return claim


def expire(run: TrainingRun) -> None:
    RunLease.objects.filter(run=run).update(expires_at=timezone.now() - timedelta(seconds=1))


def epoch(sequence: int, number: int, **changes: Any) -> EpochRecord:
    values: dict[str, Any] = {
        "sequence": sequence,
        "epoch": number,
        "step": number * 10,
        "train_loss": 1.0,
        "validation_loss": 1.1,
        "validation_accuracy": 0.5,
        "parameters": 100,
        "train_flops": 1000 * number,
        "learning_rate": 0.001,
    }
    return EpochRecord(**(values | changes))


def germination(sequence: int = 1, **changes: Any) -> TransitionRecord:
    values: dict[str, Any] = {
        "sequence": sequence,
        "epoch": 1,
        "step": 10,
        "seed": 1,
        "site": "hidden.0",
        "operator": "residual",
        "kernel": "a" * 64,
        "source": SeedState.DORMANT,
        "target": SeedState.GERMINATED,
        "reason": "the loss stalled",
        "gate": Gate.G0,
    }
    return TransitionRecord(**(values | changes))


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"task": "chess"}, "/settings/task"),
        ({"host": "rnn"}, "/settings/host"),
        ({"epochs": "ten"}, "/settings/epochs"),
        ({"epochs": 0}, "/settings/epochs"),
        ({"learning_rate": float("nan")}, "/settings/learning_rate"),
        ({"depth": 3}, "/settings/depth"),
        ({"epochs": 10**400}, "/settings/epochs"),
        ({"learning_rate": 10**400}, "/settings/learning_rate"),
        ({"growth": {"rent": -1}}, "/settings/growth/rent"),
        ({"growth": []}, "/settings/growth"),
        ({"task": "spirals", "host": "cnn"}, "/settings/host"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_written(settings: dict[str, Any], pointer: str) -> None:
    events = AuditEvent.objects.count()

    with pytest.raises(Invalid) as caught:
        services.create_run(settings=settings, actor=SYSTEM)

    assert caught.value.errors[0].pointer == pointer
    assert not TrainingRun.objects.exists()
    assert AuditEvent.objects.count() == events


def test_a_redelivered_message_finds_the_run_taken(claimed: tuple[TrainingRun, int]) -> None:
    run, _ = claimed

    assert services.claim_run(run_id=run.pk, holder="worker-2") is None


def test_a_claim_makes_the_run_running_and_counts_the_token_up(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed

    assert (run.state, token) == (RunState.RUNNING, 1)
    assert run.started_at is not None


def test_a_lost_run_is_recovered_and_its_old_worker_is_refused(
    claimed: tuple[TrainingRun, int],
) -> None:
    run, old = claimed
    expire(run)

    assert services.recover_orphans() == [run.pk]
    run.refresh_from_db()
    assert run.state == RunState.RECOVERING
    _, new = services.claim_run(run_id=run.pk, holder="worker-2") or (None, 0)
    assert new > old
    with pytest.raises(LeaseLost):
        services.extend_lease(run_id=run.pk, fencing_token=old)
    with pytest.raises(LeaseLost):
        services.record_epoch(run_id=run.pk, fencing_token=old, record=epoch(1, 1))
    with pytest.raises(LeaseLost):
        services.finish_run(run_id=run.pk, fencing_token=old, state=RunState.COMPLETED, reason="late")
    assert not EpochMetric.objects.exists()


def test_a_live_run_is_not_taken_for_an_orphan(claimed: tuple[TrainingRun, int]) -> None:
    assert services.recover_orphans() == []


def test_a_run_whose_worker_died_before_the_clock_was_set_back_is_taken_up(claimed: tuple[TrainingRun, int]) -> None:
    run, _ = claimed
    RunLease.objects.filter(run=run).update(expires_at=timezone.now() + timedelta(hours=1))

    assert services.recover_orphans() == [run.pk]


def test_a_worker_whose_clock_is_wrong_keeps_its_run(
    claimed: tuple[TrainingRun, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, token = claimed
    with monkeypatch.context() as patch:
        patch.setattr(leases.timezone, "now", lambda: datetime(2001, 1, 1, tzinfo=UTC))
        services.extend_lease(run_id=run.pk, fencing_token=token)

    assert services.recover_orphans() == []


def test_a_run_that_kills_its_workers_fails_and_says_why(claimed: tuple[TrainingRun, int]) -> None:
    run, _ = claimed
    for _attempt in range(6):
        expire(run)
        services.recover_orphans()
        services.claim_run(run_id=run.pk, holder="next")

    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "worker was lost" in run.failure


def test_an_event_that_is_stored_already_is_ignored(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed
    services.record_epoch(run_id=run.pk, fencing_token=token, record=epoch(1, 1))

    services.record_epoch(run_id=run.pk, fencing_token=token, record=epoch(1, 1, train_loss=9.0))

    assert EpochMetric.objects.get(run=run).train_loss == 1.0


def test_a_seed_moves_along_its_life_cycle_only(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed
    services.record_transition(run_id=run.pk, fencing_token=token, record=germination())

    with pytest.raises(InvalidTransition):
        services.record_transition(
            run_id=run.pk,
            fencing_token=token,
            record=germination(2, source=SeedState.GERMINATED, target=SeedState.FOSSILIZED),
        )

    assert Seed.objects.get(run=run).state == SeedState.GERMINATED


def test_the_database_refuses_a_state_that_python_was_not_asked_about(claimed: tuple[TrainingRun, int]) -> None:
    run, _ = claimed

    with pytest.raises(DatabaseError, match="Invalid transition"), transaction.atomic():
        TrainingRun.objects.filter(pk=run.pk).update(state=RunState.QUEUED)
    with pytest.raises(DatabaseError, match="cannot be born"), transaction.atomic():
        TrainingRun.objects.create(
            name="x", kind=RunKind.INTERNAL, state=RunState.COMPLETED, task="t", host="h", seed=0, settings={}, epochs=1
        )


def test_each_transition_is_one_audit_event_with_its_evidence(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed

    services.record_transition(
        run_id=run.pk, fencing_token=token, record=germination(measured={"gap": 0.0}, thresholds={"gap": 1e-5})
    )

    event = AuditEvent.objects.get(type="seed.transition")
    assert event.subject_id == str(Seed.objects.get(run=run).pk)
    assert event.payload["thresholds"] == {"gap": "1e-05"}


def test_decisions_keep_what_was_refused(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed
    record = DecisionRecord(
        sequence=1, epoch=2, step=20, action=Action.HOLD, rule="clock", reason="too early", observed={"share": 0.05}
    )

    services.record_decision(run_id=run.pk, fencing_token=token, record=record)

    assert run.decisions.get().observed == {"share": 0.05}


def test_pause_waits_for_the_worker_and_resume_makes_the_run_claimable(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed
    services.pause_run(run=run, actor=SYSTEM, reason="lunch")
    assert services.extend_lease(run_id=run.pk, fencing_token=token) == Command.PAUSE
    run = services.finish_run(run_id=run.pk, fencing_token=token, state=RunState.PAUSED, reason="paused")
    assert services.claim_run(run_id=run.pk, holder="w") is None

    services.resume_run(run=run, actor=SYSTEM)

    resumed, newer = services.claim_run(run_id=run.pk, holder="w") or (None, 0)
    assert resumed is not None
    assert resumed.state == RunState.RUNNING
    assert newer == token + 1


def test_a_run_is_kept_when_the_broker_is_away_and_queued_again_when_it_is_back(
    run: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(queue, "current_app", Celery(broker="redis://127.0.0.1:1/0", set_as_current=False))
        assert queue.enqueue(services.TRAIN_TASK, str(run.pk)) is False
    sent: list[str] = []
    TrainingRun.objects.filter(pk=run.pk).update(updated_at=timezone.now() - timedelta(minutes=1))

    monkeypatch.setattr(tasks, "enqueue", lambda task, run_id: sent.append(run_id))
    tasks.dispatch_queued()

    assert sent == [str(run.pk)]


def test_an_outcome_without_an_ablation_is_reported_as_such(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed
    services.record_transition(run_id=run.pk, fencing_token=token, record=germination())
    outcome = GraftOutcome(
        sequence=2,
        epoch=3,
        seed=1,
        site="hidden.0",
        kernel="a" * 64,
        verdict=SeedState.CANCELLED,
        parameters=10,
        train_flops=100,
        loss_before=1.0,
        loss_after=1.1,
    )

    services.record_outcome(run_id=run.pk, fencing_token=token, record=outcome)

    assert Seed.objects.get(run=run).outcome["contribution"] is None


def test_stop_ends_a_queued_run_at_once_and_a_running_one_at_its_next_step(run: TrainingRun) -> None:
    assert services.stop_run(run=run, actor=SYSTEM).state == RunState.CANCELLED
    with pytest.raises(Conflict):
        services.stop_run(run=run, actor=SYSTEM)


def test_a_completed_run_gets_its_static_control(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed
    TrainingRun.objects.filter(pk=run.pk).update(wants_control=True)

    services.finish_run(
        run_id=run.pk,
        fencing_token=token,
        state=RunState.COMPLETED,
        reason="done",
        result={"topology": {"widths": [64]}},
    )

    control = run.controls.get()
    assert control.settings["topology"] == {"widths": [64]}
    assert control.settings["growth"]["enabled"] is False


def test_an_external_client_drives_its_run_under_lease_and_fencing() -> None:
    run = services.create_external_run(task="mnist", host="mine", epochs=2, actor=SYSTEM)
    lease = services.external_heartbeat(run=run, holder="laptop", fencing_token=None, actor=SYSTEM)
    events = [{"type": "epoch", **{k: v for k, v in vars_of(epoch(1, 1)).items() if k != "live_seeds"}}]

    assert services.external_events(run=run, fencing_token=lease.fencing_token, events=events, actor=SYSTEM) == 1
    with pytest.raises(LeaseLost):
        services.external_events(run=run, fencing_token=lease.fencing_token + 1, events=events, actor=SYSTEM)
    done = services.external_finish(run=run, fencing_token=lease.fencing_token, state="COMPLETED", actor=SYSTEM)
    assert done.state == RunState.COMPLETED


def test_a_malformed_external_event_names_its_field_and_none_of_the_batch_is_kept() -> None:
    run = services.create_external_run(task="mnist", host="mine", epochs=2, actor=SYSTEM)
    lease = services.external_heartbeat(run=run, holder="laptop", fencing_token=None, actor=SYSTEM)
    good = {"type": "epoch", **vars_of(epoch(1, 1))}

    with pytest.raises(Invalid) as caught:
        services.external_events(
            run=run, fencing_token=lease.fencing_token, events=[good, {"type": "epoch", "loss": 1}], actor=SYSTEM
        )

    assert caught.value.errors[0].pointer == "/events/1/loss"
    assert not EpochMetric.objects.exists()


def vars_of(record: EpochRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@pytest.mark.parametrize(("later", "state"), [("stop", RunState.CANCELLED), ("resume", RunState.PAUSED)])
def test_what_is_asked_while_a_pause_is_being_obeyed_is_not_lost(
    claimed: tuple[TrainingRun, int], later: str, state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, token = claimed
    queued: list[str] = []
    monkeypatch.setattr(leases, "enqueue_after_commit", lambda task, run_id: queued.append(run_id))
    services.pause_run(run=run, actor=SYSTEM)
    {"stop": services.stop_run, "resume": services.resume_run}[later](run=run, actor=SYSTEM)

    run = services.finish_run(run_id=run.pk, fencing_token=token, state=RunState.PAUSED, reason="paused")

    assert run.state == state
    assert queued == ([str(run.pk)] if later == "resume" else [])


def test_a_run_that_waits_for_a_busy_worker_is_queued_again_and_not_taken_for_lost(
    claimed: tuple[TrainingRun, int],
) -> None:
    run, token = claimed
    services.hand_over(run_id=run.pk, fencing_token=token)
    expire(run)

    assert services.recover_orphans() == []

    run.refresh_from_db()
    assert (run.state, run.lease.recoveries) == (RunState.RUNNING, 0)


def test_a_run_that_was_to_pause_when_its_worker_was_lost_is_queued_again(
    claimed: tuple[TrainingRun, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = claimed
    services.pause_run(run=run, actor=SYSTEM)
    expire(run)
    services.recover_orphans()
    TrainingRun.objects.filter(pk=run.pk).update(updated_at=timezone.now() - timedelta(minutes=1))
    sent: list[str] = []
    monkeypatch.setattr(tasks, "enqueue", lambda task, run_id: sent.append(run_id))

    tasks.dispatch_queued()

    assert sent == [str(run.pk)]


def test_the_last_fault_is_told_when_a_run_gives_up(claimed: tuple[TrainingRun, int]) -> None:
    run, token = claimed
    for _attempt in range(6):
        services.give_up_lease(run_id=run.pk, fencing_token=token, why="No space left on device")
        expire(run)
        services.recover_orphans()
        _, token = services.claim_run(run_id=run.pk, holder="next") or (None, 0)

    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert "No space left on device" in run.failure


@pytest.mark.parametrize(
    ("result", "pointer"),
    [({"parameters_start": "1.2M"}, "/result/parameters_start"), ({"test_accuracy": 10**400}, "/result/test_accuracy")],
)
def test_a_result_that_the_pages_could_not_compute_with_is_refused(result: dict[str, Any], pointer: str) -> None:
    run = services.create_external_run(task="mnist", host="mine", epochs=2, actor=SYSTEM)
    lease = services.external_heartbeat(run=run, holder="laptop", fencing_token=None, actor=SYSTEM)

    with pytest.raises(Invalid) as caught:
        services.external_finish(
            run=run, fencing_token=lease.fencing_token, state="COMPLETED", actor=SYSTEM, result=result
        )

    assert caught.value.errors[0].pointer == pointer


def test_an_epoch_beyond_the_last_is_refused() -> None:
    run = services.create_external_run(task="mnist", host="mine", epochs=2, actor=SYSTEM)
    lease = services.external_heartbeat(run=run, holder="laptop", fencing_token=None, actor=SYSTEM)
    event = {"type": "epoch", **vars_of(epoch(1, 67_108_864))}

    with pytest.raises(Invalid, match="the run has 2 epochs"):
        services.external_events(run=run, fencing_token=lease.fencing_token, events=[event], actor=SYSTEM)


def test_an_external_run_that_reports_progress_is_not_held_its_earlier_losses() -> None:
    run = services.create_external_run(task="mnist", host="mine", epochs=2, actor=SYSTEM)
    lease = services.external_heartbeat(run=run, holder="laptop", fencing_token=None, actor=SYSTEM)
    RunLease.objects.filter(run=run).update(recoveries=4)
    event = {"type": "epoch", **vars_of(epoch(1, 1))}

    services.external_events(run=run, fencing_token=lease.fencing_token, events=[event], actor=SYSTEM)

    assert RunLease.objects.get(run=run).recoveries == 0
