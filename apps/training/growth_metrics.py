"""What `/metrics` tells about growing: moves and ends of seeds, how much the grown networks differ, old checkpoints."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from datetime import timedelta
from itertools import combinations

from django.db.models import Count, OuterRef, Subquery
from django.utils import timezone
from prometheus_client.core import Metric

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.ids import first_id
from apps.core.registry import registry
from apps.kernels.models import Kernel
from apps.morphogenesis.lifecycle import SeedState
from apps.observability.collectors.families import families, family
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, Seed, SeedTransition, TrainingRun

WINDOW = timedelta(hours=24)
MOST_KERNELS = 20
MOST_NETWORKS = 50
ENDS = (SeedState.FOSSILIZED, SeedState.CULLED, SeedState.CANCELLED, SeedState.ROLLED_BACK)

Architecture = frozenset[tuple[str, str]]
"""What a grown network kept: (site, digest of the blueprint's version)."""


def moves() -> Iterable[Metric]:
    """Of the last 24 hours, found by the ids' time. Two queries."""
    recent = SeedTransition.objects.filter(pk__gte=first_id(timezone.now() - WINDOW)).order_by()
    rows = recent.values_list("seed__operator", "target").annotate(number=Count("pk"))
    counts = {(operator, state): float(number) for operator, state, number in rows}
    fates = {(str(end),): sum(n for (_, state), n in counts.items() if state == end) for end in ENDS}
    ended = sum(fates.values())
    kernels = (
        recent.filter(target=SeedState.GERMINATED)
        .values_list("seed__kernel_name")
        .annotate(number=Count("pk"))
        .order_by("-number", "seed__kernel_name")[:MOST_KERNELS]
    )
    return families(
        {
            "esper_seed_transitions": counts,
            "esper_adaptations": fates,
            "esper_adaptation_success_ratio": fates[(SeedState.FOSSILIZED,)] / ended if ended else None,
            "esper_adaptation_rollback_ratio": fates[(SeedState.ROLLED_BACK,)] / ended if ended else None,
            "esper_kernel_germinations": {(name or "unnamed",): number for name, number in kernels},
        }
    )


def germinations() -> Iterable[Metric]:
    """Rows of seeds are never deleted. One query."""
    rows = Seed.objects.order_by().values_list("operator").annotate(number=Count("pk"))
    yield family("esper_seed_germinations_total", {(operator,): number for operator, number in rows})


def diversity() -> Iterable[Metric]:
    """How much the newest completed networks that kept a graft differ. Nothing while there are none. Two queries."""
    networks = architectures()
    blueprints = Counter(blueprint for network in networks for _, blueprint in network)
    evenness, apart = entropy(blueprints), distance(networks)
    return families(
        {
            "esper_architecture_entropy_ratio": evenness if networks else None,
            "esper_architecture_distance_ratio": apart if networks else None,
            "esper_architecture_diversity": evenness + apart if networks else None,
        }
    )


def architectures() -> list[Architecture]:
    """Of the newest completed runs, what each kept; those that kept nothing are left out."""
    newest = TrainingRun.objects.filter(state=RunState.COMPLETED, kind=RunKind.INTERNAL).order_by("-pk")
    kept = list(
        Seed.objects.filter(state=SeedState.FOSSILIZED, run__in=newest.values("pk")[:MOST_NETWORKS])
        .order_by()
        .values_list("run_id", "slot__site", "kernel_id", "kernel_digest")
    )
    blueprints = dict(
        Kernel.objects.filter(pk__in={kernel for *_, kernel, _ in kept if kernel})
        .order_by()
        .values_list("pk", "blueprint_version__digest")
    )
    found: dict[Hashable, set[tuple[str, str]]] = {}
    for run, site, kernel, digest in kept:
        found.setdefault(run, set()).add((site, blueprints.get(kernel, digest) if kernel else digest))
    return [frozenset(network) for network in found.values()]


def entropy(counts: Counter[str]) -> float:
    """Shannon's entropy of the counts as a share of the greatest that so many kinds can have (Pielou's evenness):
    1: each as often as the others; 0: one kind only."""
    if len(counts) < 2:
        return 0.0
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values()) / math.log(len(counts))


def distance(networks: Sequence[Architecture]) -> float:
    """Mean Jaccard distance of each two: 0: all alike; 1: none has anything in common with another."""
    pairs = [1 - len(one & other) / len(one | other) for one, other in combinations(networks, 2)]
    return math.fsum(pairs) / len(pairs) if pairs else 0.0


def checkpoint_age() -> Iterable[Metric]:
    """Seconds since the newest checkpoint, or the start of one that has none, of the run that it is longest of."""
    newest = Checkpoint.objects.filter(run_id=OuterRef("pk"), state=CheckpointState.COMMITTED).order_by("-step", "-id")
    running = TrainingRun.objects.filter(state=RunState.RUNNING, kind__in=[RunKind.INTERNAL, RunKind.CONTROL])
    rows = running.order_by().values_list("started_at", Subquery(newest.values("created_at")[:1]))
    saved = [at or began for began, at in rows if at or began]
    age = (timezone.now() - min(saved)).total_seconds() if saved else None
    yield family("esper_checkpoint_age_seconds", age)


registry.collectors["seed_moves"] = moves
registry.collectors["seed_germinations"] = germinations
registry.collectors["architecture"] = diversity
registry.collectors["checkpoint_age"] = checkpoint_age
