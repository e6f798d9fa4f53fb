"""Which checkpoints stay under a policy, why, and until when. Nothing here reads the database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy
from apps.checkpoints.retention import Verdict, verdicts

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
NOTHING_KEPT = {"keep_last": 1, "keep_days": 0, "keep_best": 0}


def checkpoint(step: int, *, days: float = 30.0, **values: Any) -> Checkpoint:
    """Of a run's ``step``, stored so many days ago."""
    created = NOW - timedelta(days=days)
    return Checkpoint(
        id=UUID(int=step),
        workspace_id=UUID(int=0),
        step=step,
        created_at=created,
        **{"state": CheckpointState.COMMITTED, "updated_at": created, **values},
    )


def judge(
    checkpoints: list[Checkpoint],
    *,
    needed: Any = None,
    **rules: Any,
) -> dict[int, Verdict]:
    row = CheckpointPolicy(workspace_id=UUID(int=0), **(NOTHING_KEPT | rules))
    found = verdicts(checkpoints, row, NOW, needed)
    return {key.int: verdict for key, verdict in found.items()}


def kept(found: dict[int, Verdict]) -> list[int]:
    return [step for step, verdict in found.items() if verdict.keep]


def test_the_newest_so_many_stay() -> None:
    found = judge([checkpoint(step) for step in (1, 2, 3, 4)], keep_last=2)

    assert kept(found) == [4, 3]
    assert found[3].reasons == ("one of the newest 2",)
    assert found[2] == Verdict(keep=False, reasons=("no rule keeps it",), goes_at=NOW)


def test_the_newest_is_by_step_not_by_time() -> None:
    found = judge([checkpoint(10, days=1), checkpoint(5, days=0)])

    assert kept(found) == [10]


def test_young_ones_stay_until_they_are_as_old_as_the_policy_says() -> None:
    found = judge([checkpoint(1, days=8), checkpoint(2, days=6), checkpoint(3, days=0)], keep_days=7)

    assert kept(found) == [3, 2]
    assert found[2] == Verdict(keep=True, reasons=("younger than 7 days",), goes_at=NOW + timedelta(days=1))
    assert found[3].goes_at is None


@pytest.mark.parametrize(
    ("rule", "days_ago", "stay", "reason"),
    [
        ("daily", {1: 4.0, 2: 2.2, 3: 2.1, 4: 0.1}, [4, 3], "daily of 2026-11-25"),
        ("weekly", {1: 15.0, 2: 9.0, 3: 8.0, 4: 0.1}, [4, 3], "weekly of 2026-W47"),
        ("monthly", {1: 70.0, 2: 40.0, 3: 39.0, 4: 0.1}, [4, 3], "monthly of 2026-10"),
    ],
)
def test_the_newest_of_each_of_the_last_periods_stays(
    rule: str, days_ago: dict[int, float], stay: list[int], reason: str
) -> None:
    found = judge([checkpoint(step, days=days) for step, days in days_ago.items()], **{f"keep_{rule}": 2})

    assert kept(found) == stay
    assert found[3].reasons == (reason,)


def test_periods_are_those_of_utc() -> None:
    tokyo = datetime.fromisoformat("2026-11-26T01:00:00+09:00")  # still the 25th in UTC
    rows = [checkpoint(1), checkpoint(2, days=0)]
    rows[0].created_at = tokyo

    assert judge(rows, keep_daily=2)[1].reasons == ("daily of 2026-11-25",)


@pytest.mark.parametrize(("lowest", "best"), [(True, 1), (False, 2)])
def test_the_best_by_a_metric_stays(lowest: bool, best: int) -> None:
    rows = [checkpoint(step, metrics={"loss": value}) for step, value in ((1, 0.1), (2, 0.9), (3, 0.5), (4, 0.4))]

    found = judge(rows, keep_best=1, best_metric="loss", best_is_lowest=lowest)

    assert kept(found) == [4, best]
    assert found[best].reasons == ("the best loss",)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), "low", None, True])
def test_what_is_no_finite_number_is_never_the_best(value: object) -> None:
    rows = [checkpoint(1, metrics={"loss": value}), checkpoint(2, metrics={"loss": 3.0}), checkpoint(3)]

    assert kept(judge(rows, keep_best=1, best_metric="loss")) == [3, 2]


def test_of_equally_good_ones_the_newest_counts() -> None:
    rows = [checkpoint(step, metrics={"loss": 0.5}) for step in (1, 2, 3)]

    assert kept(judge(rows, keep_best=2, best_metric="loss")) == [3, 2]


