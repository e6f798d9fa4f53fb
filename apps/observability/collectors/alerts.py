"""Alerts that are open, and how the evaluation of their rules goes."""

import json
from collections.abc import Iterable
from datetime import datetime

import structlog
from django.utils import timezone
from django_redis import get_redis_connection
from prometheus_client.core import GaugeMetricFamily, Metric
from redis.exceptions import RedisError

from apps.observability.selectors import alerts

log = structlog.get_logger(__name__)

KEY = "esper:alerts:evaluated"
KEPT_SECONDS = 86_400


def counted() -> Iterable[Metric]:
    """By state and severity, with zeros. One query."""
    gauge = GaugeMetricFamily("esper_alerts", "Alerts that wait or fire.", labels=["state", "severity"])
    for labels, number in alerts.counts().items():
        gauge.add_metric([*labels], number)
    yield gauge


def evaluated() -> Iterable[Metric]:
    """Nothing before the first evaluation. One round trip to Redis."""
    found = get_redis_connection("throttle").get(KEY)
    if found is None:
        return
    at, seconds = json.loads(found)
    age = max(0.0, timezone.now().timestamp() - at)
    yield GaugeMetricFamily(
        "esper_alert_evaluation_seconds", "Seconds that the last evaluation of the alert rules took.", value=seconds
    )
    yield GaugeMetricFamily(
        "esper_alert_evaluation_age_seconds", "Age of the last evaluation of the alert rules.", value=age
    )


def note_evaluation(at: datetime, seconds: float) -> None:
    """An evaluation has ended. Where Redis does not answer, nobody is told."""
    try:
        get_redis_connection("throttle").set(KEY, json.dumps([at.timestamp(), seconds]), ex=KEPT_SECONDS)
    except (RedisError, OSError) as error:
        log.warning("alert_evaluation_not_noted", error=str(error))
