"""The pages of checkpoints: what there is and what it takes, one of them in full, and what a person has done to it."""

import csv
import io
import re
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind, Location, SaveReason
from apps.core.ids import new_id
from apps.dashboards import checkpoint_drawing
from apps.dashboards.checkpoint_drawing import Saved
from apps.dashboards.selectors import trail
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, TrainingRun
from tests.support.checkpoint_rows import make_checkpoints, make_recovery
from tests.support.checkpoints import checkpoint_folder, manifest_of, save
from tests.support.factories import (
    AuditEventFactory,
    CheckpointFactory,
    CheckpointJobFactory,
    CheckpointPolicyFactory,
    RunFactory,
)
from tests.support.pages import page_of, words_of
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.django_db

__all__ = ["checkpoint_folder"]


@pytest.fixture
def client() -> Client:
    return logged_in("operator")


@pytest.fixture
def run() -> TrainingRun:
    found: Any = RunFactory(name="digits-grown", state=RunState.RUNNING)
    return found


def logged_in(role: str) -> Client:
    client = Client()
    client.force_login(make_user(f"a-{role}", role=role))
    return client


def steps_listed(html: str) -> list[str]:
    """The steps of the list's rows, in their order."""
    found = html.split('id="checkpoints"')[1]
    return re.findall(r"Checkpoint at step </span>([\d,]+)</a>", found)


def offered(html: str) -> set[str]:
    return set(re.findall(r'id="checkpoint-(\w+)" href="[^"]+/\w+" hx-get', html))


class TestList:
    def test_it_says_in_how_many_bytes_they_lie_and_what_sharing_and_compression_saved(
        self, client: Client, run: TrainingRun
    ) -> None:
        make_checkpoints(run, count=4, kept_alike=3)  # 3 shared objects of 1 MB, and 3 of its own each

        words = words_of(page_of(client, "/checkpoints"))

        assert "4 to go on from, in 11.7 MiB instead of 22.9 MiB." in words
        assert "Saved by sharing 37.5 % 8.6 MiB that several have in common" in words
        assert "Saved by compression 18.0 % of the 14.3 MiB that are left" in words
        assert "Training stood still 6 ms p95 8 ms a save" in words

    def test_a_row_says_why_it_was_saved_what_was_new_and_where_it_lies(self, client: Client, run: TrainingRun) -> None:
        made = make_checkpoints(run, count=2)
        Checkpoint.objects.filter(pk=made[0].pk).update(location=Location.ARCHIVED, pinned=True)

        page = page_of(client, "/checkpoints")
        newer, older = (words_of(row) for row in page.split('id="checkpoints"')[1].split('<tr role="row">')[2:4])

        assert "800 digits-grown committed on demand 20 5.7 MiB 2.9 MiB 2.3 MiB stored folder not yet" in newer
        assert "400 digits-grown committed pinned interval 10 5.7 MiB 5.7 MiB 4.7 MiB stored archive" in older

    @pytest.mark.parametrize(
        ("query", "steps"),
        [
            ("", ["50", "40", "30", "20"]),
            ("state=QUARANTINED", ["30"]),
            ("location=ARCHIVED", ["40"]),
            ("reason=demand", ["20"]),
            ("pinned=1", ["50"]),
            ("gone=1", ["50", "40", "30", "20", "10"]),
            ("state=EXPIRED", ["10"]),
            ("state=nonsense", ["50", "40", "30", "20"]),
        ],
    )
    def test_chips_narrow_the_list_and_what_is_gone_shows_when_it_is_asked_for(
        self, client: Client, run: TrainingRun, query: str, steps: list[str]
    ) -> None:
        CheckpointFactory(run_id=run.pk, step=10, state=CheckpointState.EXPIRED)
        CheckpointFactory(run_id=run.pk, step=20, reason=SaveReason.DEMAND)
        CheckpointFactory(run_id=run.pk, step=30, state=CheckpointState.QUARANTINED)
        CheckpointFactory(run_id=run.pk, step=40, location=Location.ARCHIVED)
        CheckpointFactory(run_id=run.pk, step=50, pinned=True)

        assert steps_listed(page_of(client, f"/checkpoints?{query}")) == steps

    def test_a_filter_that_nothing_fits_leads_back(self, client: Client, run: TrainingRun) -> None:
        CheckpointFactory(run_id=run.pk)

        page = page_of(client, f"/checkpoints?run={run.pk}&reason=upload")

        assert "No checkpoint fits" in page
        assert f'href="/checkpoints?run={run.pk}">Show those of the run' in page

    def test_what_went_wrong_lately_stands_first_with_its_reason(self, client: Client, run: TrainingRun) -> None:
        broken = CheckpointFactory(run_id=run.pk, step=80, state=CheckpointState.QUARANTINED, problem="a bit flipped")
        CheckpointJobFactory(checkpoint=broken, state=JobState.FAILED, problem="the storage did not answer")

        troubles = words_of(page_of(client, "/checkpoints").split('id="troubles"')[1].split("</ul>")[0])

        assert "Step 80 of digits-grown is broken : a bit flipped" in troubles
        assert "“verify” failed for digits-grown : the storage did not answer" in troubles

    def test_before_the_first_one_the_page_teaches(self, client: Client) -> None:
        page = page_of(client, "/checkpoints")

        assert "No checkpoint yet" in page
        assert "manage.py grow" in page

    def test_the_number_of_queries_does_not_grow_with_the_list(self, client: Client, run: TrainingRun) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                page_of(client, f"/checkpoints?run={run.pk}")
            return len(captured)

        make_checkpoints(run, count=1)
        queries()
        with_one = queries()
        make_checkpoints(run, count=4)

        assert queries() == with_one <= 32


