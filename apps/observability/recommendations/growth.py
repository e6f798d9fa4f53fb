"""What growing and saving could do better: rollbacks, kernels that are never kept, plateaus, checkpoint intervals."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Avg, Count, Max, Min, Q, Sum
from django.db.models.aggregates import StdDev

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, SaveReason
from apps.core.ids import first_id
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import FieldReport
from apps.morphogenesis.lifecycle import SeedState
from apps.observability.intervals import mean_of, share
from apps.observability.models import Severity
from apps.observability.performance import Fates, Plateau
from apps.observability.recommendations.contracts import (
    Evidence,
    Recommendation,
    Rule,
    duration,
    measured,
    percent,
)
from apps.observability.recommendations.facts import Facts

MOST = 20
OBSTACLES = {
    "growth.max_seeds": "It has had as many seeds as it may: give its next run a larger growth.max_seeds.",
    "growth.deadline": "It is past its deadline for growing: give its next run a later growth.deadline.",
    "": "Look at what its policy decided, and why: no slot was chosen.",
}


def rollbacks(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Of an operator or a kernel, certainly above the limit."""
    groups = [("operator", group) for group in facts.adaptation.operators]
    groups += [("kernel", group) for group in facts.adaptation.kernels]
    for kind, group in groups:
        low = group.rolled_back.low
        if group.ended >= rule.limits["least_seeds"] and low is not None and low > rule.limits["rollback_ratio"]:
            yield _rolled_back(rule, kind, group)


def _rolled_back(rule: Rule, kind: str, group: Fates) -> Recommendation:
    rolled, link = group.rolled_back, f"/library/kernels/{group.kernel_id}" if group.kernel_id else "/runs"
    is_kernel = kind == "kernel"
    return Recommendation(
        rule=rule.key,
        subject=f"{kind} {group.name}",
        severity=Severity.WARNING,
        sentence=f"{rolled.count} of the {rolled.n} seeds of {kind} {group.name} that ended within a week were "
        f"rolled back: {percent(rolled.value)}.",
        evidence=(
            measured("rolled back", rolled, unit="ratio", link=link),
            measured("kept", group.kept, unit="ratio", link=link),
        ),
        remedy="Deprecate or quarantine the kernel, so that no run plants it."
        if is_kernel
        else "Lower the learning rate or growth.max_gradient_ratio of new runs, or ramp more slowly "
        "(growth.ramp_epochs).",
        link=link,
    )


