"""Joins the engine to the platform: kernels, checkpoints, journal and remote control of one run in one worker process.

The only gateway from the platform to the trainer. Imported by the train worker's forked child, never by the web.
"""

import contextlib
import platform
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
import torch
from blake3 import blake3
from django.conf import settings as site_settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from apps import morphogenesis
from apps.core.actors import WORKER
from apps.core.errors import Conflict, InvalidTransition, LeaseLost, NotFound, Unavailable
from apps.kernels.cache import CorruptKernel, KernelStore
from apps.kernels.models import Kernel
from apps.kernels.services import quarantine_kernel
from apps.morphogenesis.protocols import (
    Command,
    DecisionRecord,
    EpochRecord,
    GraftOutcome,
    KernelOffer,
    KernelUnavailable,
    RunFailed,
    RunInterrupted,
    TransitionRecord,
)
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.trainer import ENDS, Outcome, RunResult, Trainer
from apps.observability.run_readings import RunReadings
from apps.training import selectors, services
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from apps.training.run_checkpoints import RunCheckpoints

log = structlog.get_logger(__name__)

COMMAND_SECONDS = 0.25
"""How often the control thread looks for a command: pause and stop take effect within one second."""
LIBRARY_RETRY_SECONDS = 1.0

SETTLED = {
    "COMPLETED": (RunState.COMPLETED, "all epochs trained"),
    "PAUSED": (RunState.PAUSED, "paused at a step boundary"),
    "STOPPED": (RunState.CANCELLED, "stopped at a step boundary"),
}
"""How a trainer's end leaves the run, and what the audit trail says of it."""


class FrozenLibrary:
    """``KernelSource`` over the run's library snapshot and the kernel store."""

    def __init__(self, offers: Sequence[Mapping[str, Any]]) -> None:
        self._offers = [
            KernelOffer(
                **{
                    **offer,
                    "input_shape": tuple(offer["input_shape"]),
                    "output_shape": tuple(offer["output_shape"]),
                }
            )
            for offer in offers
        ]

    def offers(self) -> Sequence[KernelOffer]:
        return self._offers

    def load(self, digest: str) -> bytes:
        try:
            return KernelStore().get(digest)
        except (NotFound, Conflict) as error:  # gone, or archived
            raise KernelUnavailable(str(error)) from error
        except CorruptKernel as error:
            for kernel in Kernel.objects.filter(digest=digest):
                with contextlib.suppress(InvalidTransition):  # quarantined before, or another worker was faster
                    quarantine_kernel(kernel=kernel, reason=str(error), actor=WORKER)
            raise KernelUnavailable(str(error)) from error


class RunJournal:
    """``TelemetrySink`` and ``DecisionLog``: each record is a fenced transaction, a reading only leaves its value."""

    def __init__(self, run_id: UUID, fencing_token: int, readings: RunReadings) -> None:
        self._run_id = run_id
        self._token = fencing_token
        self.reading = readings.record

    def epoch(self, record: EpochRecord) -> None:
        self._write(services.record_epoch, record)

    def decision(self, record: DecisionRecord) -> None:
        self._write(services.record_decision, record)

    def transition(self, record: TransitionRecord) -> None:
        self._write(services.record_transition, record)

    def outcome(self, record: GraftOutcome) -> None:
        self._write(services.record_outcome, record)

    def _write(self, service: Any, record: Any) -> None:
        try:
            service(run_id=self._run_id, fencing_token=self._token, record=record)
        except LeaseLost as error:
            raise RunInterrupted(str(error)) from error


class RemoteControl:
    """``Control``: a thread keeps the lease alive and listens, for commands and for saves that people ask for.

    ``poll`` reads one attribute.
    """

    def __init__(self, run_id: UUID, fencing_token: int, store: RunCheckpoints) -> None:
        self._run_id = run_id
        self._token = fencing_token
        self._store = store
        self._command = Command.CONTINUE
        self._lost = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._listen, name=f"lease-{run_id}", daemon=True)

    def __enter__(self) -> "RemoteControl":
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def poll(self) -> Command:
        if self._lost:
            raise RunInterrupted(self._lost)
        return self._command

    def _listen(self) -> None:
        heard = time.monotonic()
        while not self._done.wait(COMMAND_SECONDS):
            try:
                self._listen_once(time.monotonic() - heard >= site_settings.HEARTBEAT_SECONDS)
            except LeaseLost as error:
                self._lost = str(error)
                break
            except (DatabaseError, InterfaceError) as error:
                # Without a heartbeat the lease runs out, and somebody else may take the run: stop before that.
                log.warning("heartbeat_failed", run=str(self._run_id), error=str(error))
                close_old_connections()
                if time.monotonic() - heard > site_settings.LEASE_SECONDS:
                    self._lost = "the database has been away for longer than the lease"
                    break
                continue
            if time.monotonic() - heard >= site_settings.HEARTBEAT_SECONDS:
                heard = time.monotonic()
        connection.close()

    def _listen_once(self, beat: bool) -> None:
        if beat:
            self._beat()
        else:
            command, self._store.wanted = selectors.wishes_of(self._run_id)
            self._command = Command(command)
        self._store.tend()

    def _beat(self) -> None:
        self._command = Command(services.extend_lease(run_id=self._run_id, fencing_token=self._token))


