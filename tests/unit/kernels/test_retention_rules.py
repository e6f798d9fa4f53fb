"""The one predicate: which rules condemn a kernel, which keep it, and when the clock alone changes that."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.kernels.models import Kernel, RetentionPolicy
from apps.kernels.retention.rules import Facts, Verdict, verdict

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MATCHES = Facts(matches=True)


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def judged(kernel: dict[str, Any], policy: dict[str, Any], facts: Facts = MATCHES) -> Verdict:
    row = Kernel(**{"created_at": days_ago(100), "workspace_id": None, **kernel})
    return verdict(row, RetentionPolicy(name="p", workspace_id=None, **policy), facts, NOW)


@pytest.mark.parametrize(
    ("kernel", "policy", "facts", "condemned"),
    [
        ({"last_used_at": days_ago(91)}, {"unused_for_days": 90}, {}, True),
        ({"last_used_at": days_ago(89)}, {"unused_for_days": 90}, {}, False),
        ({"created_at": days_ago(91)}, {"unused_for_days": 90}, {}, True),
        ({"created_at": days_ago(89)}, {"unused_for_days": 90}, {}, False),
        ({"created_at": days_ago(10)}, {"older_than_days": 10}, {}, True),
        ({"created_at": days_ago(9.9)}, {"older_than_days": 10}, {}, False),
        ({}, {"metric": "gain", "metric_below": 0.5}, {"value": 0.4}, True),
        ({}, {"metric": "gain", "metric_below": 0.5}, {"value": 0.5}, False),
        ({}, {"metric": "gain", "metric_below": 0.5}, {"value": None}, False),
        ({"risk": 0.9}, {"risk_above": 0.8}, {}, True),
        ({"risk": 0.8}, {"risk_above": 0.8}, {}, False),
        ({"risk": None}, {"risk_above": 0.8}, {}, False),
        ({}, {"keep_latest": 3}, {"latest_rank": 4}, True),
        ({}, {"keep_latest": 3}, {"latest_rank": 3}, False),
        ({}, {"metric": "gain", "keep_best": 1}, {"best_rank": 2}, True),
        ({}, {"metric": "gain", "keep_best": 1}, {"best_rank": 1}, False),
        ({}, {"storage_cap_bytes": 100}, {"bytes_through": 101}, True),
        ({}, {"storage_cap_bytes": 100}, {"bytes_through": 100}, False),
    ],
)
def test_each_criterion_condemns_beyond_its_bound_only(
    kernel: dict[str, Any], policy: dict[str, Any], facts: dict[str, Any], condemned: bool
) -> None:
    assert judged(kernel, policy, Facts(matches=True, **facts)).is_condemned is condemned


def test_every_criterion_that_is_set_must_hold() -> None:
    policy = {"unused_for_days": 90, "risk_above": 0.5}

    assert judged({"risk": 0.6}, policy).is_condemned
    assert not judged({"risk": 0.4}, policy).is_condemned


def test_a_policy_without_criteria_condemns_nothing() -> None:
    assert not judged({}, {}).is_condemned


def test_a_kernel_that_does_not_match_is_not_condemned() -> None:
    assert not judged({}, {"unused_for_days": 1}, Facts(matches=False)).is_condemned


@pytest.mark.parametrize(
    ("kernel", "policy", "facts", "rule"),
    [
        ({"legal_hold": True}, {}, {}, "legal_hold"),
        ({"pinned_until": NOW + timedelta(hours=1)}, {}, {}, "pinned"),
        ({}, {"grace_days": 101}, {}, "grace"),
        ({}, {}, {"held": {"alias": "protected alias prod"}}, "alias"),
        ({}, {}, {"held": {"live_run": "held by 1 run(s)"}}, "live_run"),
        ({}, {}, {"held": {"live_descendant": "..."}}, "live_descendant"),
        ({}, {}, {"held": {"successor": "..."}}, "successor"),
        ({}, {}, {"unread": frozenset({"alias"})}, "alias_unread"),
    ],
)
def test_each_protection_keeps_a_condemned_kernel(
    kernel: dict[str, Any], policy: dict[str, Any], facts: dict[str, Any], rule: str
) -> None:
    found = judged(kernel, {"unused_for_days": 90, **policy}, Facts(matches=True, **facts))

    assert (found.is_condemned, found.goes, [kept.rule for kept in found.kept_by]) == (True, False, [rule])


def test_a_pin_that_is_over_keeps_nothing() -> None:
    assert judged({"pinned_until": NOW}, {"unused_for_days": 90}).goes


class TestWhen:
    def test_a_condemned_kernel_goes_now(self) -> None:
        assert judged({}, {"unused_for_days": 90}).when == NOW

    def test_a_young_one_goes_when_the_last_clock_has_run_out(self) -> None:
        policy = {"unused_for_days": 120, "older_than_days": 110, "grace_days": 105}
        pinned = {"pinned_until": NOW + timedelta(days=15)}

        assert judged({}, policy).when == days_ago(100) + timedelta(days=120)
        assert judged({**pinned, "last_used_at": days_ago(119)}, policy).when == NOW + timedelta(days=15)

    @pytest.mark.parametrize("facts", [Facts(), Facts(matches=True, held={"alias": "alias prod"})])
    def test_what_no_clock_changes_never_goes(self, facts: Facts) -> None:
        assert judged({}, {"unused_for_days": 90}, facts).when is None
