"""What waits for a person, for the badges of the rail."""

from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert


def unacknowledged() -> int:
    """Alerts that fire and that nobody has acknowledged. One query, by an index."""
    return Alert.objects.filter(state=AlertState.FIRING, acknowledged_at__isnull=True).count()
