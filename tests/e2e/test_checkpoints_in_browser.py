"""The pages of checkpoints and recoveries at two widths and in both themes, and their main path without a mouse."""

from datetime import timedelta
from typing import Any

import pytest
import torch
from django.utils import timezone
from playwright.sync_api import expect

from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, CheckpointPolicy, JobKind, Location
from apps.checkpoints.services.jobs import run_job
from apps.training.lifecycle import RecoveryState, RunState
from apps.training.models import RecoveryCause
from tests.e2e.conftest import Open
from tests.e2e.test_keyboard import tab_to
from tests.e2e.test_pages_in_browser import look_everywhere
from tests.support.checkpoint_rows import make_checkpoints, make_recovery
from tests.support.checkpoints import save
from tests.support.factories import CheckpointFactory, CheckpointJobFactory
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.e2e


@pytest.fixture
def paths(live_site: str) -> dict[str, str]:
    """Name -> path of every page, over checkpoints that were pinned, broken, archived, and recoveries of all kinds."""
    make_user(role="curator")
    run = make_run(name="digits-grown", state=RunState.RUNNING, done=0, stories=())
    paused = make_run(name="spirals-paused", task="spirals", state=RunState.PAUSED, done=0, stories=())
    grown = make_run(name="digits-compared", state=RunState.PAUSED, done=0, stories=())
    idle = make_run(name="digits-new", state=RunState.QUEUED)
    made = make_checkpoints(run, count=12)
    others = make_checkpoints(paused, count=4)
    now = timezone.now()
    Checkpoint.objects.filter(pk__in=[row.pk for row in made]).update(verified_at=now)
    for age, row in enumerate(reversed(made)):
        Checkpoint.objects.filter(pk=row.pk).update(created_at=now - timedelta(hours=26 * age + 1))
    Checkpoint.objects.filter(pk=made[3].pk).update(pinned=True)
    Checkpoint.objects.filter(pk__in=[row.pk for row in made[:3]]).update(location=Location.ARCHIVED, copied_at=now)
    problem = "object 3f09c1d2ab71: its bytes are not those that were stored"
    Checkpoint.objects.filter(pk=made[9].pk).update(state=CheckpointState.QUARANTINED, problem=problem)
    CheckpointFactory(run_id=run.pk, step=5000, state=CheckpointState.STAGING, format="esper-checkpoint/1")
    CheckpointPolicy.objects.create(workspace=run.workspace, keep_last=2, keep_days=7, keep_weekly=2, keep_best=1)
    before, after = (save(grown.pk, step, grown_state(step)) for step in (400, 800))
    job = {"run_id": run.pk, "checkpoint": made[11], "total": 6_000_000}
    CheckpointJobFactory(**job, state=JobState.SUCCEEDED, done=6_000_000, result={"objects": 6, "bytes": 6_000_000})
    CheckpointJobFactory(**job, kind=JobKind.ARCHIVE, state=JobState.RUNNING, done=2_500_000)
    CheckpointJobFactory(
        run_id=run.pk, checkpoint=made[9], state=JobState.FAILED, problem="the storage did not answer: timed out"
    )
    CheckpointJobFactory(run_id=run.pk, checkpoint=None, kind=JobKind.CREATE)
    make_recovery(run, checkpoint=made[5])
    make_recovery(
        run,
        checkpoint=made[8],
        seconds=(41.0, 1.9, 0.2, 0.1, 0.9),
        skipped=[{"checkpoint": str(made[9].pk), "step": made[9].step, "problem": problem}],
    )
    make_recovery(run, checkpoint=None, cause=RecoveryCause.FAULT, seconds=(6.0, None, None, None, 2.2))
    make_recovery(
        paused,
        state=RecoveryState.FAILED,
        seconds=(10.4, 0.3, None, None, None),
        problem="its workers were lost 6 times since its last checkpoint",
    )
    make_recovery(
        paused, checkpoint=others[1], cause=RecoveryCause.RESTORE, state=RecoveryState.OPEN, seconds=(None,) * 5
    )
    return {
        "all": "/checkpoints",
        "of-run": f"/checkpoints?run={run.pk}",
        "one": f"/checkpoints/{made[11].pk}",
        "broken": f"/checkpoints/{made[9].pk}",
        "restore": f"/checkpoints/{others[1].pk}/restore",
        "diff": f"/checkpoints/{after.pk}/diff?with={before.pk}",
        "recovery": "/recovery",
        "recovery-none": f"/recovery?run={idle.pk}",
    }


def grown_state(step: int) -> dict[str, Any]:
    """A small network after ``step`` steps; a seed was grafted between 400 and 800, and its body is frozen."""
    random = torch.Generator().manual_seed(step)
    model = {
        "layers.0.weight": torch.arange(200_000, dtype=torch.float32).reshape(1000, 200),
        "layers.1.weight": torch.randn(200, 64 if step < 500 else 96, generator=random),
        "head.bias": torch.randn(10, generator=random),
    }
    if step > 500:
        model["layers.1.seed.weight"] = torch.randn(32, 200, generator=random)
    return {
        "tolaria": {"model": model, "step": step},
        "tamiyo": {"policy": {"counts": [step]}},
        "kasmina": {"slots": {"layers.1.width": {"alpha": 1.0, "ledger": torch.randn(40, generator=random)}}},
    }


def test_the_pages_are_accessible_still_and_fit(open_window: Open, paths: dict[str, str]) -> None:
    assert look_everywhere(open_window, paths, area="checkpoints") == []


def test_a_run_is_set_back_to_a_checkpoint_with_the_keyboard_alone(open_window: Open, live_site: str) -> None:
    make_user(role="operator")
    run = make_run(name="digits-astray", state=RunState.PAUSED, done=2, stories=())
    checkpoint = save(run.pk, 40)
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/checkpoints/{checkpoint.pk}")

    tab_to(page, "checkpoint-restore")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("Set digits-astray back to step 40?")
    tab_to(page, "reason")
    page.keyboard.type("it went astray")
    page.keyboard.press("Enter")
    expect(page.locator("#jobs .state")).to_have_text("waiting")

    run_job(job_id=CheckpointJob.objects.get().pk)
    expect(page.locator("#jobs .state")).to_have_text("done")

    run.refresh_from_db()
    assert run.state == RunState.RECOVERING
    page = visit.go(f"/recovery?run={run.pk}")
    expect(page.locator("#recoveries")).to_contain_text("Set back by somebody")
