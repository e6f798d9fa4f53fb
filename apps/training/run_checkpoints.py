"""The engine's ``CheckpointSink`` over the platform's checkpoints: when a run saves, and how it comes back.

Three threads meet here. The trainer saves and asks ``due``; the saver's own thread stores; the control thread calls
``tend`` a few times a second: it tells those who asked for a save what became of it, and looks the policy up again.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import structlog
from django.db import DatabaseError, transaction

from apps.checkpoints.lifecycle import JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind, SaveReason
from apps.checkpoints.selectors import policy_of
from apps.checkpoints.services import jobs
from apps.checkpoints.services.loading import Loaded, load_latest, quarantine
from apps.checkpoints.services.saving import RunSaver
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.saving import Handle
from apps.core.actors import WORKER
from apps.core.errors import InvalidTransition, LeaseLost, Unavailable
from apps.morphogenesis.protocols import Restored, RunInterrupted, Snapshot
from apps.training import services
from apps.training.models import TrainingRun
from apps.training.schedule import SaveSchedule
from apps.training.selectors import recovery_under_way
from apps.training.urza import library_state

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 10.0
"""How often the policy and the state of the library are looked up."""
RETRY_SECONDS = 10.0
"""After a failed save: how long the next one waits, so that a full disk is not asked at every step."""


@dataclass
class _Save:
    """One save on its way, and who waits for it."""

    handle: Handle
    step: int
    jobs: list[CheckpointJob] = field(default_factory=list)


class RunCheckpoints:
    """Checkpoints of one run, for one holder of its lease."""

    def __init__(
        self,
        run: TrainingRun,
        fencing_token: int,
        holder: str,
        environment: Mapping[str, Any],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises Unavailable: the checkpoint folder cannot be reached."""
        self._clock = clock
        self._run = run
        self._token = fencing_token
        self._holder = holder
        self._environment = dict(environment)
        self._recovery = recovery_under_way(run.pk)
        self._schedule = SaveSchedule(policy_of(run_id=run.pk, workspace_id=run.workspace_id), clock)
        self._urza = library_state(run.pk)
        self._refreshed = self._clock()
        self._loaded: Loaded | None = None
        self._skipped: list[dict[str, Any]] = []
        self._restored_at: float | None = None
        self._saves: list[_Save] = []
        self._lock = threading.Lock()
        self._failed_at: float | None = None
        self._lost = ""
        self.wanted = False
        """Has somebody asked for a save? Set by the control thread."""
        try:
            self._saver = RunSaver(
                run_id=run.pk,
                workspace_id=run.workspace.pk,
                fencing_token=fencing_token,
                guard=lambda: services.mark_progress(run_id=run.pk, fencing_token=fencing_token),
                actor=WORKER,
            )
        except (OSError, CorruptCheckpoint) as error:
            raise Unavailable(f"the checkpoint folder cannot be used: {error}", code="storage") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._saver.close()
        self.tend()

    # Coming back

    def load(self) -> int:
        """Read the newest good checkpoint, ready for ``latest``; the epochs that it has, 0 without one.

        Raises:
            Unavailable: the storage does not answer.
        """
        self._loaded = load_latest(run_id=self._run.pk, actor=WORKER, preferred=self._run.resume_from)
        if self._loaded is None:
            return 0
        self._skipped += self._loaded.skipped
        self._note(load_seconds=self._loaded.load_seconds)
        return self._loaded.manifest.epoch

    def latest(self) -> Snapshot | None:
        if self._loaded is None:
            return None
        manifest = self._loaded.manifest
        return Snapshot(
            epoch=manifest.epoch,
            step=manifest.step,
            components=self._loaded.components,
            metrics=manifest.metrics,
            fingerprint=manifest.fingerprint,
        )

    def restored(self, restored: Restored) -> bool:
        """In the environment of the save the network must compute the same; elsewhere the difference is only told."""
        assert self._loaded is not None
        checkpoint, same_place = self._loaded.checkpoint, self._loaded.manifest.environment == self._environment
        is_same = restored.fingerprint == restored.snapshot.fingerprint
        report = {
            "fingerprint": "same" if is_same else "different",
            "environment": "same" if same_place else "different",
            "differences": restored.differences,
        }
        self._note(report=report, restore_seconds=restored.restore_seconds, validate_seconds=restored.validate_seconds)
        if is_same or not same_place:
            if not is_same:
                log.warning("fingerprint_not_compared", run=str(self._run.pk), environment=self._environment)
            self._restored_at = self._clock()
            return True
        problem = "the restored network does not compute what it did when it was saved"
        quarantine(checkpoint=checkpoint, problem=problem, actor=WORKER)
        self._skipped.append({"checkpoint": str(checkpoint.pk), "step": checkpoint.step, "problem": problem})
        self.load()
        return False

    def resumed(self) -> None:
        """The first step is done, or there is none left: the run is back."""
        if self._recovery is None:
            return
        self._recovery = None
        seconds = None if self._restored_at is None else self._clock() - self._restored_at
        try:
            with transaction.atomic():
                services.verify_lease(run_id=self._run.pk, fencing_token=self._token)
                services.resume_recovery(
                    run_id=self._run.pk,
                    holder=self._holder,
                    fencing_token=self._token,
                    checkpoint_id=self._loaded.checkpoint.pk if self._loaded else None,
                    skipped=self._skipped,
                    resume_seconds=seconds,
                )
        except LeaseLost as error:
            raise RunInterrupted(str(error)) from error

    def _note(self, **figures: Any) -> None:
        if self._recovery is not None:
            services.note_recovery(recovery=self._recovery, **figures)

    # Saving

    def due(self) -> str:
        self._check_lost()
        if self._recovery is not None:
            self.resumed()
        self._loaded = None  # its tensors are in the network by now
        storing = self._is_storing
        self._schedule.note_step(storing=storing)
        if storing or self._is_resting:
            return ""
        if self.wanted:
            return SaveReason.DEMAND.value
        return SaveReason.INTERVAL.value if self._schedule.is_due else ""

    def save(self, snapshot: Snapshot, reason: str) -> bool:
        self._check_lost()
        began = self._clock()
        at_end = reason == SaveReason.END
        if self._is_resting:
            if snapshot.epoch < self._run.epochs:
                return False
            time.sleep(RETRY_SECONDS)  # the run is over: nothing is held up, and there is no later
        # Who asks while another save is being stored waits for the next one: training waits for nobody's disk.
        asked = self._take_jobs() if at_end or not self._is_storing else []
        try:
            handle = self._saver.save(
                {**snapshot.components, "urza": self._urza},
                epoch=snapshot.epoch,
                step=snapshot.step,
                reason=SaveReason(reason),
                metrics=snapshot.metrics,
                fingerprint=snapshot.fingerprint,
                environment=self._environment,
                frozen=snapshot.frozen,
                wait=at_end or bool(asked),
            )
        except LeaseLost as error:
            raise RunInterrupted(str(error)) from error
        if handle is None:
            return False
        self._schedule.note_save(began)
        with self._lock:
            self._saves.append(_Save(handle, snapshot.step, asked))
        return True

    def settle(self) -> bool:
        if self._is_resting:
            return False
        try:
            self.flush()
        except Unavailable:  # told by the saver: alert, audit event, log
            return False
        return True

    def flush(self) -> None:
        """Wait until the newest save is durable.

        Raises:
            Unavailable: it could not be stored. RunInterrupted: the run is lost.
        """
        try:
            self._saver.flush(required=True)
        except LeaseLost as error:
            raise RunInterrupted(str(error)) from error
        finally:
            self.tend()

    def _check_lost(self) -> None:
        """Raises RunInterrupted: a save found that the run is another worker's."""
        if self._lost:
            raise RunInterrupted(self._lost)

    @property
    def _is_storing(self) -> bool:
        saves = self._saves  # another thread puts a new list there
        return bool(saves) and not saves[-1].handle.done()

    @property
    def _is_resting(self) -> bool:
        """Has a save just failed?"""
        return self._failed_at is not None and self._clock() - self._failed_at < RETRY_SECONDS

    # What the control thread does

    def tend(self) -> None:
        """Tell who asked for a save what became of it; now and then look up what may have changed."""
        with self._lock:
            over = [save for save in self._saves if save.handle.done()]
            self._saves = [save for save in self._saves if save not in over]
        for save in over:
            self._tell(save)
        if self._clock() - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = self._clock()
            self._schedule.policy = policy_of(run_id=self._run.pk, workspace_id=self._run.workspace_id)
            self._urza = library_state(self._run.pk)

    def _tell(self, save: _Save) -> None:
        try:
            saved = save.handle.wait()
        except Exception as error:  # told in full by the saver: alert, audit event, log
            self._failed_at = self._clock()
            self._schedule.note_failure()
            self._lost = str(error) if isinstance(error, LeaseLost) else ""
            for job in save.jobs:
                jobs.fail_job(job, f"the checkpoint could not be stored: {error}")
            return
        self._failed_at = None
        for job in save.jobs:
            checkpoint = Checkpoint.objects.get(pk=saved.manifest.id)
            jobs.finish_job(job, checkpoint=checkpoint, result={"step": save.step})

    def _take_jobs(self) -> list[CheckpointJob]:
        """Those who asked for a save, from now on served by this one."""
        if not self.wanted:
            return []
        self.wanted = False
        taken = []
        try:
            for job in pending_saves(self._run.pk):
                try:
                    taken.append(jobs.start_job(job))
                except InvalidTransition:  # given up in this moment
                    continue
        except DatabaseError as error:  # they stay pending: the next save serves them
            log.warning("save_requests_unread", run=str(self._run.pk), error=str(error))
        return taken


def pending_saves(run_id: UUID) -> list[CheckpointJob]:
    """Saves of the run that somebody asked for and nobody has begun."""
    waiting = CheckpointJob.objects.filter(run_id=run_id, kind=JobKind.CREATE, state=JobState.PENDING)
    return list(waiting.order_by("id"))
