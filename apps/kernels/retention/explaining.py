"""``explain``: every rule that keeps or condemns one kernel, and when it would go."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from apps.core.errors import ServiceError
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, RetentionPolicy
from apps.kernels.retention import facts
from apps.kernels.retention.purging import purged_at
from apps.kernels.retention.rules import Facts, Finding, Verdict, protections, verdict


@dataclass(frozen=True, slots=True)
class PolicyVerdict:
    """``verdict`` is None when the policy's match cannot be read: it condemns nothing, and ``fault`` says why."""

    policy: RetentionPolicy
    verdict: Verdict | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """``when``: when it would be retired, or purged if it is retired, while nothing but the time changes."""

    kernel: Kernel
    protections: tuple[Finding, ...]
    policies: list[PolicyVerdict]
    when: datetime | None


def explain(kernel: Kernel, now: datetime) -> Explanation:
    """What every policy says of ``kernel``. Policies that are not enabled are told, and make nothing go."""
    policies = RetentionPolicy.objects.filter(workspace=kernel.workspace_id).order_by("name")
    protected = facts.of_kernels([kernel.pk])
    verdicts = [_of_policy(kernel, policy, protected, now) for policy in policies]
    held = protections(kernel, protected[kernel.pk], now)
    if kernel.state == KernelState.RETIRED:
        when = purged_at(kernel, held, now)
    else:
        enabled = (said.verdict for said in verdicts if said.policy.is_enabled and said.verdict)
        when = min((found.when for found in enabled if found.when), default=None)
    return Explanation(kernel, held, verdicts, when)


def _of_policy(
    kernel: Kernel, policy: RetentionPolicy, protected: Mapping[UUID, Facts], now: datetime
) -> PolicyVerdict:
    try:
        known = facts.of_policy(policy, [kernel.pk], protected=protected)[kernel.pk]
    except ServiceError as error:
        return PolicyVerdict(policy, None, error.detail)
    return PolicyVerdict(policy, verdict(kernel, policy, known, now))
