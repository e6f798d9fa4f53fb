"""Moments as the store has them: whole milliseconds. Arrays of seconds since 1970, and PostgreSQL's own format."""

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.utils import timezone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
POSTGRES_EPOCH_MS = 946_684_800_000
"""2000-01-01 in milliseconds since 1970: PostgreSQL counts from there, in microseconds."""
INSTANT = timedelta(milliseconds=1)
ALWAYS_HOT = timedelta(days=1)
"""What is younger is never packed, whatever the settings say or said."""
AHEAD = timedelta(seconds=60)
"""Clocks differ by so much: what is further ahead is from the future."""


def floor(at: datetime, width: timedelta) -> datetime:
    """The start of the bucket that ``at`` lies in, by UTC."""
    return at - (at - EPOCH) % width


def whole(at: datetime) -> datetime:
    """``at``, without what is below a millisecond."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def moment(seconds: float) -> datetime:
    """From seconds since 1970, rounded to the millisecond."""
    return EPOCH + timedelta(milliseconds=round(float(seconds) * 1000))


def seconds(at: datetime) -> float:
    """Since 1970."""
    return (at - EPOCH) / timedelta(seconds=1)


def hot_since(now: datetime | None = None) -> datetime:
    """Where the hot window begins: older samples are no longer taken, and are packed."""
    return (now or timezone.now()) - max(timedelta(days=settings.METRICS_HOT_DAYS), ALWAYS_HOT)


def milliseconds(at: datetime) -> float:
    """Since 1970."""
    return (at - EPOCH) / timedelta(milliseconds=1)
