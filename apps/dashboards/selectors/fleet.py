"""What stands behind the platform now: its parts, its hosts, its queues, who trains what, and what runs short."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.utils import timezone
from redis.exceptions import RedisError

from apps.core import heartbeats
from apps.core.registry import registry
from apps.dashboards import units
from apps.dashboards.selectors.metrics import STALE_SECONDS, Chart
from apps.observability.contracts import Latest
from apps.observability.store import reading
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, RunLease, TrainingRun

MAX_LEASES = 100
WORK: dict[str, str] = {
    "default": "takes up lost runs, retention, house-keeping",
    "train": "trains runs, one at a time",
    "compile": "compiles and validates kernels in a sandbox",
}


@dataclass(frozen=True, slots=True)
class Part:
    """``problem`` is empty for a part that answers."""

    name: str
    problem: str


def parts() -> list[Part]:
    """Every readiness check that the apps have registered, asked now."""
    return [Part(name=name, problem=check()) for name, check in sorted(registry.readiness.items())]


@dataclass(frozen=True, slots=True)
class Queue:
    """``is_served`` is None when the broker, which holds the workers' signs of life, does not answer. ``waiting``: its
    messages, and how long the oldest waits; both as the collectors read them last."""

    name: str
    work: str
    is_served: bool | None
    waiting: "Signal | None" = None
    oldest: "Signal | None" = None


def queues(signals: "Signals") -> list[Queue]:
    """The queues that the platform needs, and whether a worker served each in the last seconds."""
    names = list(settings.REQUIRED_QUEUES)
    silent: set[str] | None
    try:
        silent = set(heartbeats.silent_queues(names))
    except (RedisError, OSError):
        silent = None
    return [
        Queue(
            name=name,
            work=WORK.get(name, ""),
            is_served=None if silent is None else name not in silent,
            waiting=signals.of("esper_queue_messages", queue=name),
            oldest=signals.of("esper_queue_oldest_age_seconds", queue=name),
        )
        for name in names
    ]


def waiting() -> int:
    """Runs that wait for a train worker."""
    return TrainingRun.objects.filter(state=RunState.QUEUED).exclude(kind=RunKind.EXTERNAL).count()


def leases() -> Sequence[RunLease]:
    """Running runs, with the worker that holds each and its last sign of life."""
    running = RunLease.objects.filter(run__state__in=[RunState.RUNNING, RunState.RECOVERING])
    return list(running.select_related("run").defer("run__settings", "run__library").order_by("-run_id")[:MAX_LEASES])


# --- Signals: the newest sample of what tells how hosts and servers are


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """The newest value of a series, and whether it is older than it should be."""

    words: str
    value: float
    at: datetime
    is_stale: bool
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine that has processes of the platform. ``last_at``: its newest signal."""

    name: str
    cpu: Signal | None
    load: Signal | None
    memory: Signal | None
    disks: Sequence[Signal]
    last_at: datetime
    is_stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number of the first screen: the worst of all series. ``sub`` says of how many, or which."""

    title: str
    signal: Signal | None
    sub: str


READ = (
    "esper_host_cpu_ratio",
    "esper_host_load",
    "esper_host_memory_used_ratio",
    "esper_host_disk_used_ratio",
    "esper_queue_messages",
    "esper_queue_oldest_age_seconds",
    "esper_database_connections_used_ratio",
    "esper_redis_memory_used_ratio",
    "esper_collector_up",
    "esper_gpu_utilisation_ratio",
)
FIGURES: tuple[tuple[str, str, str], ...] = (
    ("Processors busy", "esper_host_cpu_ratio", "host"),
    ("Memory used", "esper_host_memory_used_ratio", "host"),
    ("Disk used", "esper_host_disk_used_ratio", "disk"),
    ("Messages waiting", "esper_queue_messages", "queue"),
    ("Database connections used", "esper_database_connections_used_ratio", ""),
    ("Redis memory used", "esper_redis_memory_used_ratio", "server"),
)
"""(title, metric, label that tells its series apart)."""
CHARTS: tuple[tuple[str, str], ...] = (
    ("Processors busy", "esper_host_cpu_ratio"),
    ("Memory used", "esper_host_memory_used_ratio"),
    ("Disk used", "esper_host_disk_used_ratio"),
    ("Messages waiting", "esper_queue_messages"),
    ("Oldest message", "esper_queue_oldest_age_seconds"),
    ("Database connections", "esper_database_connections"),
)
GPU_CHARTS: tuple[tuple[str, str], ...] = (
    ("GPUs busy", "esper_gpu_utilisation_ratio"),
    ("GPU memory used", "esper_gpu_memory_used_ratio"),
)
"""Where a host has one."""


class Signals:
    """The newest samples of ``READ``, looked up by name and labels."""

    def __init__(self, found: Iterable[Latest], now: datetime) -> None:
        self.now = now
        self._by_name: dict[str, list[Signal]] = {}
        for row in found:
            self._by_name.setdefault(row.series.name, []).append(self._signal(row))

    def _signal(self, row: Latest) -> Signal:
        return Signal(
            words=units.told(row.value, row.series.unit),
            value=row.value,
            at=row.at,
            is_stale=self.now - row.at > timedelta(seconds=STALE_SECONDS),
            labels=row.series.labels,
        )

    def all(self, name: str) -> list[Signal]:
        return self._by_name.get(name, [])

    def of(self, name: str, **labels: str) -> Signal | None:
        """The first whose labels say so."""
        return next((found for found in self.all(name) if labels.items() <= dict(found.labels).items()), None)

    @property
    def last_at(self) -> datetime | None:
        return max((found.at for some in self._by_name.values() for found in some), default=None)

    @property
    def is_stale(self) -> bool:
        return self.last_at is not None and self.now - self.last_at > timedelta(seconds=STALE_SECONDS)


def signals() -> Signals:
    """Two queries."""
    return Signals(reading.latest(names=READ), timezone.now())


def hosts(found: Signals) -> list[Host]:
    """By name; those that have told nothing for longer than the store keeps samples unpacked are gone."""
    told = (*found.all("esper_host_cpu_ratio"), *found.all("esper_host_memory_used_ratio"))
    names = sorted({row.labels["host"] for row in told if row.labels.get("host")})
    return [_host(name, found) for name in names]


def _host(name: str, found: Signals) -> Host:
    disks = [disk for disk in found.all("esper_host_disk_used_ratio") if disk.labels.get("host") == name]
    parts = {
        part: found.of(f"esper_host_{metric}", host=name)
        for part, metric in (("cpu", "cpu_ratio"), ("load", "load"), ("memory", "memory_used_ratio"))
    }
    last_at = max(signal.at for signal in [*parts.values(), *disks] if signal is not None)
    is_stale = found.now - last_at > timedelta(seconds=STALE_SECONDS)
    return Host(name=name, disks=disks, last_at=last_at, is_stale=is_stale, **parts)


def figures(found: Signals) -> list[Figure]:
    """The worst of each: what runs short first."""
    shown = []
    for title, metric, label in FIGURES:
        signals = [signal for signal in found.all(metric) if not signal.is_stale] or found.all(metric)
        worst = max(signals, key=lambda signal: signal.value, default=None)
        sub = ""
        if worst is not None and label:
            which = worst.labels.get(label, "")
            sub = f"{which}, the highest of {len(signals)}" if len(signals) > 1 else which
        shown.append(Figure(title=title, signal=worst, sub=sub))
    return shown


def charts(word: str, found: Signals) -> list[Chart]:
    """``word`` is a key of ``metrics.RANGES``."""
    shown = CHARTS + (GPU_CHARTS if found.all(GPU_CHARTS[0][1]) else ())
    return [
        Chart(
            title=title,
            axis=units.axis_title(metric),
            query=urlencode({"name": metric, "range": word, "title": title}),
        )
        for title, metric in shown
    ]


def silent_collectors(found: Signals) -> list[str]:
    """Collectors that could not read what they are there for."""
    return sorted(row.labels.get("collector", "") for row in found.all("esper_collector_up") if row.value == 0)