class TestOneRun:
    def test_only_its_own_are_shown_and_drawn_over_its_steps(self, client: Client, run: TrainingRun) -> None:
        other: Any = RunFactory(name="other")
        make_checkpoints(run, count=3), make_checkpoints(other, count=2)

        page = page_of(client, f"/checkpoints?run={run.pk}&after=nonsense")

        assert "Checkpoints of digits-grown" in page
        assert "other" not in page.split('id="checkpoints"')[1]
        assert "Bytes of 3 checkpoints by step" in page
        assert "step 1,200: 2.9 MiB new, 2.9 MiB shared" in words_of(page)

    def test_what_stays_and_what_goes_next_is_told_with_reasons_and_bytes(
        self, client: Client, run: TrainingRun
    ) -> None:
        CheckpointPolicyFactory(keep_last=1, keep_days=2, keep_best=0)
        made = make_checkpoints(run, count=3)
        for days, row in ((5, made[0]), (1, made[1]), (0, made[2])):
            Checkpoint.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(days=days))

        retention = page_of(client, f"/checkpoints?run={run.pk}").split('id="retention"')[1].split("</section>")[0]
        first, second, third = (words_of(row) for row in retention.split('<tr role="row">')[2:])

        assert "keeps the newest 1, those younger than 2 days" in words_of(retention)
        assert "Next: step 400, in the next round, 2.3 MiB freed." in words_of(retention)
        assert "400 goes No rule keeps it next round 2.3 MiB" in first
        assert "800 stays Younger than 2 days" in second
        assert "1,200 stays The newest one; younger than 2 days not by itself" in third

    def test_work_that_was_asked_for_shows_its_progress_again_and_again(self, client: Client, run: TrainingRun) -> None:
        (checkpoint,) = make_checkpoints(run, count=1)
        values = {"checkpoint": checkpoint, "done": 1 << 20, "total": 4 << 20}
        job: Any = CheckpointJobFactory(state=JobState.RUNNING, **values)

        page = page_of(client, f"/checkpoints?run={run.pk}")

        assert "Verify at work 1.0 MiB of 4.0 MiB" in words_of(page)
        assert 'hx-trigger="every 1s" hx-select="#jobs"' in page
        assert f"/checkpoints/jobs/{job.pk}/cancel" in page

    def test_nothing_is_asked_for_again_once_all_work_is_over(self, client: Client, run: TrainingRun) -> None:
        (checkpoint,) = make_checkpoints(run, count=1)
        CheckpointJobFactory(checkpoint=checkpoint, state=JobState.SUCCEEDED, result={"bytes": 2048})

        page = page_of(client, f"/checkpoints?run={run.pk}")

        assert "every byte is right: 2.0 KiB" in words_of(page)
        assert "hx-trigger" not in page

    @pytest.mark.parametrize(
        ("state", "kind", "role", "is_offered"),
        [
            (RunState.RUNNING, RunKind.INTERNAL, "operator", True),
            (RunState.RUNNING, RunKind.EXTERNAL, "operator", False),
            (RunState.PAUSED, RunKind.INTERNAL, "operator", False),
            (RunState.RUNNING, RunKind.INTERNAL, "viewer", False),
        ],
    )
    def test_saving_now_is_offered_where_a_worker_of_ours_trains_it(
        self, state: str, kind: str, role: str, is_offered: bool
    ) -> None:
        run: Any = RunFactory(state=state, kind=kind)

        assert ('id="save-now"' in page_of(logged_in(role), f"/checkpoints?run={run.pk}")) == is_offered


