"""Policies of checkpoints: made, changed and removed, each with its event; what is wrong is named by its field."""

from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.checkpoints.models import CheckpointPolicy
from apps.checkpoints.services.policies import BOUNDS, SETTABLE, change_policy, create_policy, remove_policy
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.core.ids import new_id

pytestmark = pytest.mark.django_db


def events(policy: CheckpointPolicy) -> list[str]:
    return list(AuditEvent.objects.filter(subject_id=str(policy.pk)).order_by("pk").values_list("type", flat=True))


def test_a_life_of_a_policy_is_three_events() -> None:
    policy = create_policy(run_id=new_id(), actor=SYSTEM, schedule="auto")

    changed = change_policy(policy=policy, actor=SYSTEM, keep_last=9, archive_after_hours=48)
    assert (changed.schedule, changed.keep_last, changed.archive_after_hours) == ("auto", 9, 48)
    remove_policy(policy=changed, actor=SYSTEM, reason="the run is over")

    assert not CheckpointPolicy.objects.exists()
    assert events(policy) == [
        "checkpoint_policy.created", "checkpoint_policy.changed", "checkpoint_policy.removed",
    ]  # fmt: skip


def test_a_change_of_nothing_is_no_event() -> None:
    policy = create_policy(actor=SYSTEM)

    change_policy(policy=policy, actor=SYSTEM, keep_last=policy.keep_last)

    assert events(policy) == ["checkpoint_policy.created"]


@pytest.mark.parametrize("own", [True, False], ids=["of a run", "of all runs"])
def test_there_is_one_policy_of_each(own: bool) -> None:
    run_id = new_id() if own else None
    create_policy(run_id=run_id, actor=SYSTEM)

    with pytest.raises(Conflict, match="already") as told:
        create_policy(run_id=run_id, actor=SYSTEM)

    assert told.value.code == "duplicate"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule", "weekly"),
        ("interval_seconds", 0),
        ("interval_seconds", 10**9),
        ("keep_last", 0),
        ("keep_days", -1),
        ("keep_days", 10**6),
        ("keep_best", "many"),
        ("best_metric", ""),
        ("archive_after_hours", -1),
    ],
)
def test_what_is_wrong_is_named(field: str, value: Any) -> None:
    with pytest.raises(Invalid) as told:
        create_policy(actor=SYSTEM, **{field: value})

    assert told.value.errors[0].pointer == f"/{field}"
    assert not CheckpointPolicy.objects.exists()


def test_a_wrong_change_leaves_the_policy() -> None:
    policy = create_policy(actor=SYSTEM)

    with pytest.raises(Invalid):
        change_policy(policy=policy, actor=SYSTEM, keep_last=0)

    assert CheckpointPolicy.objects.get().keep_last == policy.keep_last


def test_every_number_has_bounds() -> None:
    assert set(BOUNDS) == SETTABLE - {"schedule", "best_metric", "best_is_lowest"}
