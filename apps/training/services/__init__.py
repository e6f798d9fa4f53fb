"""Everything that writes runs, by who asks: people (``runs``, ``restoring``), the worker that holds one (``leases``,
``recovery``), its engine (``journal``) and clients that train in a loop of their own (``external``)."""

from apps.training.services.external import (
    external_events,
    external_finish,
    external_heartbeat,
)
from apps.training.services.journal import (
    record_decision,
    record_epoch,
    record_outcome,
    record_transition,
)
from apps.training.services.leases import (
    claim_run,
    extend_lease,
    finish_run,
    freeze_library,
    give_up_lease,
    hand_over,
    mark_progress,
    recover_orphans,
    verify_lease,
)
from apps.training.services.recovery import (
    note_recovery,
    open_recovery,
    resume_recovery,
)
from apps.training.services.restoring import restore_run
from apps.training.services.runs import (
    TRAIN_TASK,
    create_control,
    create_external_run,
    create_run,
    ensure_library,
    move_run,
    pause_run,
    resume_run,
    stop_run,
)

__all__ = [
    "TRAIN_TASK",
    "claim_run",
    "create_control",
    "create_external_run",
    "create_run",
    "ensure_library",
    "extend_lease",
    "external_events",
    "external_finish",
    "external_heartbeat",
    "finish_run",
    "freeze_library",
    "give_up_lease",
    "hand_over",
    "mark_progress",
    "move_run",
    "note_recovery",
    "open_recovery",
    "pause_run",
    "record_decision",
    "record_epoch",
    "record_outcome",
    "record_transition",
    "recover_orphans",
    "restore_run",
    "resume_recovery",
    "resume_run",
    "stop_run",
    "verify_lease",
]
