"""`manage.py checkpoints`: everything that can be done with checkpoints, at the terminal."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from celery import current_app
from django.core.management import CommandError, call_command

from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind
from apps.checkpoints.services import jobs
from apps.core.ids import new_id
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, RunLease, TrainingRun
from tests.support.checkpoints import checkpoint_folder, flip, pack_of, save
from tests.support.factories import CheckpointFactory, CheckpointPolicyFactory, RunFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder", "queued")]

__all__ = ["checkpoint_folder"]


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is queued: what the command does not do itself, nobody does."""
    monkeypatch.setattr(current_app, "send_task", lambda task, args, **kwargs: None)


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("checkpoints", *arguments, stdout=output)
    return output.getvalue()


def run_json(*arguments: str) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json").splitlines()[-1])


def answer_with(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("builtins.input", lambda question: text)


class TestLooking:
    def test_checkpoints_are_listed_newest_first(self) -> None:
        run_of_them = RunFactory()
        older, newer = (CheckpointFactory(run_id=run_of_them.pk, step=step) for step in (10, 20))
        CheckpointFactory()

        listed = run_json("list", "--run", str(run_of_them.pk))

        assert [row["id"] for row in listed["checkpoints"]] == [str(newer.pk), str(older.pk)]
        assert str(newer.pk) in run("list", "--state", "COMMITTED")

    @pytest.mark.parametrize("most", ["-1", "1.5", "many", str(2**63), "9" * 5000])
    def test_numbers_that_nothing_has_are_refused(self, most: str) -> None:
        with pytest.raises(CommandError, match="is not a whole number from 0 to"):
            run("list", f"--most={most}")

    def test_of_many_it_tells_how_many_more_there_are(self) -> None:
        for _ in range(3):
            CheckpointFactory()

        assert run_json("list", "--most", "1")["more"] == 2
        assert "... and 2 more" in run("list", "--most", "1")

    def test_one_tells_its_components_and_whether_it_stays(self) -> None:
        checkpoint = save()

        assert run_json("show", str(checkpoint.pk))["retention"]["keep"] is True
        assert "tolaria: 3 tensors" in run("show", str(checkpoint.pk))

    def test_two_are_compared(self) -> None:
        run_id = new_id()
        older, newer = save(run_id, 10), save(run_id, 20)

        compared = run_json("diff", str(newer.pk), str(older.pk))

        tolaria = next(part for part in compared["components"] if part["name"] == "tolaria")
        assert (tolaria["changed"], tolaria["same"]) == (2, 1)

    @pytest.mark.parametrize("given", ["nonsense", "01a21aef-2ee8-7659-b1b0-3723cea3941f"])
    def test_what_is_not_there_is_told_with_where_to_look(self, given: str) -> None:
        with pytest.raises(CommandError, match=r"`manage\.py checkpoints list` names them"):
            run("show", given)


class TestWork:
    def test_verifying_is_done_here_and_told(self) -> None:
        checkpoint = save()

        verified = run_json("verify", str(checkpoint.pk), "--reason", "before the paper")

        assert (verified["state"], verified["result"]["bytes"] > 0) == (JobState.SUCCEEDED, True)
        assert AuditEvent.objects.get(type="checkpoint_job.requested").reason == "before the paper"

    def test_a_broken_checkpoint_fails_the_command(self) -> None:
        checkpoint = save()
        flip(pack_of(checkpoint), 1000)

        with pytest.raises(CommandError, match="it is FAILED: object"):
            run("verify", str(checkpoint.pk))

    def test_it_goes_to_the_archive_and_comes_back(self) -> None:
        checkpoint = save()

        assert run_json("archive", str(checkpoint.pk))["result"] == {"location": "ARCHIVED"}
        assert run_json("recall", str(checkpoint.pk))["result"] == {"location": "LOCAL"}

    def test_a_save_is_watched_until_the_run_has_made_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        training = RunFactory(state=RunState.RUNNING)
        checkpoint = CheckpointFactory(run_id=training.pk)

        def saved_by_the_run(*, job_id: Any, **others: Any) -> CheckpointJob:
            return jobs.finish_job(CheckpointJob.objects.get(pk=job_id), checkpoint=checkpoint)

        monkeypatch.setattr(jobs, "run_job", saved_by_the_run)

        assert run_json("create", "--run", str(training.pk))["result"] == {"checkpoint": str(checkpoint.pk)}

    def test_what_cannot_be_done_now_is_told(self) -> None:
        with pytest.raises(CommandError, match="QUEUED: only a running run can be saved"):
            run("create", "--run", str(RunFactory().pk))

    def test_an_interrupted_command_tells_how_to_stop_the_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(**arguments: Any) -> CheckpointJob:
            raise KeyboardInterrupt

        monkeypatch.setattr(jobs, "run_job", interrupted)

        with pytest.raises(CommandError, match="a worker goes on with it; DELETE /api/v1/operations/"):
            run("verify", str(save().pk))


class TestRestoring:
    @pytest.fixture
    def checkpoint(self) -> Checkpoint:
        paused = RunFactory(state=RunState.PAUSED)
        return save(paused.pk, 10)

    def test_it_asks_first(self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        answer_with(monkeypatch, "n")

        with pytest.raises(CommandError, match="nothing was done"):
            run("restore", str(checkpoint.pk))
        assert not CheckpointJob.objects.exists()

    def test_the_run_goes_on_from_it(self, checkpoint: Checkpoint) -> None:
        assert run_json("restore", str(checkpoint.pk), "--yes")["state"] == JobState.SUCCEEDED

        restored = TrainingRun.objects.get(pk=checkpoint.run_id)
        assert (restored.state, restored.resume_from) == (RunState.RECOVERING, checkpoint.pk)

    def test_nobody_there_to_answer_is_told(self, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO(""))

        with pytest.raises(CommandError, match="give --yes"):
            run("restore", str(checkpoint.pk))

    def test_components_are_only_for_validation(self, checkpoint: Checkpoint) -> None:
        with pytest.raises(CommandError, match="--validate-only"):
            run("restore", str(checkpoint.pk), "--component", "tolaria", "--yes")

    def test_a_replay_asks_for_its_step(self, monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint) -> None:
        monkeypatch.setitem(jobs.WORKS, "replay", jobs.Work(lambda **asked: None, lambda job, progress: {}, "train"))

        run("replay", str(checkpoint.pk), "--to-step", "15")

        assert CheckpointJob.objects.get(kind=JobKind.REPLAY).parameters == {"step": 15}


class TestKeeping:
    def test_a_pin_is_set_and_taken_away(self) -> None:
        checkpoint = save()

        assert run_json("pin", str(checkpoint.pk))["pinned"] is True
        assert run_json("unpin", str(checkpoint.pk))["pinned"] is False

    @pytest.fixture
    def old(self) -> Checkpoint:
        """The older one of two, which no rule keeps."""
        run_id = new_id()
        old = save(run_id, 10)
        save(run_id, 20)
        Checkpoint.objects.filter(pk=old.pk).update(created_at="2026-01-01T00:00:00Z")
        CheckpointPolicyFactory(keep_last=1, keep_days=1, keep_best=0)
        return old

    def test_retention_tells_what_would_go_and_touches_nothing(self, old: Checkpoint) -> None:
        told = run_json("retention")

        assert (told["goes"], told["expired"], told["frees"] > 0) == ([str(old.pk)], 0, True)
        assert f"goes  {old.pk} step 10: no rule keeps it" in run("retention")
        assert Checkpoint.objects.filter(state=CheckpointState.COMMITTED).count() == 2

    def test_retention_lets_go_once_somebody_agrees(self, old: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        answer_with(monkeypatch, "no")
        with pytest.raises(CommandError, match="nothing was done"):
            run("retention", "--apply")

        assert run_json("retention", "--apply", "--yes")["expired"] == 1
        assert Checkpoint.objects.get(pk=old.pk).state == CheckpointState.EXPIRED

    def test_garbage_is_collected_and_told(self) -> None:
        assert set(run_json("collect")) >= {"abandoned", "objects", "packs", "bytes", "compacted_packs", "problems"}

    def test_a_scrub_tells_what_it_read(self) -> None:
        save()

        assert run_json("scrub")["checkpoints"] == 1


class TestFiles:
    def test_what_is_exported_is_imported_into_an_external_run(self, tmp_path: Path) -> None:
        external = RunFactory(kind=RunKind.EXTERNAL)

        exported = run_json("export", str(save().pk), str(tmp_path / "out.safetensors"))
        imported = run_json("import", str(tmp_path / "out.safetensors"), "--run", str(external.pk))

        assert (exported["format"], exported["components"]) == ("safetensors", ["tolaria", "tamiyo"])
        assert (imported["run_id"], imported["reason"], imported["step"]) == (str(external.pk), "upload", 10)

    def test_the_run_waits_for_its_client_afterwards(self, tmp_path: Path) -> None:
        external = RunFactory(kind=RunKind.EXTERNAL)
        torch.save({"w": torch.ones(2)}, tmp_path / "in.pt")

        run("import", str(tmp_path / "in.pt"), "--run", str(external.pk), "--epoch", "2", "--at-step", "80")

        checkpoint = Checkpoint.objects.get()
        assert (checkpoint.epoch, checkpoint.step) == (2, 80)
        assert TrainingRun.objects.get(pk=external.pk).state == RunState.PAUSED
        assert RunLease.objects.get(run=external).holder == ""

    def test_a_run_that_a_client_has_is_not_taken_from_it(self, tmp_path: Path) -> None:
        external = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
        RunLease.objects.filter(run=external).update(holder="laptop", fencing_token=4)
        torch.save({"w": torch.ones(2)}, tmp_path / "in.pt")

        with pytest.raises(CommandError, match="cannot be taken now"):
            run("import", str(tmp_path / "in.pt"), "--run", str(external.pk))
        run("import", str(tmp_path / "in.pt"), "--run", str(external.pk), "--fencing-token", "4")
        assert Checkpoint.objects.get().fencing_token == 4

    def test_a_file_that_cannot_be_taken_is_told_in_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "in.gif").write_bytes(b"GIF89a" * 9)

        with pytest.raises(CommandError, match=r"in\.gif cannot be taken: neither safetensors nor torch\.save"):
            run("import", str(tmp_path / "in.gif"), "--run", str(RunFactory(kind=RunKind.EXTERNAL).pk))

    def test_an_internal_run_takes_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(CommandError, match="only external runs"):
            run("import", str(tmp_path / "in.pt"), "--run", str(RunFactory().pk))
