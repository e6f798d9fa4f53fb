"""Which checkpoints of a run stay, why, and until when: a pure function of the rows, the policy and the time.

    verdicts(checkpoints, policy, now)[checkpoint.pk].reasons  ->  ("one of the newest 3", "daily of 2026-11-20")

A checkpoint stays while any rule keeps it. The newest good one, the newest verified one, pinned ones and those that
something needs stay under every policy. "Newest" is by step, as for a run that goes on.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy

JUDGED = frozenset({CheckpointState.COMMITTED, CheckpointState.QUARANTINED})
"""States in which a checkpoint takes room in the storage."""
EXAMINATION = timedelta(days=7)
"""For how long what is left of a broken checkpoint stays, for somebody to look at or to heal."""

Reason = tuple[UUID, str]

PERIODS: tuple[tuple[str, Callable[[datetime], str]], ...] = (
    ("daily", lambda at: f"{at:%Y-%m-%d}"),
    ("weekly", lambda at: f"{at:%G-W%V}"),
    ("monthly", lambda at: f"{at:%Y-%m}"),
)
"""The periods of the rule grandfather-father-son, in UTC; weeks are those of ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """``reasons`` say why it stays, or why it goes. ``goes_at``: when it goes by itself, None as long as nothing newer
    comes. ``frees``: bytes of objects that nothing needs any more once it is gone."""

    keep: bool
    reasons: tuple[str, ...]
    goes_at: datetime | None
    frees: int = 0


def verdicts(
    checkpoints: Iterable[Checkpoint],
    policy: CheckpointPolicy,
    now: datetime,
    needed: Mapping[UUID, str] | None = None,
) -> dict[UUID, Verdict]:
    """The verdict of each COMMITTED or QUARANTINED one of one run, newest first.

    ``needed``: checkpoint -> what needs it for the time being ("a restore is under way").
    """
    judged = sorted((row for row in checkpoints if row.state in JUDGED), key=_order, reverse=True)
    committed = [row for row in judged if row.state == CheckpointState.COMMITTED]
    lasting: dict[UUID, list[str]] = {row.pk: [] for row in judged}
    for key, reason in (*_always(judged, committed, needed or {}), *_by_number(committed, policy)):
        lasting[key].append(reason)
    return {row.pk: _verdict(row, lasting[row.pk], policy, now) for row in judged}


def _order(row: Checkpoint) -> tuple[int, UUID]:
    return row.step, row.pk


def _always(judged: list[Checkpoint], committed: list[Checkpoint], needed: Mapping[UUID, str]) -> Iterator[Reason]:
    for row in judged:
        if row.pinned:
            yield row.pk, "pinned"
        if row.pk in needed:
            yield row.pk, needed[row.pk]
    if committed:
        yield committed[0].pk, "the newest one"
    verified = [row for row in committed if row.verified_at is not None]
    if verified:
        yield verified[0].pk, "the newest verified one"


def _by_number(committed: list[Checkpoint], policy: CheckpointPolicy) -> Iterator[Reason]:
    """Rules that keep so many, however old they are. ``committed``: newest first."""
    if policy.keep_last > 1:  # else it is the newest one, which always stays
        for row in committed[: policy.keep_last]:
            yield row.pk, f"one of the newest {policy.keep_last}"
    yield from _best(committed, policy)
    for name, period in PERIODS:
        yield from _newest_of_each(committed, name, period, getattr(policy, f"keep_{name}"))


def _best(committed: list[Checkpoint], policy: CheckpointPolicy) -> Iterator[Reason]:
    """Of equally good ones the newest counts; a metric that is missing or no finite number is never the best."""
    measured = [(value, row) for row in committed if (value := _metric(row, policy.best_metric)) is not None]
    measured.sort(key=lambda pair: pair[0] if policy.best_is_lowest else -pair[0])
    for _, row in measured[: policy.keep_best]:
        one_of = f"one of the best {policy.keep_best} by" if policy.keep_best > 1 else "the best"
        yield row.pk, f"{one_of} {policy.best_metric}"


def _metric(row: Checkpoint, name: str) -> float | None:
    value = row.metrics.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _newest_of_each(
    committed: list[Checkpoint], name: str, period: Callable[[datetime], str], number: int
) -> Iterator[Reason]:
    """The newest of each of the last ``number`` periods in which there are any."""
    newest: dict[str, Checkpoint] = {}
    for row in committed:
        newest.setdefault(period(row.created_at.astimezone(UTC)), row)
    for label in sorted(newest, reverse=True)[:number]:
        yield newest[label].pk, f"{name} of {label}"


def _verdict(row: Checkpoint, lasting: list[str], policy: CheckpointPolicy, now: datetime) -> Verdict:
    is_good = row.state == CheckpointState.COMMITTED
    if is_good:
        until = row.created_at + timedelta(days=policy.keep_days)
        while_young, after = f"younger than {_days(policy.keep_days)}", "no rule keeps it"
    else:
        until = row.updated_at + EXAMINATION
        while_young, after = "broken, kept for examination", f"broken for {_days(EXAMINATION.days)}"
    is_young = now < until
    reasons = [*lasting, while_young] if is_young else lasting
    if not reasons:
        return Verdict(keep=False, reasons=(after,), goes_at=now)
    return Verdict(keep=True, reasons=tuple(reasons), goes_at=None if lasting else until)


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"
