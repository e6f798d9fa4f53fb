"""The main job through real workers: kernels compiled on `compile`, the run trained on `train`, everything in rows."""

from collections.abc import Callable
from typing import Any

from apps.audit.models import AuditEvent
from apps.audit.replay import replay
from apps.core.actors import SYSTEM
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import FieldReport, Kernel, KernelUse
from apps.training import services
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.support.waiting import wait_until

SETTINGS = {"task": "spirals", "host": "mlp", "epochs": 24, "seed": 3}


def create(**changes: Any) -> TrainingRun:
    return services.create_run(settings=SETTINGS | changes, actor=SYSTEM, wants_control=False)


def ended(run: TrainingRun) -> bool:
    run.refresh_from_db()
    return run.state in {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED}


def test_a_run_grows_in_real_workers_and_leaves_its_evidence(committed_db: str, worker: Callable[..., Any]) -> None:
    worker("compile")
    worker("train")

    run = create()
    wait_until(lambda: ended(run), seconds=120)

    assert (run.state, run.failure) == (RunState.COMPLETED, "")
    assert run.metrics.count() == run.epochs
    assert run.result["germinated"] >= 1
    assert run.seeds.count() == run.result["germinated"]
    assert run.result["parameters"] == run.metrics.last().parameters
    assert set(Kernel.objects.values_list("state", flat=True)) == {KernelState.VALIDATED}
    assert {offer["digest"] for offer in run.library} == set(Kernel.objects.values_list("digest", flat=True))
    assert FieldReport.objects.count() == run.result["fossilized"] + run.result["culled"]
    assert not KernelUse.objects.filter(until=None).exists()
    assert AuditEvent.objects.filter(type="seed.transition").count() == run.transitions.count()
    assert not AuditEvent.objects.filter(type="audit.unattributed").exists()
    assert [str(found) for found in replay().differences if found.subject_type != "workspace"] == []


def test_the_same_seed_and_library_give_the_same_weights(committed_db: str, worker: Callable[..., Any]) -> None:
    worker("compile")
    worker("train")

    first, second = create(epochs=10), create(epochs=10)
    wait_until(lambda: ended(first) and ended(second), seconds=120)

    for digest in ("topology_digest", "weights_digest"):
        assert first.result[digest] == second.result[digest]
