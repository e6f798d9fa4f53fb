"""How states look and read on the pages: one table a kind. Colours live in static/css/tokens.css.

A state is never shown by colour alone: ``word`` stands beside ``icon``, a symbol of static/icons.svg.
"""

from dataclasses import dataclass

from apps.audit.lifecycle import ReportState
from apps.blueprints.lifecycle import VersionState
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.kernels.lifecycle import CachePlanState, KernelState, PlanState
from apps.morphogenesis.lifecycle import SeedState
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import Severity
from apps.training.lifecycle import RecoveryState, RunState


@dataclass(frozen=True, slots=True)
class Look:
    """``tone`` is the CSS class that picks the colour."""

    word: str
    icon: str
    tone: str
    meaning: str


SEED_LOOKS: dict[str, Look] = {
    SeedState.DORMANT: Look("dormant", "dot", "dormant", "an empty place in the network"),
    SeedState.GERMINATED: Look("germinated", "sprout", "germinated", "in the slot; the network computes as before"),
    SeedState.TRAINING: Look("training", "train", "training", "learns beside the network, isolated from it"),
    SeedState.GRAFTING: Look("grafting", "graft", "grafting", "its strength ramps up from 0 to 1"),
    SeedState.STABILIZING: Look("stabilizing", "settle", "stabilizing", "statistics settle at full strength"),
    SeedState.EVALUATING: Look("evaluating", "scale", "evaluating", "measured with and without it on held-out data"),
    SeedState.FOSSILIZED: Look("fossilised", "fossil", "fossilized", "earned its rent: part of the network for good"),
    SeedState.CULLED: Look("culled", "cross", "culled", "did not earn its rent: removed"),
    SeedState.CANCELLED: Look("cancelled", "cross", "cancelled", "removed before it touched the network"),
    SeedState.ROLLED_BACK: Look("rolled back", "back", "rolled-back", "the governor undid it and locked the slot"),
    SeedState.EMBARGOED: Look("embargoed", "clock", "embargoed", "the slot rests after a cull"),
}  # fmt: skip

RUN_LOOKS: dict[str, Look] = {
    RunState.QUEUED: Look("queued", "clock", "waiting", "waits for a worker"),
    RunState.RUNNING: Look("running", "train", "active", "a worker trains it"),
    RunState.PAUSED: Look("paused", "pause", "held", "stands still at a step boundary until it is resumed"),
    RunState.RECOVERING: Look("recovering", "back", "held", "lost its worker; goes on from its last snapshot"),
    RunState.COMPLETED: Look("completed", "check", "good", "trained to the end"),
    RunState.FAILED: Look("failed", "cross", "bad", "ended by an error"),
    RunState.CANCELLED: Look("stopped", "stop", "waiting", "ended by a person"),
}

KERNEL_LOOKS: dict[str, Look] = {
    KernelState.REGISTERED: Look("registered", "clock", "waiting", "waits for a compiler or for its bytes"),
    KernelState.UPLOADED: Look("uploaded", "clock", "waiting", "has bytes that nothing has checked yet"),
    KernelState.COMPILED: Look("compiled", "clock", "waiting", "has bytes; validation comes next"),
    KernelState.BENCHMARKING: Look("benchmarking", "scale", "active", "is being validated"),
    KernelState.VALIDATED: Look("validated", "check", "good", "passed every check: runs may use it"),
    KernelState.REJECTED: Look("rejected", "cross", "bad", "failed a check: no run ever sees it"),
    KernelState.DEPRECATED: Look("deprecated", "pause", "held", "new runs no longer get it"),
    KernelState.RETIRED: Look("retired", "stop", "waiting", "out of use, restorable"),
    KernelState.QUARANTINED: Look("quarantined", "cross", "bad", "its bytes are not what their digest says"),
    KernelState.PURGED: Look("purged", "stop", "waiting", "its bytes are gone"),
}

VERSION_LOOKS: dict[str, Look] = {
    VersionState.DRAFT: Look("draft", "dot", "waiting", "written, not handed in"),
    VersionState.SUBMITTED: Look(
        "submitted", "clock", "waiting", "its spec is sound; no kernel was compiled from it yet"
    ),
    VersionState.COMPILING: Look("compiling", "train", "active", "its first kernel is being compiled"),
    VersionState.CHARACTERIZED: Look("characterised", "check", "good", "a kernel of it has passed every check"),
    VersionState.INVALID: Look("invalid", "cross", "bad", "its kernels failed a check"),
    VersionState.RETIRED: Look("retired", "stop", "waiting", "out of use"),
}

PLAN_LOOKS: dict[str, Look] = {
    PlanState.PLANNED: Look("to be reviewed", "clock", "held", "changes nothing until it is approved and applied"),
    PlanState.APPROVED: Look("approved", "check", "active", "may be applied now"),
    PlanState.APPLIED: Look("applied", "check", "good", "done: its outcome stands at each item"),
    PlanState.DISCARDED: Look("discarded", "stop", "waiting", "will never be applied"),
}

