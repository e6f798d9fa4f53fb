"""The rules that come with the platform, as data.

Rows are made of them (``services.rules.install_shipped``), which people edit; a change here changes no row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from apps.observability.models import RuleKind, Severity

MINUTE, HOUR, DAY = 60, 3600, 86_400
ANY_METRIC = "*"
"""Of rules about anomalies: every series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One rule; the fields are those of ``AlertRule``, and ``key`` is what its row is known by."""

    key: str
    name: str
    description: str
    kind: str
    metric: str
    parameters: Mapping[str, Any]
    summary: str
    remedy: str
    severity: str = Severity.WARNING
    matchers: tuple[Mapping[str, str], ...] = ()
    for_seconds: int = 0
    keep_firing_seconds: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    inhibited_by: tuple[Mapping[str, Any], ...] = ()
    enabled: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """What ``services.rules.create_rule`` takes."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self) if each.name != "key"}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value


def _is(label: str, value: str) -> dict[str, str]:
    return {"label": label, "op": "=", "value": value}


TRAINING = (
    Shipped(
        key="loss-not-finite",
        name="Loss is not finite",
        description="A training loss is NaN or infinite: what is trained from there on is lost.",
        kind=RuleKind.NON_FINITE,
        metric="esper_run_train_loss",
        parameters={"window_seconds": 300},
        keep_firing_seconds=60,
        severity=Severity.CRITICAL,
        summary="The loss of run {run} is {value}",
        remedy="Set the run back to its newest good checkpoint, with a lower learning rate.",
    ),
    Shipped(
        key="loss-spike",
        name="Loss spike",
        description="A training loss leapt far above the robust median of those before it.",
        kind=RuleKind.SPIKE,
        metric="esper_run_train_loss",
        parameters={"direction": "up", "score": 10.0, "recent_seconds": 60, "window_seconds": 6 * HOUR},
        keep_firing_seconds=120,
        summary="The loss of run {run} leapt to {value}, beyond {threshold}",
        remedy="Look at what was grafted then. If the loss does not come back, set the run back to a checkpoint.",
        inhibited_by=({"rule": "Loss is not finite", "equal": ["run"]},),
    ),
    Shipped(
        key="gradient-norm-spike",
        name="Gradient norm spike",
        description="The gradient's norm leapt far above its robust median.",
        kind=RuleKind.SPIKE,
        metric="esper_run_gradient_norm",
        parameters={"direction": "up", "score": 12.0, "recent_seconds": 60, "window_seconds": 6 * HOUR},
        keep_firing_seconds=120,
        summary="The gradient norm of run {run} leapt to {value}, beyond {threshold}",
        remedy="Look at the loss of the run. Again and again: lower the learning rate.",
        inhibited_by=({"rule": "Loss is not finite", "equal": ["run"]},),
    ),
    Shipped(
        key="loss-plateau",
        name="Loss plateau",
        description="The held-out loss has not become better for twenty epochs.",
        kind=RuleKind.PLATEAU,
        metric="esper_run_validation_loss",
        parameters={"direction": "down", "samples": 20, "percent": 0.5},
        for_seconds=60,
        severity=Severity.INFO,
        summary="The held-out loss of run {run} stands at {value}",
        remedy="Let the run grow, lower its learning rate, or let it end.",
    ),
    Shipped(
        key="dead-seeds",
        name="Dead seeds",
        description="Many seeds of one operator were culled within a day: they died before they helped.",
        kind=RuleKind.THRESHOLD,
        metric="esper_seed_transitions",
        matchers=(_is("state", "CULLED"),),
        parameters={"op": ">", "value": 50},
        for_seconds=5 * MINUTE,
        severity=Severity.INFO,
        summary="{value} seeds of {operator} were culled within a day",
        remedy="Look at why their gates refused them, and at the blueprints that they were of.",
    ),
    Shipped(
        key="rollback-rate",
        name="Rollback rate is high",
        description="More than 10 % of the seeds that ended in the last day were rolled back.",
        kind=RuleKind.THRESHOLD,
        metric="esper_adaptation_rollback_ratio",
        parameters={"op": ">", "value": 0.10},
        for_seconds=5 * MINUTE,
        keep_firing_seconds=10 * MINUTE,
        summary="A share of {value} of the adaptations was rolled back; {threshold} is allowed",
        remedy="Look at which kernels were rolled back, and quarantine one that always is.",
    ),
    Shipped(
        key="adaptation-success",
        name="Adaptations seldom succeed",
        description="Less than half of the seeds that ended in the last day were kept.",
        kind=RuleKind.THRESHOLD,
        metric="esper_adaptation_success_ratio",
        parameters={"op": "<", "value": 0.50},
        for_seconds=10 * MINUTE,
        keep_firing_seconds=10 * MINUTE,
        severity=Severity.INFO,
        summary="A share of {value} of the adaptations was kept; {threshold} is expected",
        remedy="Compare blueprints and operators: let those grow that were kept.",
    ),
    Shipped(
        key="compile-failures",
        name="Kernels fail to compile",
        description="More than 5 % of the kernels of the last day were rejected.",
        kind=RuleKind.THRESHOLD,
        metric="esper_kernel_compile_failure_ratio",
        parameters={"op": ">", "value": 0.05},
        for_seconds=5 * MINUTE,
        keep_firing_seconds=10 * MINUTE,
        summary="A share of {value} of the kernels was rejected; {threshold} is allowed",
        remedy="The rejected kernels name the stage at which they failed, and why.",
    ),
    Shipped(
        key="training-overhead",
        name="Growing costs too much",
        description="Growing takes more than 5 % on top of pure training.",
        kind=RuleKind.THRESHOLD,
        metric="esper_run_overhead_ratio",
        parameters={"op": ">", "value": 0.05, "reading": "mean", "window_seconds": 600, "least_samples": 3},
        for_seconds=2 * MINUTE,
        keep_firing_seconds=5 * MINUTE,
        summary="Growing costs run {run} a share of {value} on top of its training; {threshold} is allowed",
        remedy="Let fewer seeds live at once, or have gates and ablations measured less often.",
    ),
    Shipped(
        key="gpu-memory-growth",
        name="GPU memory grew",
        description="A GPU holds 50 % more than an hour ago.",
        kind=RuleKind.CHANGE,
        metric="esper_gpu_memory_bytes",
        matchers=(_is("kind", "used"),),
        parameters={"direction": "up", "percent": 50, "window_seconds": 300, "baseline_seconds": HOUR},
        for_seconds=2 * MINUTE,
        keep_firing_seconds=5 * MINUTE,
        summary="GPU {gpu} of {host} holds {value} bytes, {percent} % more than before",
        remedy="A run that has just begun explains it. Otherwise look for one whose networks grow without bound.",
    ),
    Shipped(
        key="recovery-failed",
        name="A recovery failed",
        description="A run could not be brought back after its worker was lost.",
        kind=RuleKind.THRESHOLD,
        metric="esper_recoveries",
        matchers=(_is("state", "FAILED"),),
        parameters={"op": ">", "value": 0, "reading": "increase", "window_seconds": HOUR},
        severity=Severity.CRITICAL,
        summary="{value} recoveries failed within an hour (cause: {cause})",
        remedy="The page Recovery names the stage that failed and the checkpoint that the run can go on from.",
    ),
    Shipped(
        key="checkpoint-age",
        name="A run has no new checkpoint",
        description="The newest checkpoint of a running run is older than two hours.",
        kind=RuleKind.THRESHOLD,
        metric="esper_checkpoint_age_seconds",
        parameters={"op": ">", "value": 2 * HOUR},
        for_seconds=5 * MINUTE,
        summary="The newest checkpoint of a running run is {value} seconds old",
        remedy="Look at its checkpoint policy and at the free space of the checkpoint folder; save it by hand.",
    ),
    Shipped(
        key="checkpoint-failures",
        name="Checkpoints are not saved",
        description="A checkpoint was begun and not stored.",
        kind=RuleKind.THRESHOLD,
        metric="esper_checkpoint_save_failures_total",
        parameters={"op": ">", "value": 0, "reading": "increase", "window_seconds": HOUR},
        summary="{value} checkpoints failed within an hour ({reason})",
        remedy="The run's checkpoints name the problem; most often the disk is full.",
    ),
)