class TestSaving:
    def test_a_save_is_previewed_then_asked_for(self, client: Client, run: TrainingRun) -> None:
        preview = words_of(page_of(client, f"/runs/{run.pk}/save"))
        before = CheckpointJob.objects.count()
        answer = client.post(f"/runs/{run.pk}/save", {"reason": "before the night"})

        job = CheckpointJob.objects.get()
        assert "the result of the run does not change by a bit" in preview
        assert (before, job.kind, job.run_id, job.state) == (0, JobKind.CREATE, run.pk, JobState.PENDING)
        assert answer.headers["Location"] == f"/checkpoints?run={run.pk}"
        assert AuditEvent.objects.get(type="checkpoint_job.requested").reason == "before the night"

    def test_a_run_that_nobody_trains_is_not_saved(self, client: Client) -> None:
        run: Any = RunFactory(state=RunState.PAUSED)

        preview, answer = client.get(f"/runs/{run.pk}/save"), client.post(f"/runs/{run.pk}/save")

        assert "Not done:" in preview.content.decode()
        assert answer.status_code == 409
        assert not CheckpointJob.objects.exists()


class TestOneCheckpoint:
    def test_it_says_what_it_holds_what_it_cost_and_what_it_is_known_by(self, client: Client, run: TrainingRun) -> None:
        _, second = make_checkpoints(run, count=2)

        words = words_of(page_of(client, f"/checkpoints/{second.pk}"))

        assert "digits-grown at step 800" in words
        assert "Tolaria network, optimizer, random state, position in the data 31 4.8 MiB 1.9 MiB 2.9 MiB" in words
        assert "Training stood still 6 ms durable after 300 ms" in words
        assert f"Manifest {second.digest}" in words
        assert f"Forward pass {second.fingerprint}" in words
        assert "validation loss 0.36" in words
        assert "torch 2.13.0" in words

    def test_it_leads_to_the_one_before_and_the_one_after(self, client: Client, run: TrainingRun) -> None:
        first, second, third = make_checkpoints(run, count=3)

        chain = page_of(client, f"/checkpoints/{second.pk}").split('id="chain"')[1]

        assert f'href="/checkpoints/{first.pk}">step 400' in chain
        assert f'href="/checkpoints/{third.pk}">step 1,200' in chain

    @pytest.mark.parametrize(
        ("state", "says"),
        [
            (CheckpointState.QUARANTINED, "Broken: the index of its pack. No run goes on from it"),
            (CheckpointState.EXPIRED, "Its bytes are gone"),
            (CheckpointState.ABANDONED, "It was never completed"),
        ],
    )
    def test_one_that_no_run_goes_on_from_says_why(self, client: Client, state: str, says: str) -> None:
        checkpoint: Any = CheckpointFactory(state=state, problem="the index of its pack" * (state == "QUARANTINED"))

        assert says in words_of(page_of(client, f"/checkpoints/{checkpoint.pk}"))

    @pytest.mark.parametrize(
        ("values", "buttons"),
        [
            ({}, {"restore", "verify", "pin", "archive", "replay"}),
            ({"pinned": True, "location": Location.ARCHIVED}, {"restore", "verify", "unpin", "recall", "replay"}),
            ({"state": CheckpointState.QUARANTINED}, {"verify"}),
            ({"state": CheckpointState.EXPIRED}, set()),
        ],
    )
    def test_it_offers_what_can_be_done_to_it(self, client: Client, values: dict[str, Any], buttons: set[str]) -> None:
        checkpoint: Any = CheckpointFactory(**values)

        assert offered(page_of(client, f"/checkpoints/{checkpoint.pk}")) == buttons

    def test_a_viewer_is_offered_nothing_and_may_do_nothing(self) -> None:
        viewer = logged_in("viewer")
        checkpoint: Any = CheckpointFactory()

        assert offered(page_of(viewer, f"/checkpoints/{checkpoint.pk}")) == set()
        assert viewer.post(f"/checkpoints/{checkpoint.pk}/pin").status_code == 403

    def test_one_that_there_is_not_is_not_found(self, client: Client) -> None:
        assert client.get(f"/checkpoints/{new_id()}").status_code == 404
        assert client.get(f"/checkpoints/{new_id()}/diff").status_code == 404


