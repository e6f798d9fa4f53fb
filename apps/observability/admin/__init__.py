"""The admin of what people are told of, and whom."""

from apps.observability.admin import alerts, routing

__all__ = ["alerts", "routing"]
