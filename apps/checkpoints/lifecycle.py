"""Life cycle of a checkpoint. "Latest" is the newest COMMITTED one."""

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
        (S.QUARANTINED, S.EXPIRED),
    ],
)
