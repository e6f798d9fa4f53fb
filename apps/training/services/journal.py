"""What the engine reports, written as it falls. Each write is one transaction that checks the fencing token.

A run that resumed from a snapshot repeats the events after it; a sequence that is stored already is ignored.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import WORKER, Actor
from apps.kernels.models import Kernel
from apps.kernels.services import record_field_report
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action, DecisionRecord, EpochRecord, GraftOutcome, TransitionRecord
from apps.training.lifecycle import SEED_LIFECYCLE
from apps.training.models import Decision, EpochMetric, Seed, SeedSlot, SeedTransition, TrainingRun
from apps.training.services.leases import verify_lease

ENDED = frozenset({SeedState.FOSSILIZED, SeedState.CULLED, SeedState.CANCELLED, SeedState.ROLLED_BACK})


@contextmanager
def _entry(run_id: UUID, fencing_token: int, sequence: int) -> Iterator[TrainingRun | None]:
    """The run, with its lease locked; None when this sequence is stored already.

    Raises:
        LeaseLost: the caller does not own the run any more.
    """
    with transaction.atomic():
        run = verify_lease(run_id=run_id, fencing_token=fencing_token).run
        if sequence <= run.last_sequence:
            yield None
            return
        yield run
        TrainingRun.objects.filter(pk=run_id).update(last_sequence=sequence)


def record_epoch(*, run_id: UUID, fencing_token: int, record: EpochRecord) -> None:
    """The measurements of one epoch (metrics, not audited one by one)."""
    with _entry(run_id, fencing_token, record.sequence) as run:
        if run is None:
            return
        values = asdict(record)
        values.pop("sequence")
        EpochMetric.objects.update_or_create(run=run, epoch=values.pop("epoch"), defaults=values)


def record_decision(*, run_id: UUID, fencing_token: int, record: DecisionRecord, actor: Actor = WORKER) -> None:
    """One decision of the policy, with what it saw and what it refused."""
    with _entry(run_id, fencing_token, record.sequence) as run:
        if run is None:
            return
        Decision.objects.create(
            run=run,
            sequence=record.sequence,
            epoch=record.epoch,
            step=record.step,
            action=record.action,
            rule=record.rule,
            reason=record.reason,
            site=record.site,
            seed_number=record.seed,
            kernel_digest=record.kernel,
            observed=dict(record.observed),
            refused=[asdict(refusal) for refusal in record.refused],
        )
        audit.record(
            type="run.rollback" if record.action == Action.ROLLBACK else "adaptation.decision",
            subject=run,
            actor=actor,
            reason=record.reason,
            payload=asdict(record),
        )


def record_transition(*, run_id: UUID, fencing_token: int, record: TransitionRecord, actor: Actor = WORKER) -> None:
    """One move of a seed; its first one (DORMANT -> GERMINATED) makes the seed's row.

    Raises:
        InvalidTransition: the life cycle has no such move: the engine and the table disagree.
    """
    with _entry(run_id, fencing_token, record.sequence) as run:
        if run is None:
            return
        seed, before = _seed(run, record, actor)
        SEED_LIFECYCLE.check(seed.state, record.target)
        seed.state = record.target
        seed.alpha = record.alpha
        if record.target in ENDED:
            seed.ended_epoch = record.epoch
        seed.save()
        _update_slot(seed.slot, record, actor)
        SeedTransition.objects.create(
            run=run,
            seed=seed,
            sequence=record.sequence,
            epoch=record.epoch,
            step=record.step,
            source=record.source,
            target=record.target,
            gate=record.gate or "",
            reason=record.reason,
            measured=dict(record.measured),
            thresholds=dict(record.thresholds),
        )
        audit.record(
            type="seed.transition",
            subject=seed,
            actor=actor,
            reason=record.reason,
            before=before,
            after=image(seed),
            payload=asdict(record),
        )


def _seed(run: TrainingRun, record: TransitionRecord, actor: Actor) -> tuple[Seed, dict[str, Any]]:
    """The seed, and its image before the move: there is none of one that begins now."""
    if record.source != SeedState.DORMANT:
        seed = Seed.objects.select_for_update(of=("self",)).select_related("slot").get(run=run, number=record.seed)
        return seed, image(seed)
    slot, is_new = SeedSlot.objects.get_or_create(run=run, site=record.site)
    if is_new:
        audit.record(type="slot.changed", subject=slot, actor=actor, reason=record.reason, after=image(slot))
    kernel = Kernel.objects.filter(digest=record.kernel).order_by("id").first()
    seed = Seed.objects.create(
        run=run,
        slot=slot,
        number=record.seed,
        operator=record.operator,
        kernel_digest=record.kernel,
        kernel_id=kernel.pk if kernel else None,
        kernel_name=kernel.name if kernel else "",
        germinated_epoch=record.epoch,
    )
    return seed, {}


def _update_slot(slot: SeedSlot, record: TransitionRecord, actor: Actor) -> None:
    before = image(slot)
    if record.target == SeedState.EMBARGOED:
        slot.embargoed_until_epoch = record.measured.get("until_epoch")
    elif record.target == SeedState.DORMANT:
        slot.embargoed_until_epoch = None
    elif record.target == SeedState.ROLLED_BACK:
        slot.locked = True
    else:
        return
    after = image(slot)
    if after == before:
        return
    slot.save()
    audit.record(type="slot.changed", subject=slot, actor=actor, reason=record.reason, before=before, after=after)


def record_outcome(*, run_id: UUID, fencing_token: int, record: GraftOutcome, actor: Actor = WORKER) -> None:
    """The ledger of a seed at its end: kept with the seed, and reported to its kernel."""
    with _entry(run_id, fencing_token, record.sequence) as run:
        if run is None:
            return
        values: dict[str, Any] = asdict(record)
        for name in ("sequence", "epoch", "seed", "kernel"):
            values.pop(name)
        seed = Seed.objects.select_for_update(of=("self",)).get(run=run, number=record.seed)
        before = image(seed)
        seed.outcome = values
        seed.save(update_fields={"outcome"})
        verdict = str(record.verdict)
        audit.record(type="seed.outcome", subject=seed, actor=actor, reason=verdict, before=before, after=image(seed))
        kernel = Kernel.objects.filter(pk=seed.kernel_id).first() if seed.kernel_id else None
        if kernel is not None:
            record_field_report(
                kernel=kernel,
                run_id=run.pk,
                seed_number=record.seed,
                actor=actor,
                task=run.task,
                host=run.host,
                **values,
            )