CACHE_PLAN_LOOKS: dict[str, Look] = {
    CachePlanState.PLANNED: Look("to be reviewed", "clock", "held", "moves nothing until it is applied"),
    CachePlanState.APPLYING: Look("moving", "train", "active", "a worker makes its moves, one after another"),
    CachePlanState.APPLIED: Look(
        "applied", "check", "good", "every move was tried: what was left, and why, stands there"
    ),
    CachePlanState.FAILED: Look("failed", "cross", "bad", "could not be carried out to its end"),
    CachePlanState.CANCELLED: Look("cancelled", "stop", "waiting", "given up; what had moved stays moved"),
}

BREAKER_LOOKS: dict[str, Look] = {
    "closed": Look("closed", "check", "good", "the tier is asked as usual"),
    "half-open": Look("half-open", "clock", "held", "one call finds out whether the tier is back"),
    "open": Look("open", "cross", "bad", "the tier failed: it is left alone for a while, reads go past it"),
}

CHECKPOINT_LOOKS: dict[str, Look] = {
    CheckpointState.STAGING: Look("staging", "clock", "waiting", "is being written"),
    CheckpointState.COMMITTED: Look("committed", "check", "good", "complete: a run can go on from it"),
    CheckpointState.ABANDONED: Look("abandoned", "stop", "waiting", "was never completed"),
    CheckpointState.EXPIRED: Look("expired", "stop", "waiting", "its bytes are gone"),
    CheckpointState.QUARANTINED: Look("quarantined", "cross", "bad", "its bytes are not what their digest says"),
}

CHECKPOINT_JOB_LOOKS: dict[str, Look] = {
    JobState.PENDING: Look("waiting", "clock", "waiting", "waits for a worker, or for the run to come to a step's end"),
    JobState.RUNNING: Look("at work", "train", "active", "a worker does it now"),
    JobState.SUCCEEDED: Look("done", "check", "good", "done as it was asked for"),
    JobState.FAILED: Look("failed", "cross", "bad", "could not be done: why stands beside it"),
    JobState.CANCELLED: Look("cancelled", "stop", "waiting", "given up before it was done"),
}

RECOVERY_LOOKS: dict[str, Look] = {
    RecoveryState.OPEN: Look("coming back", "back", "held", "the run is on its way back"),
    RecoveryState.RESUMED: Look("resumed", "check", "good", "the run went on"),
    RecoveryState.FAILED: Look("failed", "cross", "bad", "the run could not be brought back"),
}

REPORT_LOOKS: dict[str, Look] = {
    ReportState.QUEUED: Look("being written", "clock", "active", "waits for its turn, or for something that is away"),
    ReportState.READY: Look("signed", "check", "good", "stored and signed: it never changes"),
    ReportState.FAILED: Look("failed", "cross", "bad", "what it needs stayed away: ask again"),
}

ALERT_LOOKS: dict[str, Look] = {
    AlertState.PENDING: Look("pending", "clock", "waiting", "true, but not yet for as long as its rule asks for"),
    AlertState.FIRING: Look("firing", "alarm", "bad", "true for as long as its rule asks for: somebody should look"),
    AlertState.RESOLVED: Look("resolved", "check", "good", "over; it stays in the list of what was"),
}

SEVERITY_LOOKS: dict[str, Look] = {
    Severity.CRITICAL: Look("critical", "alarm", "bad", "work or data is being lost, or soon will be"),
    Severity.WARNING: Look("warning", "warn", "held", "gets worse if nobody looks"),
    Severity.INFO: Look("info", "info", "active", "worth knowing"),
}

NOTIFICATION_LOOKS: dict[str, Look] = {
    NotificationState.PENDING: Look("to be sent", "clock", "waiting", "is sent when it is due"),
    NotificationState.SENDING: Look("being sent", "train", "active", "a worker sends it now"),
    NotificationState.DELIVERED: Look("delivered", "check", "good", "the other side has taken it"),
    NotificationState.FAILED: Look("failed", "cross", "bad", "given up after its last try"),
}

LOOKS: dict[str, dict[str, Look]] = {
    "run": RUN_LOOKS,
    "seed": SEED_LOOKS,
    "kernel": KERNEL_LOOKS,
    "version": VERSION_LOOKS,
    "plan": PLAN_LOOKS,
    "cache_plan": CACHE_PLAN_LOOKS,
    "breaker": BREAKER_LOOKS,
    "checkpoint": CHECKPOINT_LOOKS,
    "checkpoint_job": CHECKPOINT_JOB_LOOKS,
    "recovery": RECOVERY_LOOKS,
    "report": REPORT_LOOKS,
    "alert": ALERT_LOOKS,
    "severity": SEVERITY_LOOKS,
    "notification": NOTIFICATION_LOOKS,
}


def look(kind: str, state: str) -> Look:
    """How ``state`` of a ``kind`` (a key of ``LOOKS``) looks; an unknown one shows as it is spelled."""
    return LOOKS[kind].get(state) or Look(state.lower().replace("_", " "), "dot", "waiting", "")
