"""What people ask of runs: create, pause, resume, stop."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.services import load_core_library
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.queue import enqueue_after_commit
from apps.kernels.models import Kernel
from apps.kernels.services import ensure_kernel, release_kernels
from apps.morphogenesis.contracts import Binding, wanted_bindings
from apps.morphogenesis.protocols import Command
from apps.morphogenesis.settings import RunSettings, SettingsError
from apps.training.lifecycle import FINAL_RUN_STATES, RUN_LIFECYCLE, RunState
from apps.training.models import LibrarySource, RunKind, RunLease, TrainingRun
from apps.training.services.recovery import end_recovery

TRAIN_TASK = "apps.training.tasks.train_segment"
MAX_EPOCHS_OF_EXTERNAL = 1_000_000


@transaction.atomic
def create_run(
    *,
    settings: Mapping[str, Any],
    actor: Actor,
    name: str = "",
    library_source: str = LibrarySource.STARTER,
    wants_control: bool = True,
    workspace: Workspace | None = None,
) -> TrainingRun:
    """Queue a run that our workers train, and the kernels that it may germinate if they do not exist yet.

    Raises:
        Invalid: a setting is unknown or wrong; the pointer names it.
    """
    checked = _checked(settings)
    if library_source not in LibrarySource.values:
        raise Invalid(f"{library_source!r} is not one of: {', '.join(LibrarySource.values)}", pointer="/library_source")
    run = _insert(
        TrainingRun(
            name=name or _default_name(checked.task, checked.host),
            kind=RunKind.INTERNAL,
            task=checked.task,
            host=checked.host,
            seed=checked.seed,
            epochs=checked.epochs,
            settings=checked.to_dict(),
            library_source=library_source,
            wants_control=wants_control and checked.growth.enabled,
            owner_id=actor.id,
            workspace_id=workspace.pk if workspace else default_workspace_id(),
        ),
        actor,
    )
    if checked.growth.enabled:
        ensure_library(settings=checked, actor=actor)
    enqueue_after_commit(TRAIN_TASK, str(run.pk))
    return run


@transaction.atomic
def create_control(*, run: TrainingRun, actor: Actor) -> TrainingRun:
    """Queue the static control of a grown run: the same final topology trained from scratch with the same settings."""
    settings = RunSettings.from_mapping(run.settings).to_dict()
    settings["topology"] = run.result["topology"]
    settings["growth"]["enabled"] = False
    control = _insert(
        TrainingRun(
            name=f"{run.name} (static)"[:120],
            kind=RunKind.CONTROL,
            control_of=run,
            task=run.task,
            host=run.host,
            seed=run.seed,
            epochs=run.epochs,
            settings=settings,
            library=[],
            wants_control=False,
            owner_id=run.owner_id,
            workspace_id=run.workspace_id,
        ),
        actor,
    )
    enqueue_after_commit(TRAIN_TASK, str(control.pk))
    return control


@transaction.atomic
def create_external_run(
    *,
    task: str,
    host: str,
    epochs: int,
    actor: Actor,
    name: str = "",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    workspace: Workspace | None = None,
) -> TrainingRun:
    """Register a run that a client trains in a loop of its own, under the same lease and fencing as our workers.

    Raises:
        Invalid / ValidationError: a field is missing, too long or out of range.
    """
    if not 1 <= epochs <= MAX_EPOCHS_OF_EXTERNAL:
        raise Invalid(f"must be from 1 to {MAX_EPOCHS_OF_EXTERNAL}", pointer="/epochs", code="range")
    return _insert(
        TrainingRun(
            name=name or _default_name(task, host),
            kind=RunKind.EXTERNAL,
            task=task,
            host=host,
            seed=seed,
            epochs=epochs,
            settings=dict(settings or {}),
            library=[],
            wants_control=False,
            owner_id=actor.id,
            workspace_id=workspace.pk if workspace else default_workspace_id(),
        ),
        actor,
    )


def _checked(settings: Mapping[str, Any]) -> RunSettings:
    try:
        return RunSettings.from_mapping(settings)
    except SettingsError as error:
        raise Invalid(str(error), code=error.code, pointer=f"/settings{error.pointer}") from error


def _default_name(task: str, host: str) -> str:
    return f"{task} {host} {timezone.now():%Y-%m-%d %H:%M:%S}"


def _insert(run: TrainingRun, actor: Actor) -> TrainingRun:
    run.full_clean()
    run.save(force_insert=True)
    RunLease.objects.create(run=run)
    audit.record(type="run.created", subject=run, actor=actor, after=image(run))
    return run


def ensure_library(*, settings: RunSettings, actor: Actor) -> list[Kernel]:
    """Every core kernel that a run with these settings can germinate, registered for compilation if it is new."""
    versions = load_core_library(actor=actor)
    return [
        ensure_kernel(version=version, bindings=binding.symbols, actor=actor)
        for binding in wanted_bindings(settings)
        for version in versions
        if _fits(version, binding)
    ]


def _fits(version: BlueprintVersion, binding: Binding) -> bool:
    tags = version.blueprint.tags
    return version.operator == binding.operator and tags.get("layer") == binding.layer


@transaction.atomic
def pause_run(*, run: TrainingRun, actor: Actor, reason: str = "") -> TrainingRun:
    """Ask a running run to pause at its next step boundary.

    Raises:
        Conflict: the run is not running.
    """
    run = _locked(run)
    if run.state not in {RunState.RUNNING, RunState.PAUSED}:
        raise Conflict(f"the run is {run.state}: only a running run can be paused", code="not_running")
    return _command(run, Command.PAUSE, actor, reason)


@transaction.atomic
def resume_run(*, run: TrainingRun, actor: Actor, reason: str = "") -> TrainingRun:
    """Let a paused (or pausing) run go on from where it stood.

    Raises:
        Conflict: the run is neither.
    """
    run = _locked(run)
    if run.state != RunState.PAUSED and not (run.state == RunState.RUNNING and run.command == Command.PAUSE):
        raise Conflict(f"the run is {run.state}: only a paused run can be resumed", code="not_paused")
    run = _command(run, Command.CONTINUE, actor, reason)
    if run.kind != RunKind.EXTERNAL:
        enqueue_after_commit(TRAIN_TASK, str(run.pk))
    return run


@transaction.atomic
def stop_run(*, run: TrainingRun, actor: Actor, reason: str = "") -> TrainingRun:
    """End a run for good: at its next step boundary if it runs, at once if it does not.

    Raises:
        Conflict: the run has ended already.
    """
    run = _locked(run)
    if run.state in FINAL_RUN_STATES:
        raise Conflict(f"the run is {run.state} already", code="ended")
    run = _command(run, Command.STOP, actor, reason)
    if run.state == RunState.RUNNING:
        return run
    return move_run(run=run, to=RunState.CANCELLED, actor=actor, reason=reason or "stopped")


def _locked(run: TrainingRun) -> TrainingRun:
    return TrainingRun.objects.select_for_update(of=("self",)).get(pk=run.pk)


def _command(run: TrainingRun, command: Command, actor: Actor, reason: str) -> TrainingRun:
    if run.command == command:
        return run
    before = image(run)
    run.command = command
    run.save(update_fields={"command"})
    audit.record(type="run.command", subject=run, actor=actor, reason=reason, before=before, after=image(run))
    return run


@transaction.atomic
def move_run(
    *,
    run: TrainingRun,
    to: RunState,
    actor: Actor,
    reason: str,
    payload: Mapping[str, Any] | None = None,
    **changes: Any,
) -> TrainingRun:
    """Move a run along its life cycle, with its times and its hold on kernels.

    Raises:
        InvalidTransition: the table has no such move.
    """
    if to == RunState.RUNNING and run.started_at is None:
        changes["started_at"] = timezone.now()
    if to in FINAL_RUN_STATES:
        changes["ended_at"] = timezone.now()
        release_kernels(run_id=run.pk)
    moved = move(
        run,
        lifecycle=RUN_LIFECYCLE,
        to=to,
        event="run.transition",
        actor=actor,
        reason=reason,
        changes=changes,
        payload=payload,
    )
    if to in FINAL_RUN_STATES or to == RunState.PAUSED:
        end_recovery(run=moved, to=to, actor=actor, reason=reason)
    return moved
