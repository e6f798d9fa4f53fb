"""Registers the collectors; imported once the apps are ready."""

from apps.core.registry import registry
from apps.observability.collectors import alerts, cache, database, hosts, notifications, runs, servers

registry.collectors["hosts"] = hosts.told
registry.collectors["database"] = database.told
registry.collectors["redis"] = servers.told
registry.collectors["queues"] = servers.queues
registry.collectors["cache_hour"] = cache.told
registry.collectors[runs.NAME] = runs.told
registry.collectors["alerts"] = alerts.counted
registry.collectors["alert_evaluation"] = alerts.evaluated
registry.collectors["notifications"] = notifications.counted
registry.collectors["notification_age"] = notifications.waiting
