"""The admin of what people are told of, and whom."""

from apps.observability.admin import alert_rules, alerts, routing

__all__ = ["alert_rules", "alerts", "routing"]