def environment() -> dict[str, Any]:
    """What bit-exactness depends on besides the settings: the same values on one machine give the same digests."""
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "processor": _processor(),
        "python": platform.python_version(),
        "engine": engine(),
    }


@cache
def engine() -> str:
    """Which engine it is, by its source: another version may compute other bits, and that breaks no checkpoint."""
    found = blake3()
    for path in sorted(Path(morphogenesis.__path__[0]).rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


@cache
def _processor() -> str:
    """The processor's name: two makes choose other instructions for the same product, and get other bits."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def train_segment(*, run_id: UUID, holder: str) -> None:
    """Claim a run and train it for one segment. A run that needs nobody (a redelivered message) is left alone."""
    claimed = services.claim_run(run_id=run_id, holder=holder)
    if claimed is None:
        log.info("run_needs_nobody", run=str(run_id))
        return
    run, token = claimed
    try:
        _train_claimed(run, token, holder)
    except (RunInterrupted, LeaseLost) as error:
        log.warning("run_interrupted", run=str(run_id), reason=str(error))


def _train_claimed(run: TrainingRun, token: int, holder: str) -> None:
    if run.command != Command.CONTINUE:  # asked for while the run waited between two segments
        _settle(run.pk, token, ENDS[Command(run.command)])
        return
    try:
        library = services.freeze_library(run=run, fencing_token=token)
    except Unavailable as error:
        _fail(run.pk, token, error.detail)
        return
    if library is None:
        services.hand_over(run_id=run.pk, fencing_token=token, countdown=LIBRARY_RETRY_SECONDS)
        return
    try:
        outcome = _train(run, token, holder, library)
    except (RunInterrupted, LeaseLost):
        raise
    except (DatabaseError, InterfaceError, Unavailable) as error:
        log.error("run_fault", run=str(run.pk), error=str(error))
        close_old_connections()
        with contextlib.suppress(DatabaseError, InterfaceError):  # still away: the lease runs out by itself
            services.give_up_lease(run_id=run.pk, fencing_token=token, why=str(error))
    except RunFailed as error:
        _fail(run.pk, token, str(error))
    except Exception as error:
        log.exception("run_failed", run=str(run.pk))
        _fail(run.pk, token, f"{type(error).__name__}: {error}")
    else:
        _settle(run.pk, token, outcome.state, outcome.result)


def _fail(run_id: UUID, token: int, failure: str) -> None:
    services.finish_run(
        run_id=run_id, fencing_token=token, state=RunState.FAILED, reason=failure[:500], failure=failure
    )


def _train(run: TrainingRun, token: int, holder: str, library: Sequence[Mapping[str, Any]]) -> Outcome:
    torch.set_num_threads(site_settings.TORCH_THREADS)
    _note_environment(run)
    with (
        RunCheckpoints(run, token, holder, environment()) as store,
        RemoteControl(run.pk, token, store) as control,
        RunReadings(run.pk, run.workspace_id) as readings,
    ):
        journal = RunJournal(run.pk, token, readings)
        until = store.load() + site_settings.SEGMENT_EPOCHS
        trainer = Trainer(
            settings=RunSettings.from_mapping(run.settings),
            kernels=FrozenLibrary(library),
            checkpoints=store,
            telemetry=journal,
            decisions=journal,
            control=control,
        )
        outcome = trainer.run(until_epoch=until)
        store.resumed()
        if outcome.state != "STOPPED":  # what is stopped for good may be lost; nothing else may
            store.flush()
        return outcome


def _note_environment(run: TrainingRun) -> None:
    now = environment()
    if not run.environment:
        TrainingRun.objects.filter(pk=run.pk).update(environment=now)
    elif run.environment != now:
        log.warning("environment_changed", run=str(run.pk), before=run.environment, now=now)


def _settle(run_id: UUID, token: int, end: str, result: RunResult | None = None) -> None:
    if end == "SEGMENT_END":
        services.hand_over(run_id=run_id, fencing_token=token)
        return
    state, reason = SETTLED[end]
    values = asdict(result) if result is not None else None
    services.finish_run(run_id=run_id, fencing_token=token, state=state, reason=reason, result=values)
