"""Everything that is done with checkpoints, at the same time, with a database that really commits."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
import torch
from django.db import connection

from apps.accounts.models import default_workspace_id
from apps.checkpoints import services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, SaveReason, StoredObject
from apps.checkpoints.services import compaction, garbage, rounds
from apps.checkpoints.services.archiving import archive, recall
from apps.checkpoints.services.retention import expire_due
from apps.checkpoints.services.saving import RunSaver
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.core.actors import SYSTEM, WORKER
from apps.core.errors import Conflict, Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder
from tests.support.factories import CheckpointPolicyFactory
from tests.support.objects import Folder, folder_storage

__all__ = ["checkpoint_folder", "folder_storage"]

SAVES = 6
"""Of each of two runs."""


class Crowd:
    """Threads that each do one thing with checkpoints again and again until the savers are done; what went wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.saved: dict[UUID, int] = {}
        self.over = Event()

    def again_and_again(self, act: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        try:
            while not self.over.is_set():
                self._once(act, chance)
        finally:
            connection.close()

    def _once(self, act: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            act(chance)
        except (Conflict, Unavailable):
            pass  # another is at it, or objects vanished again and again: told, and tried again
        except Exception as error:
            self.problems.append(f"{act.__name__}: {type(error).__name__}: {error}")
            self.over.set()


def picked(number: int) -> dict[str, dict[str, torch.Tensor]]:
    """One of sixteen states, made of four bodies and four heads: savers have most objects in common."""
    return {
        "tolaria": {"body": torch.arange(20_000.0) + number % 4, "head": torch.arange(20_000.0) * (number // 4 + 2)}
    }


def test_whoever_does_whatever_at_the_same_time_no_checkpoint_is_lost_or_set_aside(
    committed_db: str, checkpoint_folder: Path, folder_storage: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any grace: what it protects from happens all the time."""
    monkeypatch.setattr(garbage, "GRACE", timedelta(0))
    monkeypatch.setattr(compaction, "LIVE_SHARE", 0.9)
    CheckpointPolicyFactory(keep_last=3, keep_days=0, keep_best=0)
    runs, crowd = [new_id(), new_id()], Crowd()

    def any_of(chance: random.Random) -> Checkpoint | None:
        rows = list(Checkpoint.objects.filter(run_id__in=runs, state=CheckpointState.COMMITTED))
        return chance.choice(rows) if rows else None

    def save_all(run_id: UUID) -> None:
        chance = random.Random(run_id.int)
        saver = RunSaver(
            run_id=run_id,
            workspace_id=default_workspace_id(),
            fencing_token=1,
            guard=lambda: None,
            actor=WORKER,
            background=False,
        )
        try:
            for step in range(1, SAVES + 1):
                number = chance.randrange(16)
                handle = saver.save(picked(number), epoch=1, step=step, reason=SaveReason.EPOCH)
                assert handle is not None
                with suppress(Unavailable):
                    saver.flush(required=True)
                    crowd.saved[handle.wait().manifest.id] = number
        except Exception as error:
            crowd.problems.append(f"save: {type(error).__name__}: {error}")
        finally:
            saver.close()
            connection.close()

    def read(chance: random.Random) -> None:
        checkpoint = any_of(chance)
        if checkpoint is None or checkpoint.pk not in crowd.saved:
            return
        try:
            loaded = services.load(checkpoint=checkpoint)
        except CorruptCheckpoint:
            if Checkpoint.objects.get(pk=checkpoint.pk).state != CheckpointState.EXPIRED:
                raise
            return
        wanted = picked(crowd.saved[checkpoint.pk])
        assert all(torch.equal(loaded.components["tolaria"][key], wanted["tolaria"][key]) for key in ("body", "head"))

    def verify(chance: random.Random) -> None:
        checkpoint = any_of(chance)
        if checkpoint is not None:
            with suppress(CorruptCheckpoint):  # an expired one; else it is found QUARANTINED in the end
                services.verify(checkpoint=checkpoint, actor=SYSTEM)

    def expire(chance: random.Random) -> None:
        expire_due(actor=SYSTEM)

    def collect(chance: random.Random) -> None:
        garbage.collect_garbage()

    def compact(chance: random.Random) -> None:
        compaction.compact()

    def move(chance: random.Random) -> None:
        checkpoint = any_of(chance)
        if checkpoint is not None:
            with suppress(CorruptCheckpoint):
                chance.choice([archive, recall])(checkpoint=checkpoint, actor=SYSTEM)

    def tidy(chance: random.Random) -> None:
        rounds.free_archived()
        rounds.bring_back_needed()

    acts = [read, read, verify, expire, collect, compact, move, tidy]
    with ThreadPoolExecutor(len(acts) + 2) as pool:
        others = [pool.submit(crowd.again_and_again, act, seed) for seed, act in enumerate(acts)]
        savers = [pool.submit(save_all, run_id) for run_id in runs]
        for future in savers:
            future.result()
        crowd.over.set()
        for future in others:
            future.result()

    assert crowd.problems == []
    assert not Checkpoint.objects.filter(state=CheckpointState.QUARANTINED).exists()
    assert not StoredObject.objects.exclude(broken_at=None).exists()
    for run_id in runs:
        loaded = services.load_latest(run_id=run_id, actor=WORKER)
        assert loaded is not None
        assert loaded.skipped == []
