"""Life cycles of a checkpoint ("latest" is the newest COMMITTED one), and of long work with checkpoints."""

from enum import StrEnum

from apps.core.lifecycle import Lifecycle


class CheckpointState(StrEnum):
    STAGING = "STAGING"
    COMMITTED = "COMMITTED"
    ABANDONED = "ABANDONED"
    EXPIRED = "EXPIRED"
    QUARANTINED = "QUARANTINED"


S = CheckpointState

CHECKPOINT_LIFECYCLE = Lifecycle.of(
    "checkpoint",
    initial=[S.STAGING],
    transitions=[
        (S.STAGING, S.COMMITTED),
        (S.STAGING, S.ABANDONED),
        (S.COMMITTED, S.EXPIRED),
        (S.STAGING, S.QUARANTINED),
        (S.COMMITTED, S.QUARANTINED),
        (S.ABANDONED, S.QUARANTINED),
        (S.QUARANTINED, S.COMMITTED),  # verified again, and right: its storage lied for a while
        (S.QUARANTINED, S.EXPIRED),
    ],
)


class JobState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


J = JobState

JOB_LIFECYCLE = Lifecycle.of(
    "checkpoint job",
    initial=[J.PENDING],
    transitions=[
        (J.PENDING, J.RUNNING),
        (J.RUNNING, J.PENDING),  # its worker is gone: another takes it up
        (J.PENDING, J.SUCCEEDED),  # another did it, e.g. a save that was due anyway
        (J.RUNNING, J.SUCCEEDED),
        (J.PENDING, J.FAILED),
        (J.RUNNING, J.FAILED),
        (J.PENDING, J.CANCELLED),
        (J.RUNNING, J.CANCELLED),
    ],
)

OVER = frozenset({J.SUCCEEDED, J.FAILED, J.CANCELLED})
