"""Messages about alerts: how many in which state, and how long the oldest has been on its way."""

from collections.abc import Iterable

from django.db.models import Min
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily, Metric

from apps.core.metrics import rows_by
from apps.observability.lifecycle import UNDER_WAY, NotificationState
from apps.observability.models import Notification

counted = rows_by(
    Notification,
    "state",
    name="esper_notifications",
    help="Messages about alerts by state, as far back as they are kept.",
    known=NotificationState,
)


def waiting() -> Iterable[Metric]:
    """0 when nothing waits. One query."""
    oldest = Notification.objects.filter(state__in=UNDER_WAY).aggregate(at=Min("created_at"))["at"]
    age = max(0.0, (timezone.now() - oldest).total_seconds()) if oldest else 0.0
    yield GaugeMetricFamily(
        "esper_notification_oldest_seconds", "Age of the oldest message that is not delivered yet.", value=age
    )
