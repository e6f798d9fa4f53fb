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


@register()
def check_metrics_days(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Samples are taken for a day at least: with none, each would be refused as too old."""
    least = {
        "ESPER_METRICS_HOT_DAYS": (settings.METRICS_HOT_DAYS, 1),
        "ESPER_METRICS_RAW_DAYS": (settings.METRICS_RAW_DAYS, 1),
        "ESPER_METRICS_5M_DAYS": (settings.METRICS_5M_DAYS, 1),
        "ESPER_METRICS_1H_DAYS": (settings.METRICS_1H_DAYS, 1),
        "ESPER_METRICS_MAX_SERIES": (settings.METRICS_MAX_SERIES, 0),
    }
    return [
        Error(f"{name} is {value}.", hint=f"Set it to at least {bound}.", id="esper.E012")
        for name, (value, bound) in least.items()
        if value < bound
    ]
