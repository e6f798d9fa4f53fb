"""What stands behind the platform now: its parts, and who trains what."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from redis.exceptions import RedisError

from apps.core import heartbeats
from apps.core.registry import registry
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
    """``is_served`` is None when the broker, which holds the workers' signs of life, does not answer."""

    name: str
    work: str
    is_served: bool | None


def queues() -> list[Queue]:
    """The queues that the platform needs, and whether a worker served each in the last seconds."""
    names = list(settings.REQUIRED_QUEUES)
    try:
        silent = set(heartbeats.silent_queues(names))
    except (RedisError, OSError):
        return [Queue(name=name, work=WORK.get(name, ""), is_served=None) for name in names]
    return [Queue(name=name, work=WORK.get(name, ""), is_served=name not in silent) for name in names]


def waiting() -> int:
    """Runs that wait for a train worker."""
    return TrainingRun.objects.filter(state=RunState.QUEUED).exclude(kind=RunKind.EXTERNAL).count()


def leases() -> Sequence[RunLease]:
    """Running runs, with the worker that holds each and its last sign of life."""
    running = RunLease.objects.filter(run__state__in=[RunState.RUNNING, RunState.RECOVERING])
    return list(running.select_related("run").defer("run__settings", "run__library").order_by("-run_id")[:MAX_LEASES])
