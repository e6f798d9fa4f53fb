"""Runs that a client trains in a loop of its own: the same lease, fencing and journal, by API instead of a worker."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.morphogenesis.protocols import DecisionRecord, EpochRecord
from apps.training.lifecycle import FINAL_RUN_STATES, RunState
from apps.training.models import RunKind, RunLease, TrainingRun
from apps.training.services.journal import record_decision, record_epoch
from apps.training.services.leases import claim_run, extend_lease, finish_run, mark_progress

MAX_EVENTS = 500
MAX_NUMBER = 2**63
NUMBERS_OF_A_RESULT = ("test_accuracy", "validation_accuracy", "parameters_start", "parameters", "train_flops")
FINISHES = {RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.PAUSED}


def external_heartbeat(*, run: TrainingRun, holder: str, fencing_token: int | None, actor: Actor) -> RunLease:
    """Without a token: take the run (also one that was lost or resumed). With one: a sign of life.

    The lease tells when it expires, and ``lease.run.command`` what the run has been asked to do.

    Raises:
        LeaseLost: the token is out of date. Conflict: the run cannot be taken now, or is not an external one.
    """
    _require_external(run)
    if fencing_token is None:
        if claim_run(run_id=run.pk, holder=holder, actor=actor) is None:
            raise Conflict(f"the run is {run.state} and cannot be taken now", code="not_claimable")
    else:
        extend_lease(run_id=run.pk, fencing_token=fencing_token)
    return RunLease.objects.select_related("run").get(run=run)


def external_events(*, run: TrainingRun, fencing_token: int, events: Iterable[Mapping[str, Any]], actor: Actor) -> int:
    """Store a batch of events in their order, all or none; returns the newest sequence stored.

    Each is ``{"type": "epoch" | "decision", "sequence": n, ...}`` with the fields of the engine's records.

    Raises:
        Invalid: an event is malformed; the pointer names it. LeaseLost: the token is out of date.
    """
    _require_external(run)
    batch = list(events)
    if len(batch) > MAX_EVENTS:
        raise Invalid(f"at most {MAX_EVENTS} events at once, not {len(batch)}", pointer="/events", code="too_many")
    with transaction.atomic():
        known = run.last_sequence
        for index, event in enumerate(batch):
            _check_epoch(run, event, f"/events/{index}/epoch")
            _store(run.pk, fencing_token, event, f"/events/{index}", actor)
        run.refresh_from_db(fields=["last_sequence"])
        if run.last_sequence > known:
            mark_progress(run_id=run.pk, fencing_token=fencing_token)
    return run.last_sequence


def _check_epoch(run: TrainingRun, event: Mapping[str, Any], pointer: str) -> None:
    epoch = event.get("epoch")
    if isinstance(epoch, int) and epoch > run.epochs:
        raise Invalid(f"the run has {run.epochs} epochs, not {epoch}", pointer=pointer, code="range")


def _check_result(result: Mapping[str, Any]) -> None:
    """What the pages compute with is a number of a sane size; everything else is the client's own."""
    for name in NUMBERS_OF_A_RESULT:
        value = result.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_NUMBER:
            raise Invalid("must be a number", pointer=f"/result/{name}", code="type")


def _store(run_id: UUID, fencing_token: int, event: Mapping[str, Any], pointer: str, actor: Actor) -> None:
    values = dict(event)
    kind = values.pop("type", None)
    if kind == "epoch":
        record_epoch(run_id=run_id, fencing_token=fencing_token, record=_parse(EpochRecord, values, pointer))
    elif kind == "decision":
        decision = _parse(DecisionRecord, values, pointer)
        record_decision(run_id=run_id, fencing_token=fencing_token, record=decision, actor=actor)
    else:
        raise Invalid(f"{kind!r} is not one of: epoch, decision", pointer=f"{pointer}/type", code="unknown")


def _parse(kind: type[Any], values: Mapping[str, Any], pointer: str) -> Any:
    known = {field.name: field for field in fields(kind)}
    for name in values:
        if name not in known:
            raise Invalid(f"unknown field; known: {', '.join(known)}", pointer=f"{pointer}/{name}", code="unknown")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise Invalid("is required", pointer=f"{pointer}/{name}", code="required")
    return kind(**values)


def external_finish(
    *,
    run: TrainingRun,
    fencing_token: int,
    state: str,
    actor: Actor,
    result: Mapping[str, Any] | None = None,
    failure: str = "",
) -> TrainingRun:
    """The client is done with the run (or pauses it).

    Raises:
        Invalid: not a state that a run can finish in. LeaseLost: the token is out of date.
    """
    _require_external(run)
    if state not in FINISHES:
        raise Invalid(f"{state!r} is not one of: {', '.join(sorted(FINISHES))}", pointer="/state", code="unknown")
    _check_result(result or {})
    return finish_run(
        run_id=run.pk,
        fencing_token=fencing_token,
        state=RunState(state),
        reason="reported by the client",
        result=result,
        failure=failure,
        actor=actor,
    )


def _require_external(run: TrainingRun) -> None:
    if run.kind != RunKind.EXTERNAL:
        raise Conflict("only external runs are driven by a client", code="not_external")
    if run.state in FINAL_RUN_STATES:
        raise Conflict(f"the run is {run.state} already", code="ended")
