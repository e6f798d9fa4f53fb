"""What `/metrics` tells about kernels: how many there are, how long compiling takes, and how it ends."""

from collections.abc import Iterable
from datetime import timedelta

from django.db import connection
from django.db.models import Count, Sum
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

from apps.core.metrics import rows_by
from apps.core.registry import registry
from apps.kernels.lifecycle import KernelState, PlanState
from apps.kernels.models import Kernel, RetentionPlan, StorageTier

QUANTILES = (0.5, 0.95, 0.99)
WINDOW = timedelta(hours=24)
UNJUDGED = frozenset({KernelState.REGISTERED, KernelState.UPLOADED, KernelState.COMPILED, KernelState.BENCHMARKING})

_LATENCY = """
SELECT pipeline, count(compile_ms), sum(compile_ms),
       percentile_cont(%(quantiles)s) WITHIN GROUP (ORDER BY compile_ms) FILTER (WHERE created_at > %(since)s)
FROM kernels_kernel WHERE compile_ms IS NOT NULL GROUP BY pipeline
"""


def latency() -> Iterable[Metric]:
    """Quantiles are of kernels registered in the last 24 hours; count and sum are of all, so that they only grow."""
    summary = SummaryMetricFamily(
        "esper_kernel_compile_seconds",
        "Seconds that compiling and validating a kernel took; quantiles of the last 24 hours.",
        labels=["pipeline"],
    )
    with connection.cursor() as cursor:
        cursor.execute(_LATENCY, {"quantiles": list(QUANTILES), "since": timezone.now() - WINDOW})
        for pipeline, count, milliseconds, quantiles in sorted(cursor.fetchall()):
            for quantile, value in zip(QUANTILES, quantiles or (), strict=False):
                labels = {"pipeline": pipeline, "quantile": str(quantile)}
                summary.add_sample("esper_kernel_compile_seconds", labels, value / 1000)
            summary.add_metric([pipeline], count_value=count, sum_value=float(milliseconds) / 1000)
    yield summary


def outcomes() -> Iterable[Metric]:
    """How compiling ended for the kernels registered in the last 24 hours."""
    recent = Kernel.objects.filter(created_at__gt=timezone.now() - WINDOW).order_by()
    gauge = GaugeMetricFamily(
        "esper_kernel_outcomes",
        "Kernels registered in the last 24 hours by pipeline and state.",
        labels=["pipeline", "state"],
    )
    judged = rejected = 0
    for pipeline, state, kernels in recent.values_list("pipeline", "state").annotate(kernels=Count("pk")):
        gauge.add_metric([pipeline, state], kernels)
        judged += kernels * (state not in UNJUDGED)
        rejected += kernels * (state == KernelState.REJECTED)
    yield gauge
    failures = GaugeMetricFamily(
        "esper_kernel_compile_failure_ratio",
        "Share of the kernels registered in the last 24 hours and judged that was rejected.",
    )
    if judged:
        failures.add_metric([], rejected / judged)
    yield failures
    rejections = GaugeMetricFamily(
        "esper_kernel_rejections",
        "Kernels registered in the last 24 hours that were rejected, by the stage that failed.",
        labels=["stage"],
    )
    stages = recent.filter(state=KernelState.REJECTED).values_list("report__rejected_at")
    for stage, kernels in stages.annotate(kernels=Count("pk")):
        rejections.add_metric([stage or "unknown"], kernels)
    yield rejections


def stored() -> Iterable[Metric]:
    """Bytes of kernels by tier; kernels with the same bytes count each."""
    gauge = GaugeMetricFamily("esper_kernel_bytes", "Bytes of kernels that are not purged, by tier.", labels=["tier"])
    known: dict[str, int] = dict.fromkeys(StorageTier.values, 0)
    rows = Kernel.objects.exclude(state=KernelState.PURGED).order_by().values_list("storage_tier")
    for tier, size in {**known, **dict(rows.annotate(Sum("size", default=0)))}.items():
        gauge.add_metric([tier], size)
    yield gauge
    purged = Kernel.objects.filter(state=KernelState.PURGED).count()
    yield CounterMetricFamily("esper_kernels_purged", "Kernels whose bytes were given up.", value=purged)


registry.collectors["kernel_bytes"] = stored
registry.collectors["retention_plans"] = rows_by(
    RetentionPlan, "state", name="esper_retention_plans", help="Plans of retention by state.", known=PlanState
)
registry.collectors["kernels"] = rows_by(
    Kernel, "state", name="esper_kernels", help="Kernels by state.", known=KernelState
)
registry.collectors["kernel_latency"] = latency
registry.collectors["kernel_outcomes"] = outcomes
