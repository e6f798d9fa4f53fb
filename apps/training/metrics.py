"""What `/metrics` tells about training."""

from collections.abc import Iterable

from django.db.models import Count
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from apps.core.metrics import histograms, rows_by
from apps.core.registry import registry
from apps.morphogenesis.lifecycle import SeedState
from apps.training.lifecycle import RecoveryState, RunState
from apps.training.models import RecoveryCause, RecoveryEvent, Seed, TrainingRun

STAGES = ("detect", "load", "restore", "validate", "resume")
BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Seconds; a run is to be back within 30."""


def recoveries() -> Iterable[Metric]:
    """By state and cause, with zeros, so that no series vanishes. One query."""
    gauge = GaugeMetricFamily("esper_recoveries", "Recoveries of runs by state and cause.", labels=["state", "cause"])
    counts = {(state, cause): 0 for state in RecoveryState for cause in RecoveryCause.values}
    rows = RecoveryEvent.objects.values_list("state", "cause").annotate(rows=Count("pk")).order_by()
    counts |= {(RecoveryState(state), cause): number for state, cause, number in rows}
    for labels, number in counts.items():
        gauge.add_metric([str(label) for label in labels], number)
    yield gauge


def recovery_seconds() -> Iterable[Metric]:
    """One query."""
    family = HistogramMetricFamily(
        "esper_recovery_stage_seconds", "Seconds that each stage of the recoveries of runs took.", labels=["stage"]
    )
    columns = [f"{stage}_seconds" for stage in STAGES]
    for stage, counted in zip(STAGES, histograms(RecoveryEvent, columns, BOUNDS), strict=True):
        family.add_metric([stage], counted.buckets, sum_value=counted.total)
    yield family


registry.collectors["runs"] = rows_by(
    TrainingRun, "state", name="esper_runs", help="Training runs by state.", known=RunState
)
registry.collectors["seeds"] = rows_by(Seed, "state", name="esper_seeds", help="Seeds by state.", known=SeedState)
registry.collectors["recoveries"] = recoveries
registry.collectors["recovery_seconds"] = recovery_seconds
