"""Checkpoints of runs that a client trains in a loop of its own: sent under the token of the run's lease."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.checkpoints.models import Checkpoint
from apps.checkpoints.services import uploads
from apps.checkpoints.services.exporting import import_checkpoint
from apps.checkpoints.services.uploads import Upload
from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, TrainingRun
from apps.training.services.external import external_finish, external_heartbeat
from apps.training.services.leases import verify_lease

IMPORTER = "manage.py checkpoints import"


def begin_checkpoint_upload(*, run: TrainingRun, fencing_token: int, document: Mapping[str, Any]) -> Upload:
    """Note what is to be sent, and tell which objects are missing.

    Raises:
        Conflict: the run is not an external one, or has too many uploads. LeaseLost: the token is out of date.
        Invalid, PayloadTooLarge: the manifest cannot be taken.
    """
    _require_external(run)
    with transaction.atomic():
        verify_lease(run_id=run.pk, fencing_token=fencing_token)
    return uploads.begin_upload(run_id=run.pk, workspace_id=run.workspace.pk, document=document)


def send_checkpoint_object(*, run: TrainingRun, upload_id: UUID, digest: str, data: bytes) -> None:
    """Take one object of an upload.

    Raises:
        Conflict: the run is not an external one. NotFound, Invalid, PayloadTooLarge: the upload does not take it.
    """
    _require_external(run)
    uploads.put_object(run_id=run.pk, upload_id=upload_id, digest=digest, data=data)


def commit_checkpoint_upload(*, run: TrainingRun, upload_id: UUID, fencing_token: int, actor: Actor) -> Checkpoint:
    """Make what was sent the run's latest checkpoint.

    Raises:
        Conflict: objects are missing, or the run is not an external one. LeaseLost: the token is out of date.
        NotFound: there is no such upload. Unavailable: the storage does not take it.
    """
    _require_external(run)
    return uploads.commit_upload(
        run_id=run.pk,
        workspace_id=run.workspace.pk,
        upload_id=upload_id,
        fencing_token=fencing_token,
        guard=partial(_verify, run.pk, fencing_token),
        actor=actor,
    )


def import_run_checkpoint(
    *,
    run: TrainingRun,
    path: Path,
    actor: Actor,
    fencing_token: int | None = None,
    epoch: int | None = None,
    step: int | None = None,
) -> Checkpoint:
    """Make a file of safetensors or torch.save the latest checkpoint of an external run.

    Without a token the run is taken for it, and handed back paused: the client takes it with its next heartbeat.

    Raises:
        Conflict: the run is not an external one, or a client has it. LeaseLost: the token is out of date.
        Invalid: the file cannot be taken. Unavailable: the storage does not take the checkpoint.
    """
    _require_external(run)
    if fencing_token is not None:
        return _imported(run, path, fencing_token, actor, epoch, step)
    lease = external_heartbeat(run=run, holder=IMPORTER, fencing_token=None, actor=actor)
    try:
        return _imported(run, path, lease.fencing_token, actor, epoch, step)
    finally:
        external_finish(run=lease.run, fencing_token=lease.fencing_token, state=RunState.PAUSED, actor=actor)


def _imported(
    run: TrainingRun, path: Path, fencing_token: int, actor: Actor, epoch: int | None, step: int | None
) -> Checkpoint:
    return import_checkpoint(
        path=path,
        run_id=run.pk,
        workspace_id=run.workspace.pk,
        fencing_token=fencing_token,
        guard=partial(_verify, run.pk, fencing_token),
        actor=actor,
        epoch=epoch,
        step=step,
    )


def _verify(run_id: UUID, fencing_token: int) -> None:
    verify_lease(run_id=run_id, fencing_token=fencing_token)


def _require_external(run: TrainingRun) -> None:
    if run.kind != RunKind.EXTERNAL:
        raise Conflict("only external runs are driven by a client", code="not_external")
