"""Life cycles of an alert, and of a message about alerts."""

from enum import StrEnum

from apps.core.lifecycle import Lifecycle


class AlertState(StrEnum):
    PENDING = "PENDING"
    FIRING = "FIRING"
    RESOLVED = "RESOLVED"


A = AlertState

ALERT_LIFECYCLE = Lifecycle.of(
    "raised alert",
    initial=[A.PENDING, A.FIRING],  # a rule without a waiting time fires at once
    transitions=[
        (A.PENDING, A.FIRING),
        (A.PENDING, A.RESOLVED),  # it was over before the rule's waiting time was
        (A.FIRING, A.RESOLVED),
    ],
)

OPEN = frozenset({A.PENDING, A.FIRING})


class NotificationState(StrEnum):
    PENDING = "PENDING"
    SENDING = "SENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


N = NotificationState

NOTIFICATION_LIFECYCLE = Lifecycle.of(
    "notification",
    initial=[N.PENDING],
    transitions=[
        (N.PENDING, N.SENDING),
        (N.SENDING, N.PENDING),  # to be tried again, or its worker is gone
        (N.SENDING, N.DELIVERED),
        (N.SENDING, N.FAILED),
        (N.PENDING, N.FAILED),  # its route is gone
        (N.FAILED, N.PENDING),  # a person asked for it
    ],
)

UNDER_WAY = (N.PENDING, N.SENDING)
TEST = "test"
"""The group key of messages that a person sends to try a route out."""
