"""Every metric of the platform, as data: what rules, pages, dashboards and documents may name.

    METRICS["esper_host_cpu_ratio"].labels       # ("host",)
    known("esper_recovery_stage_seconds_bucket") # True: a histogram's samples have names of their own

A metric has the same name and labels in ``/metrics`` and in the store. Names are Prometheus' (base units, counters end
in ``_total``). What is not ``stored`` is a count of one process, has one for a label, or is nothing that one draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

GAUGE, COUNTER, HISTOGRAM, SUMMARY = "gauge", "counter", "histogram", "summary"
UNITS = ("seconds", "bytes", "ratio", "celsius", "watts")
SUFFIXES = {HISTOGRAM: ("_bucket", "_sum", "_count"), SUMMARY: ("", "_sum", "_count")}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec:
    """One metric. ``unit`` is "" for a plain number.

    Of a histogram, and of a summary, sum and count are stored as counters; of a summary the quantiles, too.
    """

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    help: str
    stored: bool = True
    scraped: bool = True

    @property
    def family(self) -> str:
        """The name that prometheus_client has for it: a counter's without its ending."""
        return self.name.removesuffix("_total") if self.kind == COUNTER else self.name

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its samples."""
        return tuple(self.name + suffix for suffix in SUFFIXES.get(self.kind, ("",)))


def _metric(kind: str, name: str, help: str, *labels: str, stored: bool = True, scraped: bool = True) -> MetricSpec:
    unit = next((unit for unit in UNITS if name.removesuffix("_total").endswith(f"_{unit}")), "")
    return MetricSpec(name=name, kind=kind, unit=unit, labels=labels, help=help, stored=stored, scraped=scraped)


def _gauge(name: str, help: str, *labels: str, stored: bool = True, scraped: bool = True) -> MetricSpec:
    return _metric(GAUGE, name, help, *labels, stored=stored, scraped=scraped)


def _counter(name: str, help: str, *labels: str, stored: bool = True) -> MetricSpec:
    return _metric(COUNTER, name, help, *labels, stored=stored)


def _histogram(name: str, help: str, *labels: str, stored: bool = True) -> MetricSpec:
    return _metric(HISTOGRAM, name, help, *labels, stored=stored)


SYSTEM = (
    _gauge(
        "esper_host_cpu_ratio", "Share of the processors' time that was busy since the host's last reading.", "host"
    ),
    _gauge("esper_host_cpus", "Processors that the host has.", "host"),
    _gauge("esper_host_load", "Processes that ran or wanted to, mean of the last minute.", "host"),
    _gauge("esper_host_memory_bytes", "Memory of the host: total, used, available.", "host", "kind"),
    _gauge("esper_host_memory_used_ratio", "Share of the host's memory that is not available.", "host"),
    _gauge("esper_host_disk_bytes", "Disks on which the platform writes: total, used, free.", "host", "disk", "kind"),
    _gauge("esper_host_disk_used_ratio", "Share of the disk that is used.", "host", "disk"),
    _gauge("esper_gpu_utilisation_ratio", "Share of the time in which a kernel ran on the GPU.", "host", "gpu"),
    _gauge("esper_gpu_memory_bytes", "Memory of the GPU: total, used.", "host", "gpu", "kind"),
    _gauge("esper_gpu_memory_used_ratio", "Share of the GPU's memory that is used.", "host", "gpu"),
    _gauge("esper_gpu_temperature_celsius", "Temperature of the GPU.", "host", "gpu"),
    _gauge("esper_gpu_power_watts", "Power that the GPU draws.", "host", "gpu"),
)

SERVICES = (
    _gauge("esper_database_bytes", "Size of the database."),
    _gauge("esper_database_connections", "Connections to the database server by state.", "state"),
    _gauge("esper_database_connections_used_ratio", "Share of the server's connections that is in use."),
    _gauge("esper_database_longest_transaction_seconds", "Age of the oldest transaction that is open."),
    _counter("esper_database_transactions_total", "Transactions by how they ended.", "outcome"),
    _counter("esper_database_deadlocks_total", "Deadlocks that the server broke."),
    _gauge("esper_database_cache_hit_ratio", "Share of the blocks that the server's memory had, since its start."),
    _gauge("esper_redis_memory_bytes", "Memory that the server's data takes.", "server"),
    _gauge(
        "esper_redis_memory_used_ratio",
        "Share of the memory that the server may take; of the host's without limit.",
        "server",
    ),
    _gauge("esper_redis_clients", "Clients that are connected.", "server"),
    _counter("esper_redis_commands_total", "Commands that the server carried out.", "server"),
    _counter("esper_redis_evictions_total", "Keys that the server gave up for want of memory.", "server"),
    _gauge("esper_queue_messages", "Messages that wait in the queue.", "queue"),
    _gauge("esper_queue_oldest_age_seconds", "Age of the message that has waited longest; 0 when none waits.", "queue"),
    _gauge("esper_queue_served", "1 if a worker of the queue gave a sign of life lately.", "queue"),
    _counter("esper_tasks_total", "Tasks that workers ended, by how.", "task", "outcome", stored=False),
    _histogram("esper_task_seconds", "Seconds that a task ran.", "task", stored=False),
    _counter(
        "esper_throttle_uncounted_total", "Requests admitted without counting: Redis was silent.", "rate", stored=False
    ),
)

CACHE = (
    _counter("esper_cache_hits_total", "Reads that the tier answered.", "tier", "size"),
    _counter("esper_cache_bytes_total", "Bytes that the tier gave out.", "tier", "size"),
    _counter("esper_cache_misses_total", "Reads for which the tier was asked and had nothing.", "tier", "size"),
    _counter("esper_cache_fills_total", "Copies that the tier took.", "tier", "size", stored=False),
    _counter("esper_cache_refused_total", "Copies that the tier did not take.", "tier", "size", stored=False),
    _counter("esper_cache_evictions_total", "Copies that left the tier for others, or for their age.", "tier", "size"),
    _counter(
        "esper_cache_promotions_total",
        "Copies that came into the tier because they are read often.",
        "tier",
        "size",
        stored=False,
    ),
    _counter(
        "esper_cache_demotions_total",
        "Copies that left the tier because they are read seldom.",
        "tier",
        "size",
        stored=False,
    ),
    _counter(
        "esper_cache_coalesced_total",
        "Loads that were spared because another reader's was waited for.",
        "tier",
        "size",
        stored=False,
    ),
    _counter(
        "esper_cache_heals_total",
        "Copies in the tier that were put right from another one.",
        "tier",
        "size",
        stored=False,
    ),
    _counter(
        "esper_cache_corrupt_total",
        "Copies in the tier that were not what had been put there.",
        "tier",
        "size",
        stored=False,
    ),
    _counter(
        "esper_cache_errors_total",
        "Reads that went past the tier: it did not answer, not in time, or is left alone.",
        "tier",
        "size",
        stored=False,
    ),
    _histogram("esper_cache_latency_seconds", "Seconds in which a tier answered a read.", "tier"),
    _gauge(
        "esper_cache_latency_quantile_seconds",
        "Seconds in which a tier answered, by percentile, in the last hour.",
        "tier",
        "percentile",
    ),
    _gauge(
        "esper_cache_hit_ratio",
        "Of the reads of the last hour that came as far as the tier, if 100 did, the share that it answered.",
        "tier",
    ),
    _gauge("esper_cache_breakers_open", "Processes that leave the tier alone.", "tier"),
    _gauge("esper_cache_l1_used_ratio", "Share of their L1 budget that all processes use."),
    _gauge("esper_cache_l1_bytes", "Bytes in the L1 of a process.", "process", stored=False),
    _gauge("esper_cache_l1_budget_bytes", "Bytes that the L1 of a process may have.", "process", stored=False),
    _gauge("esper_cache_l1_entries", "Segments in the L1 of a process.", "process", stored=False),
    _gauge("esper_cache_breaker_open", "1 while a process leaves the tier alone.", "process", "tier", stored=False),
)

ASSETS = (
    _gauge("esper_blueprint_versions", "Blueprint versions by state.", "state"),
    _gauge("esper_kernels", "Kernels by state.", "state"),
    _gauge("esper_kernel_bytes", "Bytes of kernels that are not purged, by tier.", "tier"),
    _counter("esper_kernels_purged_total", "Kernels whose bytes were given up."),
    _gauge("esper_retention_plans", "Plans of retention by state.", "state"),
    _metric(
        SUMMARY,
        "esper_kernel_compile_seconds",
        "Seconds that compiling and validating a kernel took; quantiles of the last 24 hours.",
        "pipeline",
    ),
    _gauge(
        "esper_kernel_outcomes", "Kernels registered in the last 24 hours by pipeline and state.", "pipeline", "state"
    ),
    _gauge(
        "esper_kernel_rejections",
        "Kernels registered in the last 24 hours that were rejected, by the stage that failed.",
        "stage",
    ),
    _gauge(
        "esper_kernel_compile_failure_ratio",
        "Share of the kernels registered in the last 24 hours and judged that was rejected.",
    ),
    _gauge(
        "esper_architecture_entropy_ratio",
        "Entropy of the blueprints that the newest grown networks kept, as a share of the greatest possible.",
    ),
    _gauge(
        "esper_architecture_distance_ratio",
        "Mean Jaccard distance between the newest grown networks by what they kept where.",
    ),
    _gauge("esper_architecture_diversity", "Entropy and distance of the newest grown networks, added: 0 to 2."),
)

RUNS = (
    _gauge("esper_runs", "Training runs by state.", "state"),
    _gauge("esper_seeds", "Seeds by state.", "state"),
    _gauge(
        "esper_seed_transitions", "Moves of seeds in the last 24 hours by operator and new state.", "operator", "state"
    ),
    _counter("esper_seed_germinations_total", "Seeds that germinated, by operator.", "operator"),
    _gauge("esper_kernel_germinations", "Seeds of the last 24 hours by kernel: the twenty most used.", "kernel"),
    _gauge("esper_adaptations", "Seeds that ended in the last 24 hours, by how.", "outcome"),
    _gauge("esper_adaptation_success_ratio", "Share of the seeds that ended in the last 24 hours which were kept."),
    _gauge(
        "esper_adaptation_rollback_ratio", "Share of the seeds that ended in the last 24 hours which were rolled back."
    ),
    _gauge("esper_recoveries", "Recoveries of runs by state and cause.", "state", "cause"),
    _histogram("esper_recovery_stage_seconds", "Seconds that each stage of the recoveries of runs took.", "stage"),
    _gauge("esper_run_train_loss", "Training loss, mean of the last 16 steps, in nats.", "run"),
    _gauge("esper_run_validation_loss", "Held-out loss after an epoch, in nats.", "run"),
    _gauge("esper_run_validation_accuracy", "Held-out accuracy after an epoch.", "run"),
    _gauge("esper_run_samples_per_second", "Samples that training went through, all work included.", "run"),
    _gauge("esper_run_gradient_norm", "Root mean square per parameter of the host's gradient.", "run"),
    _gauge("esper_run_learning_rate", "Learning rate of the optimizer.", "run"),
    _gauge("esper_run_parameters", "Trainable parameters, live seeds included.", "run"),
    _gauge("esper_run_live_seeds", "Seeds that are alive.", "run"),
    _gauge(
        "esper_run_overhead_ratio", "Time of growing (policy, gates, grafts, journal) per time of pure training.", "run"
    ),
)

CHECKPOINTS = (
    _gauge("esper_checkpoints", "Checkpoints by state.", "state"),
    _gauge(
        "esper_checkpoint_bytes",
        "Bytes: raw, each checkpoint counted whole; stored, each object counted once; "
        "garbage, needed by none; folder, the packs in the checkpoint folder.",
        "kind",
    ),
    _counter("esper_checkpoint_saves_total", "Checkpoints that were stored.", "reason"),
    _counter("esper_checkpoint_save_failures_total", "Checkpoints that were begun and not stored.", "reason"),
    _histogram("esper_checkpoint_stall_seconds", "Seconds that training stood still for a checkpoint."),
    _histogram("esper_checkpoint_save_seconds", "Seconds from the barrier until a checkpoint was durable."),
    _gauge("esper_checkpoint_jobs", "Work with checkpoints that was asked for.", "kind", "state", stored=False),
    _gauge("esper_checkpoint_age_seconds", "Of the running run whose newest checkpoint is oldest: its age."),
)

AUDIT = (
    _gauge("esper_audit_sealed_events", "Events under the newest signed checkpoint."),
    _gauge("esper_audit_unsealed_events", "Recorded events that no checkpoint covers yet."),
    _gauge("esper_audit_unsealed_age_seconds", "Age of the oldest unsealed event; it grows while nobody seals."),
    _gauge("esper_audit_uncopied_checkpoints", "Checkpoints whose note has not reached the object storage."),
    _gauge("esper_audit_checkpoint_timestamp_seconds", "When the newest checkpoint was signed."),
    _gauge("esper_audit_verification_timestamp_seconds", "When it was last verified."),
    _gauge("esper_audit_verification_findings", "Altered things found then."),
    _counter("esper_audit_alerts_total", "Alert events in the event store.", "type"),
)

OBSERVABILITY = (
    _gauge("esper_alerts", "Alerts that wait or fire.", "state", "severity"),
    _gauge("esper_alert_evaluation_seconds", "Seconds that the last evaluation of the alert rules took."),
    _gauge("esper_alert_evaluation_age_seconds", "Age of the last evaluation of the alert rules."),
    _gauge("esper_notifications", "Messages about alerts by state, as far back as they are kept.", "state"),
    _gauge("esper_notification_oldest_seconds", "Age of the oldest message that is not delivered yet."),
    _gauge("esper_collector_up", "1 if the collector could be read.", "collector"),
    _gauge("esper_collector_seconds", "Seconds that reading the collector took.", "collector", stored=False),
    _counter(
        "esper_recorder_dropped_total",
        "Readings of runs that were lost: the store did not take them in time.",
        stored=False,
    ),
)

METRICS: dict[str, MetricSpec] = {
    spec.name: spec
    for group in (SYSTEM, SERVICES, CACHE, ASSETS, RUNS, CHECKPOINTS, AUDIT, OBSERVABILITY)
    for spec in group
}
RECORDED = tuple(name for name in METRICS if name.startswith("esper_run_"))
"""What a run's worker records itself, while it trains."""
_BY_SAMPLE = {sample: spec for spec in METRICS.values() for sample in spec.samples}


def spec_of(sample: str) -> MetricSpec:
    """The metric that a sample is of, also of a histogram's ``_bucket``, ``_sum`` or ``_count``. Raises KeyError."""
    return _BY_SAMPLE[sample]


def known(sample: str) -> bool:
    """Whether a sample of that name can exist."""
    return sample in _BY_SAMPLE


def stored_names() -> Iterator[str]:
    """Names of the series that the store can have: without buckets."""
    return (name for name, spec in _BY_SAMPLE.items() if spec.stored and not name.endswith("_bucket"))