def test_pinned_and_needed_ones_stay_under_every_policy() -> None:
    rows = [checkpoint(1, pinned=True), checkpoint(2), checkpoint(3), checkpoint(4)]

    found = judge(rows, needed={UUID(int=2): "a restore is under way"})

    assert kept(found) == [4, 2, 1]
    assert (found[1].reasons, found[2].reasons) == (("pinned",), ("a restore is under way",))


def test_the_newest_verified_one_stays_beside_the_newest() -> None:
    rows = [checkpoint(1, verified_at=NOW), checkpoint(2, verified_at=NOW), checkpoint(3)]

    found = judge(rows)

    assert kept(found) == [3, 2]
    assert found[2].reasons == ("the newest verified one",)


def test_a_broken_newest_one_does_not_take_the_place_of_the_newest_good_one() -> None:
    rows = [checkpoint(1), checkpoint(2), checkpoint(3, state=CheckpointState.QUARANTINED)]

    assert kept(judge(rows)) == [2]


def test_a_broken_one_stays_a_week_for_examination() -> None:
    rows = [
        checkpoint(days, state=CheckpointState.QUARANTINED, updated_at=NOW - timedelta(days=days)) for days in (6, 7)
    ]

    found = judge(rows)

    assert found[6] == Verdict(keep=True, reasons=("broken, kept for examination",), goes_at=NOW + timedelta(days=1))
    assert found[7] == Verdict(keep=False, reasons=("broken for 7 days",), goes_at=NOW)


@pytest.mark.parametrize("state", [CheckpointState.STAGING, CheckpointState.ABANDONED, CheckpointState.EXPIRED])
def test_what_takes_no_room_is_not_judged(state: CheckpointState) -> None:
    assert judge([checkpoint(1, state=state)]) == {}


def test_every_reason_is_told() -> None:
    row = checkpoint(1, days=1, pinned=True, verified_at=NOW, metrics={"loss": 1})

    found = judge([row], keep_last=3, keep_days=7, keep_daily=1, keep_best=2, best_metric="loss")

    assert found[1].reasons == (
        "pinned",
        "the newest one",
        "the newest verified one",
        "one of the newest 3",
        "one of the best 2 by loss",
        "daily of 2026-11-26",
        "younger than 7 days",
    )


@st.composite
def runs(draw: st.DrawFn) -> list[Checkpoint]:
    number = draw(st.integers(1, 12))
    return [
        checkpoint(
            step,
            days=draw(st.floats(0, 400)),
            state=draw(st.sampled_from([CheckpointState.COMMITTED, CheckpointState.QUARANTINED])),
            pinned=draw(st.booleans()),
            verified_at=draw(st.sampled_from([None, NOW])),
            metrics=draw(st.sampled_from([{}, {"loss": 0.5}, {"loss": float("nan")}, {"loss": -1}])),
        )
        for step in range(number)
    ]


RULES = st.fixed_dictionaries(
    {
        "keep_last": st.integers(1, 5),
        **dict.fromkeys(("keep_days", "keep_daily", "keep_weekly", "keep_monthly", "keep_best"), st.integers(0, 5)),
    }
)


@settings(max_examples=40)
@given(rows=runs(), rules=RULES)
def test_no_policy_lets_go_of_what_a_run_needs_to_go_on(rows: list[Checkpoint], rules: dict[str, int]) -> None:
    found = judge(rows, best_metric="loss", **rules)

    good = [row for row in rows if row.state == CheckpointState.COMMITTED]
    verified = [row for row in good if row.verified_at]
    wanted = {row.step for row in rows if row.pinned} | {row.step for row in (*good[-1:], *verified[-1:])}
    assert wanted <= set(kept(found))
    assert all(verdict.reasons for verdict in found.values())


@settings(max_examples=40)
@given(rows=runs(), rules=RULES, more=RULES)
def test_a_rule_that_keeps_more_lets_nothing_go_that_stayed(
    rows: list[Checkpoint], rules: dict[str, int], more: dict[str, int]
) -> None:
    generous = {name: number + more[name] for name, number in rules.items()}

    assert set(kept(judge(rows, best_metric="loss", **rules))) <= set(kept(judge(rows, best_metric="loss", **generous)))


@settings(max_examples=40)
@given(rows=runs(), rules=RULES)
def test_what_goes_by_itself_goes_then_and_not_before(rows: list[Checkpoint], rules: dict[str, int]) -> None:
    policy = CheckpointPolicy(workspace_id=UUID(int=0), **rules)
    moments = {verdict.goes_at for verdict in verdicts(rows, policy, NOW).values() if verdict.goes_at}

    for at in moments:
        before, then = (verdicts(rows, policy, moment) for moment in (at - timedelta(microseconds=1), at))
        due = {key for key, verdict in verdicts(rows, policy, NOW).items() if verdict.goes_at == at}
        assert not any(then[key].keep for key in due)
        assert at == NOW or all(before[key].keep for key in due)
