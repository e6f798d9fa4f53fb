"""What happens to a run when its worker, its database or its checkpoint goes away in the middle."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Count

from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, StoredObject
from apps.checkpoints.places import folder
from apps.core.actors import SYSTEM
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.kernels.services import quarantine_kernel
from apps.training import services
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.support.proxy import proxy_to
from tests.support.waiting import wait_until

SHORT_LEASE = {"ESPER_LEASE_SECONDS": "1.5", "ESPER_HEARTBEAT_SECONDS": "0.3"}
SETTINGS = {"task": "spirals", "host": "mlp", "epochs": 16, "seed": 5, "snapshot_epochs": 1}


@pytest.fixture
def make_run(committed_db: str) -> Callable[..., TrainingRun]:
    def make(**changes: Any) -> TrainingRun:
        return services.create_run(settings=SETTINGS | changes, actor=SYSTEM, wants_control=False)

    return make


def reached(run: TrainingRun, epoch: int) -> bool:
    return run.metrics.filter(epoch__gte=epoch).exists()


def in_state(run: TrainingRun, state: RunState) -> bool:
    run.refresh_from_db()
    assert run.state != RunState.FAILED or state == RunState.FAILED, run.failure
    return run.state == state


def kill(worker: Any) -> None:
    """kill -9 of the worker and of the child that trains."""
    os.killpg(worker.pid, signal.SIGKILL)
    worker.process.wait()


def recovered(run: TrainingRun) -> bool:
    """What beat does every few seconds."""
    return run.pk in services.recover_orphans()


def seconds_to_obey(run: TrainingRun) -> float:
    """From the newest command to the newest change of state, by the audit trail."""
    events = AuditEvent.objects.filter(subject_id=str(run.pk)).order_by("-at")
    command = events.filter(type="run.command").first()
    change = events.filter(type="run.transition").first()
    assert command is not None
    assert change is not None
    return (change.at - command.at).total_seconds()


def test_a_run_whose_worker_is_killed_resumes_and_ends_with_the_same_weights(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    worker("compile")
    first = worker("train", **SHORT_LEASE)
    undisturbed = make_run()
    wait_until(lambda: in_state(undisturbed, RunState.COMPLETED), seconds=90)

    killed = make_run()
    wait_until(lambda: reached(killed, 6), seconds=60)
    kill(first)
    wait_until(lambda: recovered(killed), seconds=20)
    worker("train", **SHORT_LEASE)
    wait_until(lambda: in_state(killed, RunState.COMPLETED), seconds=60)

    for name in ("weights_digest", "topology_digest", "decisions", "test_accuracy"):
        assert killed.result[name] == undisturbed.result[name]
    assert list(killed.metrics.values_list("epoch", "train_loss")) == list(
        undisturbed.metrics.values_list("epoch", "train_loss")
    )
    assert list(killed.transitions.values_list("sequence", "target")) == list(
        undisturbed.transitions.values_list("sequence", "target")
    )


def test_pause_resume_and_stop_take_effect_within_a_second(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    worker("compile")
    worker("train")
    run = make_run(epochs=2000)
    wait_until(lambda: reached(run, 1), seconds=60)

    services.pause_run(run=run, actor=SYSTEM)
    wait_until(lambda: in_state(run, RunState.PAUSED), seconds=20)
    assert seconds_to_obey(run) < 1.0
    paused_at = run.metrics.count()

    services.resume_run(run=run, actor=SYSTEM)
    wait_until(lambda: run.metrics.count() > paused_at, seconds=20)

    services.stop_run(run=run, actor=SYSTEM, reason="enough")
    wait_until(lambda: in_state(run, RunState.CANCELLED), seconds=20)
    assert seconds_to_obey(run) < 1.0


def test_a_run_survives_a_database_that_goes_away_in_the_middle(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    worker("compile")
    with proxy_to(os.environ["DATABASE_URL"]) as proxy:
        worker("train", DATABASE_URL=proxy.url(os.environ["DATABASE_URL"]), **SHORT_LEASE)
        run = make_run(epochs=40)
        wait_until(lambda: reached(run, 3), seconds=60)
        proxy.cut()
        wait_until(lambda: recovered(run), seconds=20)
        proxy.mend()

        wait_until(lambda: in_state(run, RunState.COMPLETED), seconds=60)

    assert run.metrics.count() == 40


def test_a_run_goes_on_while_the_broker_is_away(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    worker("compile")
    with proxy_to(os.environ["BROKER_URL"]) as proxy:
        worker("train", BROKER_URL=proxy.url(os.environ["BROKER_URL"]), **SHORT_LEASE)
        run = make_run(epochs=40)
        wait_until(lambda: reached(run, 3), seconds=60)
        proxy.cut()
        wait_until(lambda: in_state(run, RunState.COMPLETED), seconds=60)
        proxy.mend()

    assert run.metrics.count() == 40
    assert not AuditEvent.objects.filter(type="run.recovered").exists()


def test_a_flipped_bit_quarantines_its_checkpoint_and_the_one_before_it_is_used(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    worker("compile")
    first = worker("train", **SHORT_LEASE)
    run = make_run()
    wait_until(lambda: reached(run, 6), seconds=60)
    kill(first)
    newest = Checkpoint.objects.filter(run_id=run.pk, state=CheckpointState.COMMITTED).order_by("-step").first()
    assert newest is not None
    its_own = StoredObject.objects.annotate(needed_by=Count("references")).filter(
        references__checkpoint=newest, needed_by=1
    )
    spoilt = its_own.select_related("pack").first()
    assert spoilt is not None
    path = folder().pack_path(spoilt.pack.pk)
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(spoilt.offset)
        byte = file.read(1)[0]
        file.seek(spoilt.offset)
        file.write(bytes([byte ^ 1]))
    wait_until(lambda: recovered(run), seconds=20)

    worker("train", **SHORT_LEASE)
    wait_until(lambda: in_state(run, RunState.COMPLETED), seconds=60)

    newest.refresh_from_db()
    assert newest.state == CheckpointState.QUARANTINED
    passed_over = run.recoveries.get().skipped
    assert [entry["checkpoint"] for entry in passed_over] == [str(newest.pk)]


def test_a_run_without_kernels_to_grow_says_so_and_still_completes(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    run = make_run(epochs=8)
    for kernel in Kernel.objects.all():
        quarantine_kernel(kernel=kernel, reason="test", actor=SYSTEM)
    worker("train")

    wait_until(lambda: in_state(run, RunState.COMPLETED), seconds=60)

    assert not Kernel.objects.filter(state=KernelState.VALIDATED).exists()
    assert run.result["germinated"] == 0
    assert run.decisions.exists()


def test_a_run_whose_kernels_nobody_compiles_fails_and_says_so(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    worker("train", ESPER_COMPILE_PATIENCE_SECONDS="0.5")

    run = make_run()
    wait_until(lambda: in_state(run, RunState.FAILED), seconds=60)

    assert "is a worker running for the queue `compile`?" in run.failure


def test_a_run_that_waits_for_its_kernels_can_be_stopped(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    worker("train")
    run = make_run()
    wait_until(lambda: in_state(run, RunState.RUNNING), seconds=60)

    services.stop_run(run=run, actor=SYSTEM, reason="no compiler today")

    wait_until(lambda: in_state(run, RunState.CANCELLED), seconds=20)
