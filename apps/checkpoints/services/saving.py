"""Saving a run: staged in a moment, stored by a thread beside the training, and known once all of it is durable.

    saver = RunSaver(run_id=..., fencing_token=..., guard=...)
    saver.save(components, epoch=3, step=120, reason=SaveReason.EPOCH)     # training goes on
    saver.flush(required=True)                                            # it must not go on without it

Order of a save: row STAGING -> pack, durable -> manifest, durable -> one transaction with the objects, the references,
the guard and COMMITTED. A crash anywhere leaves the previous checkpoint the latest, and files that nobody finds, which
``garbage`` collects.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.checkpoints import places
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, CheckpointState
from apps.checkpoints.models import Checkpoint, Pack, SaveReason, StoredObject
from apps.checkpoints.selectors import latest_id
from apps.checkpoints.services.rows import add_objects, add_references, row_of
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.index import Place, Saved
from apps.checkpoints.store.manifests import Manifest
from apps.checkpoints.store.saving import Handle, Meta, Saver
from apps.core.actors import Actor
from apps.core.errors import LeaseLost, Unavailable
from apps.core.ids import new_id
from apps.core.queue import enqueue_after_commit

log = structlog.get_logger(__name__)

COPY_TASK = "apps.checkpoints.tasks.copy_checkpoints"


class RunSaver:
    """Saves one run for one holder of its lease.

    ``guard`` runs inside the committing transaction, and raises LeaseLost when the caller has lost the run. Not in the
    ``background``: ``save`` returns when it is stored, or known not to be.
    """

    def __init__(
        self,
        *,
        run_id: UUID,
        workspace_id: UUID,
        fencing_token: int,
        guard: Callable[[], None],
        actor: Actor,
        background: bool = True,
    ) -> None:
        self._rows = RunRows(run_id, workspace_id, guard, actor)
        self._of_run = Meta(run_id=run_id, workspace_id=workspace_id, fencing_token=fencing_token)
        self._saver = Saver(
            places.folder(),
            self._rows,
            on_begin=self._rows.stage,
            on_failure=self._rows.give_up,
            on_end=_close_connection if background else None,
            background=background,
        )
        self._newest: Handle | None = None

    @property
    def coalesced(self) -> int:
        """How many saves were not begun because one was in flight."""
        return self._saver.coalesced

    def save(
        self,
        components: Mapping[str, Any],
        *,
        epoch: int,
        step: int,
        reason: SaveReason,
        metrics: Mapping[str, float] | None = None,
        fingerprint: str = "",
        environment: Mapping[str, Any] | None = None,
        frozen: Collection[int] = (),
        wait: bool = True,
    ) -> Handle | None:
        """Stage a state; it is stored while training goes on. None: one is in flight, and ``wait`` is false.

        ``frozen``: ids of tensors that nobody writes to any more, which need no staging.

        Raises:
            LeaseLost: an earlier save found that the run is lost. UnsupportedState: the state holds something else than
            tensors, arrays and JSON types.
        """
        self._raise_if_lost()
        meta = replace(
            self._of_run,
            id=new_id(),
            created_at=timezone.now().isoformat(),
            parent_id=self._rows.latest,
            epoch=epoch,
            step=step,
            reason=reason.value,
            metrics=metrics or {},
            fingerprint=fingerprint,
            environment=environment or {},
        )
        handle = self._saver.begin(components, meta, frozen=frozen, wait=wait)
        self._newest = handle or self._newest
        return handle

    def flush(self, *, required: bool) -> None:
        """Wait until everything that was staged is stored, or known not to be.

        Raises:
            LeaseLost: the run is lost. Unavailable: it is ``required``, and the newest could not be stored.
        """
        problem: Exception | None = None
        if self._newest is not None:
            try:
                self._newest.wait()
            except Exception as error:  # told already, by ``give_up``
                problem = error
        self._raise_if_lost()
        if required and problem is not None:
            raise Unavailable(f"the checkpoint could not be stored: {problem}", code="storage") from problem

    def close(self) -> None:
        """Wait for what is in flight, and end the thread."""
        self._saver.close()

    def _raise_if_lost(self) -> None:
        if self._rows.lost is not None:
            raise self._rows.lost


class RunRows:
    """``Index`` over the tables, for one holder of a run's lease; called by the thread of the saver."""

    def __init__(self, run_id: UUID, workspace_id: UUID, guard: Callable[[], None], actor: Actor) -> None:
        self._workspace_id = workspace_id
        self._guard = guard
        self._actor = actor
        self._store_id = places.folder().identity
        self.lost: LeaseLost | None = None
        self.latest = latest_id(run_id)

    def find(self, digests: Collection[str]) -> dict[str, Place]:
        """Raises Unavailable: the folder is not there."""
        self._require_folder()
        rows = places.reachable_objects(self._workspace_id, digests, self._store_id)
        gone = self._packs_that_are_gone({row.pack_id for row in rows})
        return {row.digest: places.place_of(row) for row in rows if row.pack_id not in gone}

    def _require_folder(self) -> None:
        """An empty folder where a disk was mounted would take files that nobody finds once it is mounted again."""
        try:
            found = places.folder().read_identity()
        except (OSError, CorruptCheckpoint) as error:
            raise Unavailable(f"the checkpoint folder cannot be used: {error}", code="storage") from error
        if found != self._store_id:
            raise Unavailable(
                f"the checkpoint folder is not the one in which this run began to save ({self._store_id}): is its disk "
                "mounted?",
                code="storage",
            )

    def _packs_that_are_gone(self, packs: Collection[UUID]) -> set[UUID]:
        """Somebody has deleted their files, or put an older folder in its place: their objects are written anew."""
        folder = places.folder()
        only_here = Pack.objects.filter(pk__in=packs, copied_at__isnull=True).values_list("pk", flat=True)
        gone = {pack_id for pack_id in only_here if not folder.has_pack(pack_id)}
        if gone:
            log.warning("checkpoint_packs_gone", packs=sorted(map(str, gone)))
            objects = StoredObject.objects.filter(pack_id__in=gone, pack__copied_at__isnull=True)
            objects.filter(broken_at__isnull=True).update(broken_at=timezone.now())
        return gone

    def stage(self, meta: Meta) -> None:
        """The row by which the files of an interrupted save are found again. Raises Unavailable, DatabaseError."""
        self._require_folder()
        self._stage(meta)

    @transaction.atomic
    def _stage(self, meta: Meta) -> None:
        checkpoint = Checkpoint(
            id=meta.id,
            workspace_id=meta.workspace_id,
            run_id=meta.run_id,
            epoch=meta.epoch,
            step=meta.step,
            fencing_token=meta.fencing_token,
            reason=meta.reason,
            name=f"{meta.run_id}/{meta.step:012d}-{meta.id}",
            store_id=self._store_id,
        )
        checkpoint.full_clean()
        checkpoint.save(force_insert=True)
        audit.record(type="checkpoint.staged", subject=checkpoint, actor=self._actor, after=image(checkpoint))

    def commit(self, saved: Saved) -> None:
        """Make a stored state the run's latest. Raises LeaseLost, MissingObjects, Unavailable, DatabaseError."""
        self._require_files(saved)
        with transaction.atomic():
            self._commit(saved)
        self.latest = saved.manifest.id

    def _require_files(self, saved: Saved) -> None:
        """Raises Unavailable: what was written is not there any more."""
        self._require_folder()
        folder = places.folder()
        there = folder.has_manifest(saved.manifest.id) and all(folder.has_pack(pack.pack_id) for pack in saved.packs)
        if not there:
            raise Unavailable("the files of the checkpoint have gone since they were written", code="storage")

    def _commit(self, saved: Saved) -> None:
        for index in saved.packs:
            pack = Pack.objects.create(
                id=index.pack_id,
                workspace_id=self._workspace_id,
                store_id=self._store_id,
                digest=index.digest,
                size=index.size,
            )
            add_objects(pack, index.entries, self._workspace_id)
        checkpoint = Checkpoint.objects.get(pk=saved.manifest.id)
        add_references(checkpoint, saved.manifest)
        row = row_of(saved.manifest)
        move(
            checkpoint,
            lifecycle=CHECKPOINT_LIFECYCLE,
            to=CheckpointState.COMMITTED,
            event="checkpoint.committed",
            actor=self._actor,
            reason=f"after step {checkpoint.step}",
            changes={
                **{
                    name: getattr(row, name)
                    for name in ("parent_id", "format", "digest", "size", "metrics", "fingerprint")
                },
                "environment": row.environment,
                "components": _sizes(saved),
                "stored_bytes": saved.new_bytes,
                "shared_bytes": saved.shared_bytes,
                "stall_seconds": saved.seconds.get("stall"),
                "save_seconds": saved.seconds.get("total"),
            },
            payload={"run": checkpoint.run_id, "epoch": checkpoint.epoch, "step": checkpoint.step},
        )
        if settings.CHECKPOINT_COPIES:
            enqueue_after_commit(COPY_TASK)
        self._guard()  # last: it locks the lease until the commit, and what the training writes waits for that

    def give_up(self, meta: Meta, error: Exception) -> None:
        """A save failed: training goes on, and people hear of it, as far as the database answers."""
        log.warning("checkpoint_not_saved", run=str(meta.run_id), step=meta.step, error=str(error))
        if isinstance(error, LeaseLost):
            self.lost = error
        try:
            self._abandon(meta, error)
        except (DatabaseError, InterfaceError) as fault:  # the row stays STAGING, and is collected as what a crash left
            log.warning("checkpoint_not_abandoned", checkpoint=str(meta.id), error=str(fault))

    @transaction.atomic
    def _abandon(self, meta: Meta, error: Exception) -> None:
        checkpoint = Checkpoint.objects.filter(pk=meta.id, state=CheckpointState.STAGING).first()
        if checkpoint is not None:
            move(
                checkpoint,
                lifecycle=CHECKPOINT_LIFECYCLE,
                to=CheckpointState.ABANDONED,
                event="checkpoint.transition",
                actor=self._actor,
                reason=str(error),
                payload={"run": meta.run_id, "epoch": meta.epoch, "step": meta.step},
            )
        if not isinstance(error, LeaseLost):
            audit.record(
                type="alert.checkpoint_failed",
                subject=("run", str(meta.run_id)),
                actor=self._actor,
                reason=str(error),
                outcome="failure",
                payload={"checkpoint": meta.id, "step": meta.step},
            )


def _sizes(saved: Saved) -> dict[str, dict[str, int]]:
    """Component -> its tensors, their raw bytes, and those of them that were not stored before."""
    new = {entry.digest for pack in saved.packs for entry in pack.entries}
    return {
        name: {**sizes, "stored": _bytes_in(saved.manifest, name, new)}
        for name, sizes in saved.manifest.sizes().items()
    }


def _bytes_in(manifest: Manifest, component: str, digests: Collection[str]) -> int:
    parts = {part for leaf in manifest.components[component].leaves for part in leaf.parts}
    return sum(length for digest, _, length in parts if digest in digests)


def _close_connection() -> None:
    """The thread of a save leaves no connection open behind it."""
    connection.close()