class TestSteps:
    def test_pinning_is_previewed_then_done_with_its_reason(self, client: Client) -> None:
        checkpoint: Any = CheckpointFactory()

        preview = client.get(f"/checkpoints/{checkpoint.pk}/pin", headers={"HX-Request": "true"}).content.decode()
        checkpoint.refresh_from_db()
        before = checkpoint.pinned
        answer = client.post(f"/checkpoints/{checkpoint.pk}/pin", {"reason": "the paper needs it"})

        checkpoint.refresh_from_db()
        assert "stays until somebody unpins it" in preview
        assert "<html" not in preview
        assert (before, checkpoint.pinned, answer.status_code) == (False, True, 302)
        assert AuditEvent.objects.get(type="checkpoint.pinned").reason == "the paper needs it"

    def test_a_pinned_one_is_left_to_the_policy_again(self, client: Client) -> None:
        checkpoint: Any = CheckpointFactory(pinned=True)

        client.post(f"/checkpoints/{checkpoint.pk}/unpin")

        checkpoint.refresh_from_db()
        assert not checkpoint.pinned

    @pytest.mark.parametrize(
        ("step", "kind", "values"),
        [
            ("verify", JobKind.VERIFY, {}),
            ("archive", JobKind.ARCHIVE, {}),
            ("recall", JobKind.RECALL, {"location": Location.ARCHIVED}),
        ],
    )
    def test_long_work_is_asked_for_once_and_shown_with_its_progress(
        self, client: Client, step: str, kind: str, values: dict[str, Any]
    ) -> None:
        checkpoint: Any = CheckpointFactory(**values)

        answers = [client.post(f"/checkpoints/{checkpoint.pk}/{step}") for _ in range(2)]

        assert [answer.status_code for answer in answers] == [302, 302]
        job = CheckpointJob.objects.get()
        assert (job.kind, job.checkpoint_id) == (kind, checkpoint.pk)
        assert "waiting" in words_of(page_of(client, f"/checkpoints/{checkpoint.pk}"))

    def test_what_is_refused_says_why_and_does_nothing(self, client: Client) -> None:
        checkpoint: Any = CheckpointFactory(state=CheckpointState.EXPIRED)

        preview, answer = (client.get(path := f"/checkpoints/{checkpoint.pk}/verify"), client.post(path))

        assert "Not done: the checkpoint is EXPIRED" in words_of(preview.content.decode())
        assert answer.status_code == 409
        assert not CheckpointJob.objects.exists()

    def test_work_is_given_up_from_the_page(self, client: Client) -> None:
        job: Any = CheckpointJobFactory()

        answer = client.post(f"/checkpoints/jobs/{job.pk}/cancel")

        job.refresh_from_db()
        assert job.state == JobState.CANCELLED
        assert answer.headers["Location"] == f"/checkpoints/{job.checkpoint_id}"

    def test_work_that_is_over_is_not_given_up(self, client: Client) -> None:
        job: Any = CheckpointJobFactory(state=JobState.SUCCEEDED)

        page = client.post(f"/checkpoints/jobs/{job.pk}/cancel", follow=True).content.decode()

        assert "Not done:" in page
        job.refresh_from_db()
        assert job.state == JobState.SUCCEEDED


