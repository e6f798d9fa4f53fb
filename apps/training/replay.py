"""Training again without telling anybody: a run brought to any step it has trained, and a checkpoint tried out.

Nothing that a run is known by is written: no journal, no metrics, no lease. A run is a function of its settings and its
library, so what is trained again is what was trained, bit for bit, on the same machine.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from django.conf import settings as site_settings

from apps.checkpoints.models import Checkpoint, SaveReason
from apps.checkpoints.services.loading import Loaded, load, quarantine
from apps.checkpoints.services.saving import RunSaver
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.core.actors import WORKER
from apps.core.errors import Conflict
from apps.morphogenesis.library import EventList
from apps.morphogenesis.protocols import COMPONENTS, Command, Restored, RunFailed, Snapshot
from apps.morphogenesis.session import Session
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.trainer import Trainer, deterministic
from apps.training.models import TrainingRun
from apps.training.runner import FrozenLibrary, environment
from apps.training.selectors import base_of

Progress = Callable[[int, int], None]
CPU = torch.device("cpu")


class ReplayControl:
    """``Control``: lets the run go on, and tells how far it is; ``progress`` raises once nobody wants it any more."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress = progress
        self._steps = steps
        self._done = 0

    def poll(self) -> Command:
        self._progress(min(self._done, self._steps), self._steps)
        self._done += 1
        return Command.CONTINUE


class OneSave:
    """``CheckpointSink``: gives one snapshot, and keeps the one at which the replay ends until it has been stored."""

    def __init__(self, loaded: Loaded, step: int, saver: RunSaver) -> None:
        self._loaded = loaded
        self._step = step
        self._saver = saver
        self.saved: str | None = None

    def due(self) -> str:
        return ""

    def save(self, snapshot: Snapshot, reason: str) -> bool:
        if snapshot.step != self._step:
            return True
        handle = self._saver.save(
            snapshot.components,
            epoch=snapshot.epoch,
            step=snapshot.step,
            reason=SaveReason.REPLAY,
            metrics=snapshot.metrics,
            fingerprint=snapshot.fingerprint,
            environment=environment(),
            frozen=snapshot.frozen,
        )
        assert handle is not None
        self._saver.flush(required=True)
        self.saved = str(handle.wait().manifest.id)
        return True

    def settle(self) -> bool:
        return True

    def latest(self) -> Snapshot:
        return snapshot_of(self._loaded)

    def restored(self, restored: Restored) -> bool:
        if restored.fingerprint != restored.snapshot.fingerprint and self._loaded.manifest.environment == environment():
            raise Conflict("the restored network does not compute what it did when it was saved", code="fingerprint")
        return True


def snapshot_of(loaded: Loaded) -> Snapshot:
    """What the engine goes on from."""
    manifest = loaded.manifest
    return Snapshot(
        epoch=manifest.epoch,
        step=manifest.step,
        components=loaded.components,
        metrics=manifest.metrics,
        fingerprint=manifest.fingerprint,
    )


def replay(*, run: TrainingRun, step: int, progress: Progress) -> Mapping[str, Any]:
    """Train the run again from the newest good checkpoint until ``step``, and save it there.

    Returns the checkpoint (one that is there already is the answer), the one it went from, and the weights' digest.

    Raises:
        Conflict: no good checkpoint is left before the step, or what was restored does not compute what it did.
        Unavailable: a storage does not answer.
    """
    torch.set_num_threads(site_settings.TORCH_THREADS)
    loaded = _load_before(run, step)
    saver = RunSaver(
        run_id=run.pk,
        workspace_id=run.workspace.pk,
        fencing_token=run.lease.fencing_token,
        guard=lambda: None,  # it does not advance the run: whoever holds it need not be asked
        actor=WORKER,
    )
    events = EventList()
    sink = OneSave(loaded, step, saver)
    trainer = Trainer(
        settings=RunSettings.from_mapping(run.settings),
        kernels=FrozenLibrary(run.library or []),
        checkpoints=sink,
        telemetry=events,
        decisions=events,
        control=ReplayControl(progress, step - loaded.checkpoint.step),
    )
    try:
        outcome = trainer.run(until_step=step)
    except RunFailed as error:
        raise Conflict(f"it cannot be trained until there: {error}", code="run_failed") from error
    finally:
        saver.close()
    if outcome.step != step:
        raise Conflict(f"the run ends after {outcome.step} steps", code="run_is_shorter")
    progress(step - loaded.checkpoint.step, step - loaded.checkpoint.step)
    return {
        "checkpoint": sink.saved or str(loaded.checkpoint.pk),
        "from": str(loaded.checkpoint.pk),
        "step": step,
        "weights_digest": trainer.weights_digest,
    }


def _load_before(run: TrainingRun, step: int) -> Loaded:
    while (base := base_of(run, step)) is not None:
        try:
            return load(checkpoint=base)
        except CorruptCheckpoint as error:
            quarantine(checkpoint=base, problem=str(error), actor=WORKER)
    raise Conflict(f"no good checkpoint is left at or before step {step}", code="no_base")


def rehearse(*, run: TrainingRun, checkpoint: Checkpoint, components: Collection[str] | None) -> dict[str, Any]:
    """Put a checkpoint (or some components of it) into a fresh network, and tell what came of it; the run stays.

    Raises:
        Conflict: it cannot be restored.
    """
    torch.set_num_threads(site_settings.TORCH_THREADS)
    chosen = [name for name in COMPONENTS if components is None or name in components]
    loaded = load(checkpoint=checkpoint, components=chosen)
    with deterministic(run.seed, CPU):
        events = EventList()
        session = Session(
            RunSettings.from_mapping(run.settings),
            kernels=FrozenLibrary(run.library or []),
            decisions=events,
            telemetry=events,
            device=CPU,
        )
        try:
            differences = session.resume(snapshot_of(loaded), chosen)
        except RunFailed as error:
            raise Conflict(f"it cannot be restored: {error}", code="run_failed") from error
        whole = {"tolaria", "kasmina"} <= set(chosen)
        is_same = session.fingerprint() == loaded.manifest.fingerprint
    same_place = loaded.manifest.environment == environment()
    return {
        "components": chosen,
        "differences": differences,
        "fingerprint": ("same" if is_same else "different") if whole else "not compared",
        "environment": "same" if same_place else "different",
        "load_seconds": loaded.load_seconds,
    }