def never_kept(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Validated kernels that runs have tried, and none has kept. One query."""
    rows = (
        FieldReport.objects.filter(kernel__state=KernelState.VALIDATED)
        .order_by()
        .values("kernel_id", "kernel__name")
        .annotate(
            grafts=Count("pk"),
            kept=Count("pk", filter=Q(verdict=SeedState.FOSSILIZED)),
            measured=Count("contribution"),
            gain=Avg("contribution"),
            spread=StdDev("contribution", sample=True),
        )
        .filter(grafts__gte=int(rule.limits["least_grafts"]), kept=0)
        .order_by("-grafts", "kernel_id")[:MOST]
    )
    for row in rows:
        link = f"/library/kernels/{row['kernel_id']}"
        yield Recommendation(
            rule=rule.key,
            subject=f"kernel {row['kernel_id']}",
            severity=Severity.INFO,
            sentence=f"Kernel {row['kernel__name']} was grafted {row['grafts']} times and never kept: "
            "it takes seeds that others could use.",
            evidence=(
                measured("kept", share(0, row["grafts"]), unit="ratio", link=link),
                measured("mean gain", mean_of(row["measured"], row["gain"], row["spread"]), unit="nats", link=link),
            ),
            remedy="Deprecate the kernel; a retention plan retires what is not used.",
            link=link,
        )


def plateaus(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Running runs that neither improve nor grow, and have slots to grow in."""
    for found in facts.plateaus:
        if found.epochs >= rule.limits["least_epochs"]:
            yield _plateau(rule, found)


def _plateau(rule: Rule, found: Plateau) -> Recommendation:
    link = f"/runs/{found.run_id}"
    return Recommendation(
        rule=rule.key,
        subject=f"run {found.run_id}",
        severity=Severity.INFO,
        sentence=f"Run {found.name} has not improved for {found.epochs} epochs, grows nothing, and has "
        f"{found.free_slots} free slots.",
        evidence=(
            Evidence(
                what="held-out loss an epoch",
                value=found.slope,
                unit="nats",
                n=found.epochs,
                low=found.low,
                high=found.high,
                link=link,
            ),
            Evidence(what="p of a trend", value=found.p, n=found.epochs, link=link),
            Evidence(what="free slots", value=found.free_slots, link=link),
        ),
        remedy=OBSTACLES[found.obstacle] + " Or stop it: it will hardly become better.",
        link=link,
    )


def checkpoint_interval(facts: Facts, rule: Rule) -> Iterator[Recommendation]:
    """Saves that cost too much of the training time, or so little that more of them would be nearly free. Of the runs
    that saved within a day. One query."""
    since = facts.now - timedelta(days=1)
    rows = (
        Checkpoint.objects.filter(
            pk__gte=first_id(since - timedelta(minutes=5)),
            created_at__gte=since,
            state=CheckpointState.COMMITTED,
            reason__in=(SaveReason.EPOCH, SaveReason.INTERVAL),
            stall_seconds__isnull=False,
        )
        .order_by()
        .values("run_id")
        .annotate(
            saves=Count("pk"),
            stall=Sum("stall_seconds"),
            first=Min("created_at"),
            last=Max("created_at"),
        )
        .filter(saves__gte=int(rule.limits["least_saves"]))
        .order_by("-stall", "run_id")[: 10 * MOST]
    )
    found = (_interval(rule, _Saves(**row)) for row in rows)
    yield from [recommended for recommended in found if recommended is not None][:MOST]


@dataclass(frozen=True, slots=True)
class _Saves:
    """Those of a run; ``stall`` in seconds, of all together."""

    run_id: UUID
    saves: int
    stall: float
    first: datetime
    last: datetime


def _interval(rule: Rule, found: _Saves) -> Recommendation | None:
    limits, saves, run_id = rule.limits, found.saves, found.run_id
    gap, cost = (found.last - found.first).total_seconds() / (saves - 1), found.stall / saves
    if gap <= 0:
        return None
    overhead, cheap = cost / gap, cost / limits["auto_ratio"]
    if overhead > limits["overhead_ratio"]:
        sentence = f"Saving takes {percent(overhead)} of the training time of run …{str(run_id)[-6:]}: it saves "
        sentence += f"every {duration(gap)}, and a save holds it up for {duration(cost)}."
        remedy = "Give the run a checkpoint policy with the schedule auto or a longer interval, or new runs more "
        remedy += "snapshot_epochs."
    elif gap > limits["long_seconds"] and gap > limits["times_cheap"] * cheap:
        sentence = f"A crash of run …{str(run_id)[-6:]} loses up to {duration(gap)}, although a save holds it up for "
        sentence += f"{duration(cost)} only: every {duration(cheap)} would cost {percent(limits['auto_ratio'])}."
        remedy = "Give the run a checkpoint policy with the schedule auto or a shorter interval."
    else:
        return None
    link = f"/runs/{run_id}"
    return Recommendation(
        rule=rule.key,
        subject=f"run {run_id}",
        severity=Severity.INFO,
        sentence=sentence,
        evidence=(
            Evidence(what="share of the training time", value=overhead, unit="ratio", n=saves, link=link),
            Evidence(what="time between saves", value=gap, unit="seconds", n=saves, link=link),
            Evidence(what="time that a save takes", value=cost, unit="seconds", n=saves, link=link),
        ),
        remedy=remedy,
        link=link,
    )
