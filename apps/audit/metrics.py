"""What `/metrics` tells about the trail: how old its unsealed end is, and whether it verified."""

from collections.abc import Iterable

from django.db.models import Count
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent
from apps.audit.state import trail_state
from apps.core.registry import registry

ALERTS = tuple(name for name, kind in EVENT_TYPES.items() if kind.family == "alert")


def trail() -> Iterable[Metric]:
    """Gauges of the trail's state."""
    state = trail_state()
    values: list[tuple[str, str, float | None]] = [
        ("sealed_events", "Events under the newest signed checkpoint.", state.sealed),
        ("unsealed_events", "Recorded events that no checkpoint covers yet.", state.unsealed),
        ("unsealed_age_seconds", "Age of the oldest unsealed event; it grows while nobody seals.", state.unsealed_age),
        ("uncopied_checkpoints", "Checkpoints whose note has not reached the object storage.", state.uncopied),
        (
            "checkpoint_timestamp_seconds",
            "When the newest checkpoint was signed.",
            state.checkpoint.at.timestamp() if state.checkpoint else None,
        ),
    ]
    if state.verification is not None:
        values += [
            ("verification_timestamp_seconds", "When it was last verified.", state.verification.at.timestamp()),
            ("verification_findings", "Altered things found then.", state.verification.findings_count),
        ]
    for name, help_text, value in values:
        if value is not None:
            yield GaugeMetricFamily(f"esper_audit_{name}", help_text, value=value)


def alerts() -> Iterable[Metric]:
    """Alert events by type: what stands for an alert until rules watch the metrics."""
    counter = CounterMetricFamily("esper_audit_alerts", "Alert events in the event store.", labels=["type"])
    counts = dict.fromkeys(ALERTS, 0)
    rows = AuditEvent.objects.filter(type__in=ALERTS).order_by().values_list("type").annotate(events=Count("pk"))
    for name, count in {**counts, **dict(rows)}.items():
        counter.add_metric([name], count)
    yield counter


registry.collectors["audit_trail"] = trail
registry.collectors["audit_alerts"] = alerts
