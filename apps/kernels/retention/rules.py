"""The one predicate of retirement: plans, their application, manual retirement, the purge and ``explain`` all ask it.

A policy condemns a kernel that matches when every criterion that is set holds. Whatever it condemns stays while any
protection holds. What could not be read protects.

    verdict(kernel, policy, facts, now).goes        may it be retired now?
    protections(kernel, facts, now)                 what keeps it, whatever the policy says
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, RetentionPolicy

RETIRABLE = (KernelState.VALIDATED, KernelState.DEPRECATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a verdict needs beside the kernel's row, read for many kernels at once (``facts``).

    Ranks count from 1 among the kernels that match. ``bytes_through``: bytes of the matching kernels that were used as
    recently as this one or more, itself among them. ``held``: protection -> what holds. ``unread``: protections whose
    lookup failed.
    """

    matches: bool = False
    value: float | None = None
    latest_rank: int = 0
    best_rank: int = 0
    bytes_through: int = 0
    held: Mapping[str, str] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says. ``when``: the time at which the clock alone turns it, None if it never does."""

    rule: str
    holds: bool
    detail: str
    when: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``criteria``: those that the policy sets, each with whether it holds; ``kept_by``: the protections that hold."""

    matches: bool
    criteria: tuple[Finding, ...]
    kept_by: tuple[Finding, ...]
    now: datetime

    @property
    def condemned_by(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.criteria if finding.holds)

    @property
    def is_condemned(self) -> bool:
        return self.matches and bool(self.criteria) and all(finding.holds for finding in self.criteria)

    @property
    def goes(self) -> bool:
        return self.is_condemned and not self.kept_by

    @property
    def when(self) -> datetime | None:
        """When it may go at the earliest if nothing but the time changes; None: never."""
        waits = [*(finding for finding in self.criteria if not finding.holds), *self.kept_by]
        if not self.matches or not self.criteria or any(finding.when is None for finding in waits):
            return None
        return max([self.now, *(finding.when for finding in waits if finding.when)])


def verdict(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Verdict:
    """What ``policy`` says of ``kernel`` at ``now``."""
    criteria = tuple(found for judge in CRITERIA if (found := judge(kernel, policy, facts, now)) is not None)
    kept_by = (*_grace(kernel, policy, now), *protections(kernel, facts, now))
    return Verdict(matches=facts.matches, criteria=criteria, kept_by=kept_by, now=now)


# --- Criteria: each says None where the policy does not set it

Criterion = Callable[[Kernel, RetentionPolicy, Facts, datetime], Finding | None]


def _unused(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Finding | None:
    used = kernel.last_used_at or kernel.created_at
    return _since("unused_for_days", policy.unused_for_days, used, "last used" if kernel.last_used_at else "made", now)


def _older(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Finding | None:
    return _since("older_than_days", policy.older_than_days, kernel.created_at, "made", now)


def _since(rule: str, days: int | None, start: datetime, verb: str, now: datetime) -> Finding | None:
    if days is None:
        return None
    when = start + timedelta(days=days)
    return Finding(rule, when <= now, f"{verb} {start:%Y-%m-%d}, {days} days allowed", when)


def _metric(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Finding | None:
    if policy.metric_below is None:
        return None
    holds = facts.value is not None and facts.value < policy.metric_below
    return Finding(
        "metric_below", holds, f"{policy.metric} is {_number(facts.value)}, at least {policy.metric_below:g}"
    )


def _risk(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Finding | None:
    if policy.risk_above is None:
        return None
    holds = kernel.risk is not None and kernel.risk > policy.risk_above
    return Finding("risk_above", holds, f"risk is {_number(kernel.risk)}, at most {policy.risk_above:g}")


def _latest(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Finding | None:
    return _beyond("keep_latest", policy.keep_latest, facts.latest_rank, "newest")


def _best(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Finding | None:
    return _beyond("keep_best", policy.keep_best, facts.best_rank, f"best by {policy.metric}")


def _beyond(rule: str, spared: int | None, rank: int, of: str) -> Finding | None:
    return None if spared is None else Finding(rule, rank > spared, f"number {rank} of the {of}, {spared} are spared")


def _cap(kernel: Kernel, policy: RetentionPolicy, facts: Facts, now: datetime) -> Finding | None:
    cap = policy.storage_cap_bytes
    if cap is None:
        return None
    detail = f"{facts.bytes_through:,} bytes with those used more recently, {cap:,} are allowed"
    return Finding("storage_cap_bytes", facts.bytes_through > cap, detail)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"


CRITERIA: tuple[Criterion, ...] = (_unused, _older, _metric, _risk, _latest, _best, _cap)
NAMES = (
    "unused_for_days", "older_than_days", "metric_below", "risk_above", "keep_latest", "keep_best", "storage_cap_bytes",
)  # fmt: skip
"""The columns of a policy that set its criteria: at least one of them is needed."""


# --- Protections


def _grace(kernel: Kernel, policy: RetentionPolicy, now: datetime) -> Iterable[Finding]:
    ends = kernel.created_at + timedelta(days=policy.grace_days)
    if ends > now:
        yield Finding("grace", True, f"younger than {policy.grace_days} days", ends)


def protections(kernel: Kernel, facts: Facts, now: datetime) -> tuple[Finding, ...]:
    """What keeps a kernel from being retired, and from being purged, whoever asks for it."""
    return tuple(_protections(kernel, facts, now))


def _protections(kernel: Kernel, facts: Facts, now: datetime) -> Iterable[Finding]:
    if kernel.legal_hold:
        yield Finding("legal_hold", True, "under legal hold")
    if kernel.pinned_until is not None and kernel.pinned_until > now:
        yield Finding("pinned", True, f"pinned until {kernel.pinned_until:%Y-%m-%d %H:%M}", kernel.pinned_until)
    for name, detail in sorted(facts.held.items()):
        yield Finding(name, True, detail)
    for name in sorted(facts.unread):
        yield Finding(f"{name}_unread", True, f"whether {name.replace('_', ' ')} protects it could not be read")
