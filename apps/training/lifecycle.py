"""Life cycles of a run and of its seeds, enforced in Python and in the database."""

from enum import StrEnum

from apps.core.lifecycle import Lifecycle
from apps.morphogenesis.lifecycle import SEED_TRANSITIONS, SeedState


class RunState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    RECOVERING = "RECOVERING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


S = RunState

RUN_LIFECYCLE = Lifecycle.of(
    "run",
    initial=[S.QUEUED],
    transitions=[
        (S.QUEUED, S.RUNNING),
        (S.RUNNING, S.COMPLETED),
        (S.RUNNING, S.FAILED),
        (S.RUNNING, S.CANCELLED),
        (S.RUNNING, S.PAUSED),
        (S.PAUSED, S.RUNNING),
        (S.RUNNING, S.RECOVERING),
        (S.RECOVERING, S.RUNNING),
        (S.RECOVERING, S.FAILED),
        (S.QUEUED, S.CANCELLED),
        (S.PAUSED, S.CANCELLED),
        (S.RECOVERING, S.CANCELLED),
        # Set back to a checkpoint by somebody (``services.restore_run``).
        (S.QUEUED, S.RECOVERING),
        (S.PAUSED, S.RECOVERING),
        (S.FAILED, S.RECOVERING),
        (S.CANCELLED, S.RECOVERING),
    ],
)

FINAL_RUN_STATES = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED})


class RecoveryState(StrEnum):
    OPEN = "OPEN"
    RESUMED = "RESUMED"
    FAILED = "FAILED"


RECOVERY_LIFECYCLE = Lifecycle.of(
    "recovery",
    initial=[RecoveryState.OPEN],
    transitions=[(RecoveryState.OPEN, RecoveryState.RESUMED), (RecoveryState.OPEN, RecoveryState.FAILED)],
)

SEED_LIFECYCLE = Lifecycle.of(
    "seed",
    initial=[SeedState.DORMANT],
    transitions=[(edge.source, edge.target) for edge in SEED_TRANSITIONS],
)
