"""Letting checkpoints go by policy: which, what that frees, and that nothing needed goes with them."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.audit.models import AuditEvent
from apps.checkpoints import needs, services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind, ObjectReference, StoredObject
from apps.checkpoints.selectors import policy_of, preview, runs_under, totals
from apps.checkpoints.services.policies import change_policy, create_policy
from apps.checkpoints.services.retention import expire_due
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, manifest_of, save, state_of
from tests.support.factories import CheckpointFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder"]

ONLY_THE_NEWEST: dict[str, Any] = {"keep_last": 1, "keep_days": 0, "keep_best": 0}


@pytest.fixture
def run_id() -> UUID:
    return new_id()


def keep_only_the_newest(run_id: UUID, **rules: Any) -> None:
    create_policy(run_id=run_id, actor=SYSTEM, **(ONLY_THE_NEWEST | rules))


def states(run_id: UUID) -> dict[int, str]:
    return dict(Checkpoint.objects.filter(run_id=run_id).values_list("step", "state"))


def quarantine(checkpoint: Checkpoint) -> Checkpoint:
    services.quarantine(checkpoint=checkpoint, problem="a flipped bit", actor=SYSTEM)
    checkpoint.refresh_from_db()
    return checkpoint


def test_what_no_rule_keeps_goes_with_its_manifest_and_its_references(run_id: UUID) -> None:
    keep_only_the_newest(run_id)
    old, newest = save(run_id, 10), save(run_id, 20)

    expired = expire_due(run_id=run_id, actor=SYSTEM)

    assert (expired.checkpoints, expired.runs) == (1, 1)
    assert states(run_id) == {10: CheckpointState.EXPIRED, 20: CheckpointState.COMMITTED}
    assert not manifest_of(old).exists()
    assert manifest_of(newest).exists()
    assert not ObjectReference.objects.filter(checkpoint=old).exists()
    event = AuditEvent.objects.get(subject_id=str(old.pk), type="checkpoint.transition")
    assert event.reason == "no rule keeps it"


def test_only_what_nothing_else_needs_becomes_garbage(run_id: UUID) -> None:
    keep_only_the_newest(run_id)
    old, newest = save(run_id, 10), save(run_id, 20)
    only_old = set(old.references.values_list("object", flat=True)) - set(
        newest.references.values_list("object", flat=True)
    )

    expire_due(actor=SYSTEM)

    garbage = StoredObject.objects.filter(unreferenced_at__isnull=False)
    assert set(garbage.values_list("pk", flat=True)) == only_old
    assert services.load(checkpoint=newest).components["tolaria"]["step"] == 20


def test_by_default_a_week_stays(run_id: UUID) -> None:
    for step in (10, 20, 30, 40, 50):
        save(run_id, step)
    Checkpoint.objects.filter(step__in=(10, 20)).update(created_at=timezone.now() - timedelta(days=8))

    expire_due(actor=SYSTEM)

    assert {step for step, state in states(run_id).items() if state == CheckpointState.EXPIRED} == {10, 20}


def test_every_run_has_its_own_newest(run_id: UUID) -> None:
    create_policy(actor=SYSTEM, **ONLY_THE_NEWEST)
    other = new_id()
    for run in (run_id, other):
        save(run, 10)
        save(run, 20)

    assert expire_due(actor=SYSTEM).runs == 2
    assert states(run_id) == states(other) == {10: CheckpointState.EXPIRED, 20: CheckpointState.COMMITTED}


def test_the_newest_good_one_stays_when_a_newer_one_is_broken(run_id: UUID) -> None:
    keep_only_the_newest(run_id)
    save(run_id, 10)
    quarantine(save(run_id, 20))

    expire_due(actor=SYSTEM)

    assert states(run_id) == {10: CheckpointState.COMMITTED, 20: CheckpointState.QUARANTINED}


def test_a_broken_one_goes_after_a_week_of_examination(run_id: UUID) -> None:
    broken = quarantine(save(run_id, 10))
    Checkpoint.objects.filter(pk=broken.pk).update(updated_at=timezone.now() - timedelta(days=7))

    expire_due(actor=SYSTEM)

    assert states(run_id) == {10: CheckpointState.EXPIRED}


def test_what_work_is_under_way_on_stays(run_id: UUID) -> None:
    keep_only_the_newest(run_id)
    old = save(run_id, 10)
    save(run_id, 20)
    CheckpointJob.objects.create(kind=JobKind.VERIFY, run_id=run_id, checkpoint=old)

    assert expire_due(actor=SYSTEM).checkpoints == 0


def test_what_another_app_says_that_it_needs_stays(run_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only_the_newest(run_id)
    old = save(run_id, 10)
    save(run_id, 20)
    monkeypatch.setattr(needs, "_needs", [])
    needs.register(lambda run: {old.pk: "the run is to go on from it"} if run == run_id else {})

    assert preview(run_id=run_id).judged[1].verdict.reasons == ("the run is to go on from it",)
    assert expire_due(actor=SYSTEM).checkpoints == 0


def test_a_run_that_another_worker_is_at_is_passed_over(run_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_only_the_newest(run_id)
    save(run_id, 10)
    save(run_id, 20)

    def busy(name: str, *, busy: str, code: str = "busy") -> None:
        raise Conflict(busy)

    with monkeypatch.context() as patched:
        patched.setattr("apps.checkpoints.services.retention.alone", busy)
        assert expire_due(actor=SYSTEM).checkpoints == 0
    assert expire_due(actor=SYSTEM).checkpoints == 1


def test_a_storage_that_is_away_keeps_no_checkpoint_from_going(run_id: UUID, checkpoint_folder: Path) -> None:
    keep_only_the_newest(run_id)
    save(run_id, 10)
    save(run_id, 20)
    checkpoint_folder.rename(checkpoint_folder.with_name("away"))

    assert expire_due(actor=SYSTEM).checkpoints == 1


class TestPolicyOf:
    def test_a_run_without_any_has_the_defaults(self, run_id: UUID) -> None:
        policy = policy_of(run_id=run_id, workspace_id=default_workspace_id())

        assert policy._state.adding
        assert (policy.interval_seconds, policy.keep_last, policy.keep_days, policy.keep_best) == (1800, 3, 7, 1)

    def test_the_one_of_all_runs_is_taken_before_the_defaults_and_the_runs_own_before_it(self, run_id: UUID) -> None:
        everybodys = create_policy(actor=SYSTEM, keep_last=5)
        assert policy_of(run_id=run_id, workspace_id=default_workspace_id()) == everybodys

        own = create_policy(run_id=run_id, actor=SYSTEM, keep_last=2)
        assert policy_of(run_id=run_id, workspace_id=default_workspace_id()) == own

    def test_a_policy_of_all_runs_is_not_over_those_that_have_their_own(self, run_id: UUID) -> None:
        everybodys = create_policy(actor=SYSTEM)
        own = create_policy(run_id=run_id, actor=SYSTEM)
        other = CheckpointFactory().run_id
        CheckpointFactory(run_id=run_id)

        assert (runs_under(everybodys), runs_under(own)) == ([other], [run_id])


class TestPreview:
    def test_it_frees_exactly_what_is_swept_afterwards(self, run_id: UUID) -> None:
        keep_only_the_newest(run_id)
        for step in (10, 20, 30):
            save(run_id, step)
        told = preview(run_id=run_id)

        expire_due(actor=SYSTEM)

        assert [item.checkpoint.step for item in told.going] == [20, 10]
        assert told.frees == totals().garbage_bytes > 0

    def test_what_checkpoints_share_is_freed_by_the_last_of_them(self, run_id: UUID) -> None:
        keep_only_the_newest(run_id)
        save(run_id, 10, state_of(10, frozen=1))
        save(run_id, 20, state_of(20, frozen=1))
        save(run_id, 30, state_of(30, frozen=2))

        second, first = preview(run_id=run_id).going

        shared = StoredObject.objects.get(references__checkpoint__step=10, raw_size=30_000 * 4)
        assert first.verdict.frees > 100_000
        assert second.verdict.frees - first.verdict.frees == pytest.approx(shared.stored_size, abs=1000)

    def test_what_another_run_needs_is_not_freed(self, run_id: UUID) -> None:
        keep_only_the_newest(run_id)
        save(run_id, 10)
        save(run_id, 20)
        save(new_id(), 10)  # the same bytes

        assert preview(run_id=run_id).frees == 0

    def test_one_that_stays_tells_what_it_alone_needs(self, run_id: UUID) -> None:
        save(run_id, 10)

        told = preview(run_id=run_id)

        assert told.judged[0].verdict.frees == sum(StoredObject.objects.values_list("stored_size", flat=True))
        assert (told.going, told.next_goes_at) == ([], None)

    def test_a_policy_can_be_tried_without_being_saved(self, run_id: UUID) -> None:
        save(run_id, 10)
        save(run_id, 20)
        trial = policy_of(run_id=run_id, workspace_id=default_workspace_id())
        trial.keep_last, trial.keep_days, trial.keep_best = 1, 0, 0

        assert [item.checkpoint.step for item in preview(run_id=run_id, policy=trial).going] == [10]
        assert expire_due(actor=SYSTEM).checkpoints == 0

    def test_it_tells_when_the_next_one_goes(self, run_id: UUID) -> None:
        keep_only_the_newest(run_id, keep_days=7)
        first = save(run_id, 10)
        save(run_id, 20)

        assert preview(run_id=run_id).next_goes_at == first.created_at + timedelta(days=7)

    def test_a_run_without_checkpoints_has_an_empty_one(self, run_id: UUID) -> None:
        assert preview(run_id=run_id).judged == []


def test_totals_tell_what_sharing_and_encoding_save(run_id: UUID) -> None:
    first, second = save(run_id, 10), save(run_id, 20)
    save(new_id(), 30, {"tolaria": {"step": 1}})

    told = totals(run_id=run_id)

    assert told.states == {CheckpointState.COMMITTED: 2}
    assert told.raw_bytes == first.size + second.size
    objects = StoredObject.objects.filter(references__checkpoint__in=[first, second]).distinct()
    assert told.stored_bytes == sum(row.stored_size for row in objects) < told.raw_bytes
    assert told.folder_bytes == first.stored_bytes + second.stored_bytes
    assert (told.garbage_bytes, told.archived) == (0, 0)
    assert totals().states == {CheckpointState.COMMITTED: 3}


def test_a_change_of_policy_goes_for_the_next_round(run_id: UUID) -> None:
    policy = create_policy(run_id=run_id, actor=SYSTEM)
    save(run_id, 10)
    save(run_id, 20)
    assert expire_due(actor=SYSTEM).checkpoints == 0

    change_policy(policy=policy, actor=SYSTEM, **ONLY_THE_NEWEST)

    assert expire_due(actor=SYSTEM).checkpoints == 1
