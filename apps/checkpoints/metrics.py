"""What `/metrics` tells about checkpoints. All of it is read from rows: a restart of a process forgets nothing."""

from collections.abc import Iterable

from django.db.models import Count, Q
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from apps.checkpoints import selectors
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind, SaveReason
from apps.core.metrics import histograms, rows_by
from apps.core.registry import registry

STALL_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SAVE_BOUNDS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Seconds."""


def bytes_held() -> Iterable[Metric]:
    """What the checkpoints measure, and what they take."""
    found = selectors.totals()
    gauge = GaugeMetricFamily(
        "esper_checkpoint_bytes",
        "Bytes: raw, each checkpoint counted whole; stored, each object counted once; garbage, needed by none; "
        "folder, the packs in the checkpoint folder.",
        labels=["kind"],
    )
    for kind in ("raw", "stored", "garbage", "folder"):
        gauge.add_metric([kind], getattr(found, f"{kind}_bytes"))
    yield gauge


def saves() -> Iterable[Metric]:
    """Two counters, in one query: rows of checkpoints are never deleted."""
    failed = Q(state=CheckpointState.ABANDONED)
    done = ~failed & ~Q(state=CheckpointState.STAGING)
    rows = Checkpoint.objects.values_list("reason").annotate(
        done=Count("pk", filter=done), failed=Count("pk", filter=failed)
    )
    counts = {reason: (ok, bad) for reason, ok, bad in rows.order_by()}
    saved = CounterMetricFamily("esper_checkpoint_saves", "Checkpoints that were stored.", labels=["reason"])
    failures = CounterMetricFamily(
        "esper_checkpoint_save_failures", "Checkpoints that were begun and not stored.", labels=["reason"]
    )
    for reason in SaveReason.values:
        ok, bad = counts.get(reason, (0, 0))
        saved.add_metric([reason], ok)
        failures.add_metric([reason], bad)
    yield saved
    yield failures


def seconds() -> Iterable[Metric]:
    """One query each."""
    for column, bounds, help in (
        ("stall_seconds", STALL_BOUNDS, "Seconds that training stood still for a checkpoint."),
        ("save_seconds", SAVE_BOUNDS, "Seconds from the barrier until a checkpoint was durable."),
    ):
        (counted,) = histograms(Checkpoint, [column], bounds)
        family = HistogramMetricFamily(f"esper_checkpoint_{column}", help)
        family.add_metric([], counted.buckets, sum_value=counted.total)
        yield family


def jobs() -> Iterable[Metric]:
    """Work that was asked for, by kind and state, with zeros. One query."""
    gauge = GaugeMetricFamily(
        "esper_checkpoint_jobs", "Work with checkpoints that was asked for.", labels=["kind", "state"]
    )
    counts = {(kind, str(state)): 0 for kind in JobKind.values for state in JobState}
    rows = CheckpointJob.objects.values_list("kind", "state").annotate(rows=Count("pk")).order_by()
    counts |= {(kind, state): number for kind, state, number in rows}
    for labels, number in counts.items():
        gauge.add_metric([*labels], number)
    yield gauge


registry.collectors["checkpoints"] = rows_by(
    Checkpoint, "state", name="esper_checkpoints", help="Checkpoints by state.", known=CheckpointState
)
registry.collectors["checkpoint_bytes"] = bytes_held
registry.collectors["checkpoint_saves"] = saves
registry.collectors["checkpoint_seconds"] = seconds
registry.collectors["checkpoint_jobs"] = jobs
