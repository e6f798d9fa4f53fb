"""System checks of what observability is configured with."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from apps.observability.delivery import addresses


@register()
def check_webhook_networks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Each network that webhooks may go to is one."""
    try:
        addresses.networks(settings.WEBHOOK_ALLOWED_NETWORKS)
    except ValueError as error:
        return [
            Error(
                f"ESPER_WEBHOOK_ALLOWED_NETWORKS: {error}.",
                hint="Write networks in CIDR notation with commas between them: 10.1.0.0/16,192.0.2.7/32.",
                id="esper.E010",
            )
        ]
    return []


@register()
def check_notification_days(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Notifications are kept for a while: groups of alerts follow from them."""
    if settings.NOTIFICATION_KEEP_DAYS >= 1:
        return []
    return [
        Error(
            f"ESPER_NOTIFICATION_KEEP_DAYS is {settings.NOTIFICATION_KEEP_DAYS}.",
            hint="Keep notifications for at least 1 day.",
            id="esper.E011",
        )
    ]
