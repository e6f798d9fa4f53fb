"""Messages about alerts, with what became of each try, and where they go."""

from django.db.models import Prefetch, QuerySet

from apps.observability.delivery import addresses
from apps.observability.models import AlertRoute, Channel, DeliveryAttempt, Notification


def with_tries() -> QuerySet[Notification]:
    """Notifications, newest first, each with its ``tries``, oldest first. Two queries for a page."""
    return Notification.objects.prefetch_related(Prefetch("tries", DeliveryAttempt.objects.order_by("pk")))


def shown_target(route: AlertRoute) -> str:
    """The target of a route as those see it who cannot change it: of a webhook its origin only."""
    return addresses.origin(route.target) if route.channel == Channel.WEBHOOK else route.target
