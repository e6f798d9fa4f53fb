"""The admin of checkpoints: what is done to them by steps, policies that people write, work, packs and recoveries."""

from typing import Any

import pytest
from django.test import Client

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, CheckpointPolicy, JobKind, Location
from tests.support import factories
from tests.support.checkpoint_rows import make_checkpoints, make_recovery
from tests.support.curating import YES, messages_of, url_of

pytestmark = pytest.mark.django_db

LIST = "/admin/checkpoints/checkpoint/"
POLICIES = "/admin/checkpoints/checkpointpolicy/"
ANSWERS = {
    "schedule": "interval", "interval_seconds": 600, "keep_last": 5, "keep_days": 14, "keep_daily": 0, "keep_weekly": 4,
    "keep_monthly": 0, "keep_best": 2, "best_metric": "validation_accuracy", "reason": "disks are small",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _operator(client: Client) -> User:
    user: Any = factories.UserFactory(username="olga", role=Role.OPERATOR)
    client.force_login(user)
    return user


def offered(client: Client, row: Any) -> set[str]:
    return {button["path"].split("/")[-2] for button in client.get(url_of(row)).context["buttons"]}


class TestCheckpoints:
    @pytest.mark.parametrize(
        ("values", "buttons"),
        [
            ({}, {"verify", "pin", "archive"}),
            ({"pinned": True, "location": Location.ARCHIVED}, {"verify", "unpin", "recall"}),
            ({"state": CheckpointState.QUARANTINED}, {"verify"}),
            ({"state": CheckpointState.EXPIRED}, set()),
        ],
    )
    def test_one_offers_what_its_state_allows(self, client: Client, values: dict[str, Any], buttons: set[str]) -> None:
        assert offered(client, factories.CheckpointFactory(**values)) == buttons

    def test_a_pin_is_previewed_then_set_with_its_reason(self, client: Client) -> None:
        checkpoint: Any = factories.CheckpointFactory()

        (effect,) = client.get(url_of(checkpoint, "pin")).context["effects"]
        checkpoint.refresh_from_db()
        before = checkpoint.pinned
        client.post(url_of(checkpoint, "pin"), YES)

        checkpoint.refresh_from_db()
        assert effect.events == ("pinned the checkpoint: pinned becomes True",)
        assert (before, checkpoint.pinned) == (False, True)
        assert AuditEvent.objects.get(type="checkpoint.pinned").reason == "because"

    def test_several_are_verified_at_once_and_one_that_cannot_be_stops_no_other(self, client: Client) -> None:
        good, gone = (factories.CheckpointFactory(state=state) for state in ("COMMITTED", "EXPIRED"))
        selection = {"action": "verify_selected", "_selected_action": [str(good.pk), str(gone.pk)]}

        answer = client.post(LIST, {**selection, **YES})

        assert [(job.kind, job.checkpoint_id) for job in CheckpointJob.objects.all()] == [(JobKind.VERIFY, good.pk)]
        assert any("the checkpoint is EXPIRED" in said for said in messages_of(answer))

    def test_a_row_says_what_it_holds_what_was_new_and_where_it_lies(self, client: Client) -> None:
        run: Any = factories.RunFactory()
        _, checkpoint = make_checkpoints(run, count=2)

        row, page = client.get(LIST).content.decode(), client.get(url_of(checkpoint)).content.decode()

        assert "2.3 MiB" in row
        assert "tolaria: 31 tensors, 4.8 MiB, 1.9 MiB of them new" in page
        assert f'href="/checkpoints/{checkpoint.pk}"' in page

    def test_a_viewer_sees_no_button(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.VIEWER, is_staff=True))

        assert offered(client, factories.CheckpointFactory()) == set()


class TestPolicies:
    def test_one_of_all_runs_is_written_by_the_service(self, client: Client) -> None:
        client.post(f"{POLICIES}add/", ANSWERS)

        policy = CheckpointPolicy.objects.get()
        assert (policy.run_id, policy.keep_weekly, policy.best_is_lowest) == (None, 4, False)
        assert AuditEvent.objects.get(type="checkpoint_policy.created").reason == "disks are small"

    def test_one_of_a_run_names_it(self, client: Client) -> None:
        run: Any = factories.RunFactory()

        client.post(f"{POLICIES}add/", {**ANSWERS, "run": str(run.pk)})

        assert CheckpointPolicy.objects.get().run_id == run.pk
        assert f"run {run.pk}" in client.get(POLICIES).content.decode()

    @pytest.mark.parametrize(
        ("field", "value", "says"),
        [("keep_last", 0, "greater than or equal to 1"), ("interval_seconds", 1, "greater than or equal to 10")],
    )
    def test_a_value_that_is_refused_stands_at_its_field(
        self, client: Client, field: str, value: int, says: str
    ) -> None:
        form = client.post(f"{POLICIES}add/", {**ANSWERS, field: value}).context["adminform"].form

        assert says in form.errors[field][0]
        assert not CheckpointPolicy.objects.exists()

    def test_a_change_asks_why(self, client: Client) -> None:
        policy: Any = factories.CheckpointPolicyFactory()

        client.post(url_of(policy), {**ANSWERS, "reason": ""})
        policy.refresh_from_db()
        before = policy.keep_last
        client.post(url_of(policy), ANSWERS)

        policy.refresh_from_db()
        assert (before, policy.keep_last) == (3, 5)

    def test_who_may_only_read_sees_what_it_says(self, client: Client) -> None:
        client.force_login(factories.UserFactory(role=Role.VIEWER, is_staff=True))
        policy: Any = factories.CheckpointPolicyFactory(best_metric="held_out_loss")

        assert "held_out_loss" in client.get(url_of(policy)).content.decode()

    def test_one_is_removed_by_a_step(self, client: Client) -> None:
        policy: Any = factories.CheckpointPolicyFactory()

        client.post(url_of(policy, "remove"), YES)

        assert not CheckpointPolicy.objects.exists()


class TestWork:
    def test_waiting_work_is_given_up(self, client: Client) -> None:
        job: Any = factories.CheckpointJobFactory()

        client.post(url_of(job, "cancel"), YES)

        job.refresh_from_db()
        assert job.state == JobState.CANCELLED

    def test_work_that_is_over_offers_nothing(self, client: Client) -> None:
        assert offered(client, factories.CheckpointJobFactory(state=JobState.SUCCEEDED)) == set()

    def test_progress_is_in_bytes_and_that_of_a_replay_in_steps(self, client: Client) -> None:
        factories.CheckpointJobFactory(done=1 << 20, total=2 << 20)
        factories.CheckpointJobFactory(kind=JobKind.REPLAY, done=30, total=1200)

        page = client.get("/admin/checkpoints/checkpointjob/").content.decode()

        assert "1.0 MiB of 2.0 MiB" in page
        assert "30 of 1,200 steps" in page


def test_a_pack_says_where_it_lies(client: Client) -> None:
    factories.PackFactory(in_folder=False)

    assert "nowhere" in client.get("/admin/checkpoints/pack/").content.decode()


def test_a_recovery_tells_its_seconds_and_what_was_passed_over(client: Client) -> None:
    checkpoint: Any = factories.CheckpointFactory(step=40)
    run: Any = factories.RunFactory()
    recovery = make_recovery(run, checkpoint=checkpoint, skipped=[{"step": 80, "problem": "a bit flipped"}])

    page = client.get(url_of(recovery)).content.decode()

    assert "detect 11.2, load 0.31, restore 0.08, validate 0.05, resume 0.4" in page
    assert "step 80: a bit flipped" in page
    assert Checkpoint.objects.count() == 1
