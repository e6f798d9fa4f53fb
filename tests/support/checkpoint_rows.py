"""Rows of checkpoints and recoveries as a run leaves them, for tests of what reads them. No bytes are written."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, ObjectReference, SaveReason
from apps.training.lifecycle import RecoveryState
from apps.training.models import RecoveryCause, TrainingRun
from tests.support.factories import CheckpointFactory, PackFactory, RecoveryEventFactory, StoredObjectFactory

OBJECT_BYTES = 1_000_000
STORED_BYTES = 820_000
OBJECTS = 6
"""Objects of each checkpoint."""


def make_checkpoints(
    run: TrainingRun, *, count: int = 5, every: int = 400, kept_alike: int = 3, **values: Any
) -> list[Any]:
    """Checkpoints at each ``every`` steps, oldest first; each shares ``kept_alike`` objects with all the others."""
    shared = _objects(kept_alike)
    made: list[Any] = []
    for number in range(1, count + 1):
        own = _objects(OBJECTS - kept_alike)
        objects = [*shared, *own]
        is_first = number == 1
        new = objects if is_first else own
        checkpoint: Any = CheckpointFactory(
            run_id=run.pk,
            epoch=number * every // 40,
            step=number * every,
            state=CheckpointState.COMMITTED,
            format="esper-checkpoint/1",
            reason=SaveReason.INTERVAL if number < count else SaveReason.DEMAND,
            parent_id=made[-1].pk if made else None,
            digest=f"{number:02x}" * 32,
            size=len(objects) * OBJECT_BYTES,
            stored_bytes=len(new) * STORED_BYTES,
            shared_bytes=(len(objects) - len(new)) * OBJECT_BYTES,
            components=_components(len(objects), len(new)),
            metrics={"validation_loss": 0.4 - 0.02 * number, "validation_accuracy": 0.9 + 0.01 * number},
            fingerprint=f"{number:02x}" * 32,
            environment={"torch": "2.13.0", "threads": 1, "cpu_capability": "AVX2"},
            stall_seconds=0.004 + 0.001 * number,
            save_seconds=0.2 + 0.05 * number,
            **values,
        )
        ObjectReference.objects.bulk_create(ObjectReference(checkpoint=checkpoint, object=each) for each in objects)
        made.append(checkpoint)
    return made


def _objects(count: int) -> list[Any]:
    pack: Any = PackFactory(size=count * STORED_BYTES + 200)
    return [
        StoredObjectFactory(
            pack=pack, offset=24 + place * STORED_BYTES, stored_size=STORED_BYTES, raw_size=OBJECT_BYTES
        )
        for place in range(count)
    ]


def _components(objects: int, new: int) -> dict[str, dict[str, int]]:
    return {
        "tolaria": {"tensors": 31, "bytes": (objects - 1) * OBJECT_BYTES, "stored": max(new - 1, 0) * OBJECT_BYTES},
        "kasmina": {"tensors": 9, "bytes": OBJECT_BYTES - 20_000, "stored": OBJECT_BYTES - 20_000},
        "tamiyo": {"tensors": 2, "bytes": 20_000, "stored": 20_000},
        "urza": {"tensors": 0, "bytes": 0, "stored": 0},
    }


def make_recovery(
    run: TrainingRun,
    *,
    checkpoint: Checkpoint | None = None,
    state: str = RecoveryState.RESUMED,
    cause: str = RecoveryCause.LEASE,
    seconds: Sequence[float | None] = (11.2, 0.31, 0.08, 0.05, 0.4),
    **values: Any,
) -> Any:
    """``seconds``: detect, load, restore, validate, resume; None: not reached."""
    stages = dict(zip(("detect", "load", "restore", "validate", "resume"), seconds, strict=True))
    recovery: Any = RecoveryEventFactory(
        run=run,
        cause=cause,
        state=state,
        checkpoint=checkpoint,
        lost_holder="train@worker-1",
        holder="train@worker-2" if state == RecoveryState.RESUMED else "",
        fencing_token=2 if state == RecoveryState.RESUMED else None,
        silent_since=timezone.now() - timedelta(seconds=20),
        ended_at=None if state == RecoveryState.OPEN else timezone.now(),
        **{f"{stage}_seconds": took for stage, took in stages.items()},
        **values,
    )
    return recovery
