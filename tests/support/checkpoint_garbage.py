"""Checkpoints that have gone and what they leave, with hours and days that pass at once."""

import os
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from django.db.models import F
from django.utils import timezone

from apps.checkpoints import places, services
from apps.checkpoints.models import Checkpoint, Pack, StoredObject
from apps.checkpoints.services.garbage import GRACE, Collected, collect_garbage, sweep
from apps.checkpoints.services.policies import create_policy
from apps.checkpoints.services.retention import expire_due
from apps.core.actors import SYSTEM
from tests.support.checkpoints import pack_of, save, state_of


def let_pass(span: timedelta) -> None:
    """Everything that waits has waited that much longer."""
    StoredObject.objects.update(unreferenced_at=F("unreferenced_at") - span)
    Pack.objects.update(emptied_at=F("emptied_at") - span)
    for path in places.folder().root.rglob("*"):
        os.utime(path, times=(path.stat().st_mtime - span.total_seconds(),) * 2)


def collect_twice() -> Collected:
    """Two rounds, more than a grace after whatever happened last and after one another."""
    let_pass(GRACE * 1.1)
    collect_garbage()
    let_pass(GRACE * 1.1)
    return collect_garbage()


def with_garbage(run_id: UUID) -> tuple[Checkpoint, Checkpoint]:
    """An expired checkpoint, most of whose pack nothing needs, and the newest one, which needs the rest of it."""
    create_policy(run_id=run_id, actor=SYSTEM, keep_last=1, keep_days=0, keep_best=0)
    old, newest = save(run_id, 10), save(run_id, 20)
    expire_due(actor=SYSTEM)
    return old, newest


def gone(run_id: UUID) -> Path:
    """The pack of a run none of whose checkpoints is left."""
    broken = save(run_id, 10)
    pack = pack_of(broken)
    services.quarantine(checkpoint=broken, problem="a flipped bit", actor=SYSTEM)
    Checkpoint.objects.filter(pk=broken.pk).update(updated_at=timezone.now() - timedelta(days=8))
    expire_due(actor=SYSTEM)
    return pack


def mostly_garbage(run_id: UUID) -> tuple[Path, Checkpoint]:
    """A pack most of which was swept, and a checkpoint that needs the rest."""
    _, newest = with_garbage(run_id)
    first = Pack.objects.order_by("created_at")[0]
    let_pass(GRACE * 1.1)
    sweep()
    assert first.contents.count() == 1
    return places.folder().pack_path(first.pk), newest


def loads(checkpoint: Checkpoint) -> bool:
    step = checkpoint.step
    loaded = services.load(checkpoint=checkpoint).components["tolaria"]
    return bool(
        loaded["step"] == step and (loaded["model"]["head"] == state_of(step)["tolaria"]["model"]["head"]).all()
    )