PLATFORM = (
    Shipped(
        key="disk-full-soon",
        name="Disk is full soon",
        description="By its trend of six hours, a disk is 95 % full within a day.",
        kind=RuleKind.FORECAST,
        metric="esper_host_disk_used_ratio",
        parameters={"op": ">=", "value": 0.95, "hours": 24, "window_seconds": 6 * HOUR},
        for_seconds=10 * MINUTE,
        keep_firing_seconds=30 * MINUTE,
        summary="Disk {disk} of {host} is full in {reaches_in_hours} hours; a share of {value} is used",
        remedy="Let retention take checkpoints and kernels, archive them, or give the disk room.",
        inhibited_by=({"rule": "Disk is nearly full", "equal": ["host", "disk"]},),
    ),
    Shipped(
        key="disk-nearly-full",
        name="Disk is nearly full",
        description="More than 90 % of a disk is used.",
        kind=RuleKind.THRESHOLD,
        metric="esper_host_disk_used_ratio",
        parameters={"op": ">", "value": 0.90},
        for_seconds=2 * MINUTE,
        keep_firing_seconds=5 * MINUTE,
        severity=Severity.CRITICAL,
        summary="A share of {value} of disk {disk} of {host} is used",
        remedy="Let retention take checkpoints and kernels, archive them, or give the disk room.",
    ),
    Shipped(
        key="memory-nearly-full",
        name="Memory is nearly full",
        description="More than 92 % of a host's memory is not available.",
        kind=RuleKind.THRESHOLD,
        metric="esper_host_memory_used_ratio",
        parameters={"op": ">", "value": 0.92, "reading": "mean", "window_seconds": 300, "least_samples": 4},
        keep_firing_seconds=5 * MINUTE,
        summary="A share of {value} of the memory of {host} is used",
        remedy="Pause a run, or let fewer workers run there.",
    ),
    Shipped(
        key="database-connections",
        name="Database connections run out",
        description="More than 80 % of the database's connections are in use.",
        kind=RuleKind.THRESHOLD,
        metric="esper_database_connections_used_ratio",
        parameters={"op": ">", "value": 0.80},
        for_seconds=2 * MINUTE,
        keep_firing_seconds=5 * MINUTE,
        severity=Severity.CRITICAL,
        summary="A share of {value} of the database's connections is in use",
        remedy="Look at which processes hold them; let fewer workers run, or raise max_connections.",
    ),
    Shipped(
        key="redis-memory",
        name="Redis memory is nearly full",
        description="A Redis uses more than 90 % of what it may.",
        kind=RuleKind.THRESHOLD,
        metric="esper_redis_memory_used_ratio",
        parameters={"op": ">", "value": 0.90},
        for_seconds=5 * MINUTE,
        keep_firing_seconds=5 * MINUTE,
        summary="A share of {value} of the memory of Redis ({server}) is used",
        remedy="A cache gives up its oldest by itself. A broker does not: look at the queues, and raise maxmemory.",
    ),
    Shipped(
        key="queue-unserved",
        name="No worker serves a queue",
        description="No worker of a queue gave a sign of life lately.",
        kind=RuleKind.THRESHOLD,
        metric="esper_queue_served",
        parameters={"op": "<", "value": 1},
        for_seconds=MINUTE,
        severity=Severity.CRITICAL,
        summary="No worker serves the queue {queue}",
        remedy="Start a worker of that queue (the page Fleet shows which are alive).",
    ),
    Shipped(
        key="queue-age",
        name="Tasks wait too long",
        description="The oldest task of a queue has waited for more than five minutes.",
        kind=RuleKind.THRESHOLD,
        metric="esper_queue_oldest_age_seconds",
        parameters={"op": ">", "value": 300},
        for_seconds=2 * MINUTE,
        keep_firing_seconds=2 * MINUTE,
        summary="The oldest task of the queue {queue} has waited {value} seconds",
        remedy="Start another worker of that queue, or wait: runs that train hold their workers for hours.",
        inhibited_by=({"rule": "No worker serves a queue", "equal": ["queue"]},),
    ),
    Shipped(
        key="queue-length",
        name="A queue is long",
        description="More than 1,000 tasks wait in a queue.",
        kind=RuleKind.THRESHOLD,
        metric="esper_queue_messages",
        parameters={"op": ">", "value": 1000},
        for_seconds=5 * MINUTE,
        keep_firing_seconds=5 * MINUTE,
        summary="{value} tasks wait in the queue {queue}",
        remedy="Start another worker of that queue.",
        inhibited_by=({"rule": "No worker serves a queue", "equal": ["queue"]},),
    ),
    Shipped(
        key="cache-hit-ratio",
        name="The cache seldom hits",
        description="Less than half of the reads that came as far as a tier of the cache were answered there.",
        kind=RuleKind.THRESHOLD,
        metric="esper_cache_hit_ratio",
        parameters={"op": "<", "value": 0.5, "reading": "max", "window_seconds": HOUR, "least_samples": 20},
        for_seconds=10 * MINUTE,
        keep_firing_seconds=10 * MINUTE,
        severity=Severity.INFO,
        summary="Tier {tier} of the cache answers a share of {value} of its reads",
        remedy="Warm the cache, or give the tier more room: the page Cache says what it costs.",
    ),
    Shipped(
        key="cache-breaker-open",
        name="A cache tier is left alone",
        description="A tier of the cache failed so often that processes go past it.",
        kind=RuleKind.THRESHOLD,
        metric="esper_cache_breakers_open",
        parameters={"op": ">", "value": 0},
        for_seconds=MINUTE,
        keep_firing_seconds=2 * MINUTE,
        summary="{value} processes leave tier {tier} of the cache alone",
        remedy="Look at whether Redis, or the object storage, answers. They are tried again by themselves.",
    ),
    Shipped(
        key="audit-unsealed",
        name="The audit trail is not sealed",
        description="An event of the audit trail has waited for more than a minute for its seal.",
        kind=RuleKind.THRESHOLD,
        metric="esper_audit_unsealed_age_seconds",
        parameters={"op": ">", "value": 60},
        for_seconds=MINUTE,
        severity=Severity.CRITICAL,
        summary="The oldest unsealed event of the audit trail is {value} seconds old",
        remedy="Look at whether beat and a worker of the default queue run, and at the signing key.",
    ),
    Shipped(
        key="audit-findings",
        name="The audit trail was altered",
        description="The last verification found something that is not as it was signed.",
        kind=RuleKind.THRESHOLD,
        metric="esper_audit_verification_findings",
        parameters={"op": ">", "value": 0},
        severity=Severity.CRITICAL,
        summary="The verification of the audit trail found {value} altered things",
        remedy="Run manage.py verify_audit: it names them. Then look at who had access to the database.",
    ),
    Shipped(
        key="collector-down",
        name="A collector cannot be read",
        description="A part of the platform cannot be measured.",
        kind=RuleKind.THRESHOLD,
        metric="esper_collector_up",
        parameters={"op": "<", "value": 1},
        for_seconds=MINUTE,
        summary="The collector {collector} cannot be read",
        remedy="The worker's log says why.",
    ),
    Shipped(
        key="collectors-silent",
        name="Nothing is measured",
        description="The platform's own samples do not come any more: no rule can say anything.",
        kind=RuleKind.ABSENCE,
        metric="esper_collector_up",
        parameters={"after_seconds": 120, "forget_seconds": HOUR},
        for_seconds=MINUTE,
        severity=Severity.CRITICAL,
        summary="The collector {collector} has been silent for {value} seconds",
        remedy="Look at whether beat and a worker of the default queue run.",
    ),
    Shipped(
        key="anomalies",
        name="Something is odd",
        description="The detector found a series to behave as it never does.",
        kind=RuleKind.ANOMALY,
        metric=ANY_METRIC,
        parameters={"window_seconds": 600},
        severity=Severity.INFO,
        summary="{metric} is odd at {value}",
        remedy="The page Anomalies says what made the detector think so.",
    ),
)

SHIPPED: dict[str, Shipped] = {rule.key: rule for rule in (*TRAINING, *PLATFORM)}
