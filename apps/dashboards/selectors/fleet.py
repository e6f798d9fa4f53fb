"""What stands behind the platform now: its parts, and who trains what."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.core.registry import registry
from apps.training.lifecycle import RunState
from apps.training.models import RunLease

MAX_LEASES = 100


@dataclass(frozen=True, slots=True)
class Part:
    """``problem`` is empty for a part that answers."""

    name: str
    problem: str


def parts() -> list[Part]:
    """Every readiness check that the apps have registered, asked now."""
    return [Part(name=name, problem=check()) for name, check in sorted(registry.readiness.items())]


def leases() -> Sequence[RunLease]:
    """Running runs, with the worker that holds each and its last sign of life."""
    running = RunLease.objects.filter(run__state__in=[RunState.RUNNING, RunState.RECOVERING])
    return list(running.select_related("run").defer("run__settings", "run__library").order_by("-run_id")[:MAX_LEASES])
