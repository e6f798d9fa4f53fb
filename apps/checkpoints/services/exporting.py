"""Checkpoints as files that other programs read, and files of other programs as checkpoints."""

import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction

from apps.audit import services as audit
from apps.checkpoints.models import Checkpoint, SaveReason
from apps.checkpoints.services import loading
from apps.checkpoints.services.saving import RunSaver
from apps.checkpoints.store.errors import CorruptCheckpoint, TooLarge, UnsupportedState
from apps.checkpoints.store.manifests import COMPONENT
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid, NotFound, Unavailable, Unprocessable
from apps.core.files import synchronise


class Format(StrEnum):
    SAFETENSORS = "safetensors"
    TORCH = "torch"
    DCP = "dcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written: the components in it, and the bytes that it takes."""

    path: Path
    format: Format
    components: tuple[str, ...]
    bytes: int


# --- Export


def export_checkpoint(
    *,
    checkpoint: Checkpoint,
    path: Path,
    format: Format,
    actor: Actor,
    components: Collection[str] | None = None,
    reason: str = "",
) -> Exported:
    """Write a checkpoint, or some components of it, to a new file (``dcp``: a new directory), verified on the way.

    Raises:
        Conflict: there is something at ``path`` already, or the checkpoint's bytes are not kept.
        NotFound: it has no such component, or there is no such folder. Unprocessable: the format cannot hold the state,
        or memory cannot. Unavailable: it cannot be read or written now.
    """
    if path.exists():
        raise Conflict(f"{path} exists already: an export never overwrites", code="exists")
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {path.parent}", code="no_folder")
    unknown = set(components or ()) - set(checkpoint.components)
    if unknown:
        known = ", ".join(checkpoint.components)
        raise NotFound(f"the checkpoint has no component {min(unknown)!r}; it has {known}", code="no_component")
    state = _loaded(checkpoint, components)
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        _write(part, state, format, checkpoint)
        size = _settle(part, path)
    except UnsupportedState as error:
        raise Unprocessable(str(error), code="unsupported") from error
    except OSError as error:
        raise Unavailable(f"it could not be written: {error}", code="storage") from error
    finally:
        _remove(part)
    exported = Exported(path=path, format=format, components=tuple(state), bytes=size)
    _record(checkpoint, exported, actor, reason)
    return exported


def _loaded(checkpoint: Checkpoint, components: Collection[str] | None) -> dict[str, Any]:
    try:
        return dict(loading.load(checkpoint=checkpoint, components=components).components)
    except CorruptCheckpoint as error:
        raise Unavailable(f"the checkpoint is broken: {error}; verify it", code="corrupt_checkpoint") from error
    except TooLarge as error:
        raise Unprocessable(f"{error} Export some components of it", code="too_large") from error


def _write(path: Path, state: dict[str, Any], format: Format, checkpoint: Checkpoint) -> None:
    from apps.checkpoints import torch_files

    if format == Format.TORCH:
        torch_files.write_torch(path, state)
    elif format == Format.DCP:
        torch_files.write_dcp(path, state)
    else:
        facts = {"checkpoint": str(checkpoint.pk), "epoch": checkpoint.epoch, "step": checkpoint.step}
        torch_files.write_safetensors(path, state, facts)


def _settle(part: Path, path: Path) -> int:
    """Durable, and then by its name; the bytes of it."""
    files = [file for file in part.rglob("*") if file.is_file()] if part.is_dir() else [part]
    for file in files:
        synchronise(file)
    size = sum(file.stat().st_size for file in files)
    if part.is_dir():
        part.rename(path)
    else:
        os.link(part, path)  # unlike a rename, it refuses a name that is taken
    synchronise(path.parent)
    return size


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


@transaction.atomic
def _record(checkpoint: Checkpoint, exported: Exported, actor: Actor, reason: str) -> None:
    audit.record(
        type="checkpoint.exported",
        subject=checkpoint,
        actor=actor,
        reason=reason,
        payload={
            "format": str(exported.format),
            "file": exported.path.name,
            "components": list(exported.components),
            "bytes": exported.bytes,
        },
    )


# --- Import


def import_checkpoint(
    *,
    path: Path,
    run_id: UUID,
    workspace_id: UUID,
    fencing_token: int,
    guard: Callable[[], None],
    actor: Actor,
    epoch: int | None = None,
    step: int | None = None,
) -> Checkpoint:
    """Make a file of safetensors or torch.save the run's latest checkpoint.

    One that ``export_checkpoint`` wrote becomes the components that it was made of; any other one the component
    ``model``. Without ``epoch`` and ``step``: those that the file tells, else 0. ``guard`` runs inside the committing
    transaction, and raises LeaseLost when the caller has lost the run.

    Raises:
        Invalid: the file cannot be taken. LeaseLost. Unavailable: the storage does not take the checkpoint.
    """
    components, told = _read(path)
    saver = RunSaver(
        run_id=run_id,
        workspace_id=workspace_id,
        fencing_token=fencing_token,
        guard=guard,
        actor=actor,
        background=False,
    )
    try:
        handle = saver.save(
            components,
            epoch=told.get("epoch", 0) if epoch is None else epoch,
            step=told.get("step", 0) if step is None else step,
            reason=SaveReason.UPLOAD,
        )
        if handle is None:
            raise Conflict("another save is in flight", code="busy")
        return Checkpoint.objects.get(pk=handle.wait().manifest.id)
    except UnsupportedState as error:
        raise Invalid(f"{path.name}: {error}", pointer="/file", code="unsupported") from error
    except OSError as error:
        raise Unavailable(f"the checkpoint could not be stored: {error}", code="storage") from error
    finally:
        saver.close()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Raises Invalid."""
    from apps.checkpoints import torch_files

    try:
        components, told = torch_files.read(path)
    except torch_files.UnreadableFile as error:
        raise Invalid(f"{path.name} cannot be taken: {error}", pointer="/file", code="unreadable") from error
    except OSError as error:
        raise Invalid(f"{path} cannot be read: {error}", pointer="/file", code="unreadable") from error
    wrong = next((name for name in components if not COMPONENT.fullmatch(name)), None)
    if wrong is not None:
        raise Invalid(f"{path.name}: {wrong!r:.60} is no name of a component", pointer="/file", code="unreadable")
    return components, told
