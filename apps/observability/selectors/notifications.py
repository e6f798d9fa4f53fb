"""Messages about alerts, with what became of each try."""

from django.db.models import Prefetch, QuerySet

from apps.observability.models import DeliveryAttempt, Notification


def with_tries() -> QuerySet[Notification]:
    """Notifications, newest first, each with its ``tries``, oldest first. Two queries for a page."""
    return Notification.objects.prefetch_related(Prefetch("tries", DeliveryAttempt.objects.order_by("pk")))