class TestRestoring:
    def test_the_preview_says_how_much_is_trained_again_and_that_nothing_is_deleted(self, client: Client) -> None:
        run: Any = RunFactory(name="digits", state=RunState.PAUSED)
        made = make_checkpoints(run, count=3)

        words = words_of(page_of(client, f"/checkpoints/{made[0].pk}/restore"))

        assert "Set digits back to step 400?" in words
        assert "now paused," in words
        assert "the 800 steps up to 1,200, with the same result bit for bit" in words
        assert "The 2 newer checkpoints (4.7 MiB) stay as the policy says" in words
        assert "the checkpoint is quarantined, and the run is left as it is" in words

    def test_a_confirmed_one_is_work_that_a_worker_does(self, client: Client) -> None:
        run: Any = RunFactory(state=RunState.PAUSED)
        (checkpoint,) = make_checkpoints(run, count=1)

        answer = client.post(f"/checkpoints/{checkpoint.pk}/restore", {"reason": "it went astray"})

        job = CheckpointJob.objects.get()
        assert answer.status_code == 302
        assert (job.kind, job.checkpoint_id, job.state) == (JobKind.RESTORE, checkpoint.pk, JobState.PENDING)

    @pytest.mark.parametrize(
        ("state", "remedy"),
        [(RunState.RUNNING, "A run that is being trained is paused first"), (RunState.COMPLETED, "replay from it")],
    )
    def test_where_it_is_refused_the_page_tells_the_other_way(self, client: Client, state: str, remedy: str) -> None:
        run: Any = RunFactory(state=state)
        (checkpoint,) = make_checkpoints(run, count=1)

        words = words_of(page_of(client, f"/checkpoints/{checkpoint.pk}/restore"))

        assert "Not done:" in words
        assert remedy in words

    def test_a_replay_asks_for_a_whole_step(self, client: Client) -> None:
        run: Any = RunFactory(state=RunState.PAUSED)
        (checkpoint,) = make_checkpoints(run, count=1)

        answer = client.post(f"/checkpoints/{checkpoint.pk}/replay", {"step": "soon"})

        assert answer.status_code == 422
        assert "A whole number" in answer.content.decode()


class TestTrail:
    """Events about checkpoints name what they are of, and lead to its page."""

    @pytest.fixture
    def checkpoint(self, run: TrainingRun) -> Any:
        return CheckpointFactory(run_id=run.pk, step=1200)

    def named(self, kind: str, row: Any) -> trail.Named:
        (line,) = trail.lines_of([AuditEventFactory(subject_type=kind, subject_id=str(row.pk))])
        return line.subject

    def test_a_checkpoint_by_its_step(self, checkpoint: Any) -> None:
        named = self.named("checkpoint", checkpoint)

        assert named == trail.Named("at step 1,200 of digits-grown", f"/checkpoints/{checkpoint.pk}")

    def test_work_by_its_kind(self, checkpoint: Any) -> None:
        named = self.named("checkpoint_job", CheckpointJobFactory(checkpoint=checkpoint))

        assert named == trail.Named("verify, of digits-grown", f"/checkpoints/{checkpoint.pk}")

    def test_a_save_that_was_not_made_by_its_run(self, run: TrainingRun) -> None:
        job = CheckpointJobFactory(checkpoint=None, kind=JobKind.CREATE, run_id=run.pk)

        assert self.named("checkpoint_job", job) == trail.Named("create, of digits-grown", f"/checkpoints?run={run.pk}")

    def test_a_policy_by_whose_it_is(self, run: TrainingRun) -> None:
        policies = [CheckpointPolicyFactory(run_id=run.pk), CheckpointPolicyFactory()]

        assert [self.named("checkpoint_policy", policy).name for policy in policies] == [
            "of digits-grown",
            "of all runs",
        ]

    def test_a_recovery_by_its_run(self, run: TrainingRun) -> None:
        named = self.named("recovery", make_recovery(run))

        assert named == trail.Named("of digits-grown", f"/recovery?run={run.pk}")


