"""Retirement as people look at it: policies in words, plans with their items, what keeps a kernel or lets it go."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone

from apps.audit import selectors as audit
from apps.dashboards import numbers
from apps.dashboards.selectors import trail
from apps.dashboards.selectors.paging import NewestPage, newest
from apps.kernels.lifecycle import PlanState
from apps.kernels.models import Kernel, RetentionItem, RetentionPlan, RetentionPolicy
from apps.kernels.retention.explaining import Explanation, explain

PLANS_SHOWN = 30
POLICIES_SHOWN = 100
ITEMS_SHOWN = 100
MAX_EVENTS = 10
KEPT_FOR: dict[str, str] = {
    "grace": "too young: the policy's grace",
    "legal_hold": "under legal hold",
    "pinned": "pinned",
    "alias": "an alias points at them",
    "live_run": "held by a run",
    "live_descendant": "a kernel that came from them is in use",
    "successor": "named as a successor",
    "max_share": "beyond the share that one plan may retire",
    "max_bytes": "beyond the bytes that one plan may retire",
}
"""Rule or guard -> why kernels stay for it."""
OUTCOMES = {"retired": "good", "changed": "held", "protected": "waiting"}
"""Outcome of an item -> tone."""


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """A policy in words. ``waiting``: its plans that are neither applied nor discarded."""

    policy: RetentionPolicy
    criteria: Sequence[str]
    guards: Sequence[str]
    waiting: int


def policies() -> list[PolicyLine]:
    open_plans = Count("plans", filter=Q(plans__state__in=[PlanState.PLANNED, PlanState.APPROVED]))
    rows = RetentionPolicy.objects.annotate(waiting=open_plans).order_by("name")[:POLICIES_SHOWN]
    return [policy_line(policy, policy.waiting) for policy in rows]


def policy_line(policy: RetentionPolicy, waiting: int = 0) -> PolicyLine:
    return PolicyLine(policy=policy, criteria=_criteria(policy), guards=_guards(policy), waiting=waiting)


def _criteria(policy: RetentionPolicy) -> list[str]:
    said = [
        (policy.unused_for_days, "unused for {} days"),
        (policy.older_than_days, "older than {} days"),
        (policy.metric_below, f"{policy.metric} below {{}}"),
        (policy.risk_above, "risk above {}"),
        (policy.keep_latest, "not among the newest {}"),
        (policy.keep_best, f"not among the best {{}} by {policy.metric}"),
    ]
    words = [text.format(numbers.plain(value)) for value, text in said if value is not None]
    if policy.storage_cap_bytes is not None:
        words.append(f"beyond the {numbers.size(policy.storage_cap_bytes)} of the most recently used")
    return words


def _guards(policy: RetentionPolicy) -> list[str]:
    words = [
        f"at most {numbers.percent(policy.max_share, 0)} of the kernels in use a plan",
        f"none younger than {policy.grace_days} days",
        f"restorable for {policy.purge_after_days} days",
    ]
    if policy.max_bytes is not None:
        words.insert(1, f"at most {numbers.size(policy.max_bytes)} a plan")
    return words


def plans(*, after: UUID | None) -> NewestPage:
    """The newest first."""
    return newest(RetentionPlan.objects.select_related("policy"), after=after, shown=PLANS_SHOWN)


@dataclass(frozen=True, slots=True)
class PlanPortrait:
    """``kept``: (why, how many). ``outcome``: (outcome, its tone, how many items, bytes of them)."""

    plan: RetentionPlan
    policy: PolicyLine
    items: Sequence[RetentionItem]
    next_after: UUID | None
    kept: Sequence[tuple[str, int]]
    outcome: Sequence[tuple[str, str, int, int]]
    is_expired: bool
    left: int
    """Items that were not looked at yet."""

    @property
    def steps(self) -> list[str]:
        """The steps that make sense now, the primary one first and the destructive one last."""
        if self.plan.state == PlanState.PLANNED:
            return ["discard"] if self.is_expired else ["approve", "discard"]
        if self.plan.state == PlanState.APPROVED:
            return ["discard"] if self.is_expired else ["apply", "discard"]
        return []

    @property
    def kept_count(self) -> int:
        return sum(count for _, count in self.kept)


def plan_portrait(plan_id: UUID, *, after: UUID | None = None) -> PlanPortrait | None:
    """None: there is no such plan. A fixed number of queries."""
    plan = RetentionPlan.objects.select_related("policy").filter(pk=plan_id).first()
    if plan is None:
        return None
    items = list(_items(plan, after)[: ITEMS_SHOWN + 1])
    totals = dict.fromkeys(["", *OUTCOMES], (0, 0))
    for outcome, count, total in plan.items.order_by().values_list("outcome").annotate(Count("pk"), Sum("bytes")):
        totals[outcome] = (count, total)
    return PlanPortrait(
        plan=plan,
        policy=policy_line(plan.policy),
        items=items[:ITEMS_SHOWN],
        next_after=items[ITEMS_SHOWN - 1].pk if len(items) > ITEMS_SHOWN else None,
        kept=[(kept_for(rule), count) for rule, count in sorted(plan.kept.items())],
        outcome=[(name, OUTCOMES[name], *totals[name]) for name in OUTCOMES if totals[name][0]],
        is_expired=plan.expires_at <= timezone.now(),
        left=totals[""][0],
    )


def kept_for(rule: str) -> str:
    if rule.endswith("_unread"):
        return f"whether {rule.removesuffix('_unread').replace('_', ' ')} protects them could not be read"
    return KEPT_FOR.get(rule, rule.replace("_", " "))


def _items(plan: RetentionPlan, after: UUID | None) -> QuerySet[RetentionItem]:
    """The largest first."""
    fitting = plan.items.select_related("kernel").defer("kernel__report").order_by("-bytes", "id")
    last = plan.items.filter(pk=after).values_list("bytes", "pk").first() if after else None
    if last is not None:
        fitting = fitting.filter(Q(bytes__lt=last[0]) | Q(bytes=last[0], id__gt=last[1]))
    return fitting


def plan_history(plan: RetentionPlan) -> list[trail.Line]:
    """Who made, approved and applied it, for those who may read the trail."""
    return trail.lines_of(list(audit.events_of(subject_type="retention_plan", subject_id=str(plan.pk))[:MAX_EVENTS]))


def explanation(kernel_id: UUID, now: datetime) -> Explanation | None:
    """None: there is no such kernel. Three statements for each policy."""
    kernel = Kernel.objects.filter(pk=kernel_id).first()
    return None if kernel is None else explain(kernel, now)
