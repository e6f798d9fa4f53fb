"""Checkpoints that are really stored: in a folder of the test's own, by the saver that runs use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch
from django.conf import LazySettings

from apps.accounts.models import default_workspace_id
from apps.checkpoints.models import Checkpoint, SaveReason
from apps.checkpoints.places import folder
from apps.checkpoints.services.saving import RunSaver
from apps.core.actors import WORKER
from apps.core.ids import new_id

__all__ = ["checkpoint_folder", "save", "state_of"]


@pytest.fixture
def checkpoint_folder(settings: LazySettings, tmp_path: Path) -> Path:
    """The checkpoint folder, empty."""
    settings.CHECKPOINTS_ROOT = tmp_path / "checkpoints"
    settings.CHECKPOINTS_ROOT.mkdir()
    return settings.CHECKPOINTS_ROOT


def state_of(step: int, *, frozen: int = 0) -> dict[str, Any]:
    """A run after ``step`` steps: two tensors above 64 KiB, of which one never changes, a small one, plain values."""
    generator = torch.Generator().manual_seed(step)
    return {
        "tolaria": {
            "model": {
                "head": torch.randn(40_000, generator=generator),
                "body": torch.arange(30_000, dtype=torch.float32) + frozen,
                "bias": torch.full((3,), float(step)),
            },
            "step": step,
        },
        "tamiyo": {"policy": {"counts": [step, step + 1]}},
    }


def save(
    run_id: UUID | None = None,
    step: int = 10,
    state: dict[str, Any] | None = None,
    *,
    guard: Callable[[], None] = lambda: None,
    fencing_token: int = 1,
    reason: SaveReason = SaveReason.EPOCH,
    metrics: dict[str, float] | None = None,
) -> Checkpoint:
    """A checkpoint of the run, saved in this thread.

    Raises:
        Unavailable, LeaseLost.
    """
    saver = RunSaver(
        run_id=run_id or new_id(),
        workspace_id=default_workspace_id(),
        fencing_token=fencing_token,
        guard=guard,
        actor=WORKER,
        background=False,
    )
    handle = saver.save(
        state or state_of(step), epoch=step // 10, step=step, reason=reason, metrics=metrics, fingerprint="f" * 64
    )
    saver.flush(required=True)
    saver.close()
    assert handle is not None
    return Checkpoint.objects.get(pk=handle.wait().manifest.id)


def flip(path: Path, at: int) -> None:
    """Change one bit of a file, as a bad disk does."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def pack_of(checkpoint: Checkpoint) -> Path:
    """The pack that the checkpoint added."""
    newest = checkpoint.references.select_related("object").latest("object_id").object
    return folder().pack_path(newest.pack_id)


def manifest_of(checkpoint: Checkpoint) -> Path:
    return folder().manifest_path(checkpoint.pk)