@pytest.mark.usefixtures("checkpoint_folder")
class TestComparing:
    def test_two_are_compared_by_component_and_by_tensor(self, client: Client) -> None:
        run_id = new_id()
        older, newer = save(run_id, 10), save(run_id, 20)

        words = words_of(page_of(client, f"/checkpoints/{newer.pk}/diff?with={older.pk}"))

        assert "From step 10 to step 20" in words
        assert "In common 117.2 KiB 42.9 %, lies there once Changed 2" in words
        assert "Tolaria network, optimizer, random state, position in the data 1 2 0 0 0 117.2 KiB" in words
        assert "model/head changed float32 40000 float32 40000 156.2 KiB model/bias changed" in words

    def test_without_another_it_is_compared_with_the_one_before_it(self, client: Client) -> None:
        run_id = new_id()
        save(run_id, 10)
        newer = save(run_id, 20)

        assert "From step 10 to step 20" in page_of(client, f"/checkpoints/{newer.pk}/diff")

    def test_the_first_one_has_none_before_it(self, client: Client) -> None:
        assert "There is none to compare it with." in page_of(client, f"/checkpoints/{save().pk}/diff")

    def test_one_whose_bytes_are_gone_is_not_compared(self, client: Client) -> None:
        run_id = new_id()
        older, newer = save(run_id, 10), save(run_id, 20)
        manifest_of(older).unlink()

        page = page_of(client, f"/checkpoints/{newer.pk}/diff", status=503)

        assert f'href="/checkpoints/{newer.pk}">Back to the checkpoint' in page


class TestTimeline:
    def saved(self, step: int, *, added: int = 0, shared: int = 0) -> Saved:
        return Saved(step=step, added=added, shared=shared, words="")

    def test_steps_are_placed_in_proportion(self) -> None:
        first, second, third = checkpoint_drawing.timeline(
            [self.saved(step, added=100) for step in (0, 100, 400)], width=1000
        ).bars

        assert (third.middle - first.middle) == pytest.approx(4 * (second.middle - first.middle), abs=0.1)

    def test_what_was_new_stands_below_what_is_shared_on_one_scale(self) -> None:
        (bar,) = checkpoint_drawing.timeline([self.saved(1, added=256, shared=768)], width=1000).bars

        assert bar.shared_height == pytest.approx(3 * bar.added_height, rel=0.01)
        assert bar.top + bar.shared_height == pytest.approx(bar.cut)

    def test_a_thousandth_that_was_new_is_still_seen(self) -> None:
        (bar,) = checkpoint_drawing.timeline([self.saved(1, added=1, shared=10_000_000)], width=1000).bars

        assert bar.added_height >= 1

    @pytest.mark.parametrize("width", [1060, 330])
    @pytest.mark.parametrize(("first", "last"), [(0, 1), (2100, 3900), (400, 4800), (17, 1_000_003)])
    def test_the_axis_of_steps_names_two_steps_at_least_with_room_between(
        self, first: int, last: int, width: int
    ) -> None:
        ticks = checkpoint_drawing.timeline([self.saved(first), self.saved(last)], width=width).steps

        places = [tick.at for tick in ticks]
        assert len(places) >= 2
        assert all(later - earlier >= 48 for earlier, later in pairwise(places))

    def test_bars_of_the_same_step_stand_beside_each_other(self) -> None:
        one, other = checkpoint_drawing.timeline([self.saved(7, added=5), self.saved(7, added=5)], width=300).bars

        assert one.x + one.width < other.x

    @pytest.mark.parametrize(("most", "axis"), [(0, 2), (3, 4), (1000, 1024), (5 << 20, 8 << 20)])
    def test_the_axis_of_bytes_ends_at_a_power_of_two(self, most: int, axis: int) -> None:
        assert checkpoint_drawing.nice_bytes(most) == axis


def test_the_list_is_there_as_a_file(client: Client) -> None:
    run, other = make_run(name="one", state=RunState.QUEUED), make_run(name="other", state=RunState.QUEUED)
    made = make_checkpoints(run, count=3)
    make_checkpoints(other, count=1)
    Checkpoint.objects.filter(pk=made[2].pk).update(problem="=cmd|x")

    response = client.get(f"/checkpoints.csv?run={run.pk}")

    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))  # type: ignore[attr-defined]
    assert [(row["step"], row["problem"]) for row in rows] == [("1200", "'=cmd|x"), ("800", ""), ("400", "")]
