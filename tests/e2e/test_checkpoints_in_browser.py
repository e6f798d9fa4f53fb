"""The pages of checkpoints and recoveries at two widths and in both themes, and their main path without a mouse."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy, JobKind, Location
from apps.training.lifecycle import RecoveryState, RunState
from apps.training.models import RecoveryCause
from tests.e2e.conftest import Open
from tests.e2e.test_pages_in_browser import look_everywhere
from tests.support.checkpoint_rows import make_checkpoints, make_recovery
from tests.support.factories import CheckpointFactory, CheckpointJobFactory
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.e2e


@pytest.fixture
def paths(live_site: str) -> dict[str, str]:
    """Name -> path of every page, over checkpoints that were pinned, broken, archived, and recoveries of all kinds."""
    make_user(role="curator")
    run = make_run(name="digits-grown", state=RunState.RUNNING, done=0, stories=())
    paused = make_run(name="spirals-paused", task="spirals", state=RunState.PAUSED, done=0, stories=())
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
        "none": "/checkpoints?reason=upload",
        "of-run": f"/checkpoints?run={run.pk}",
        "of-new-run": f"/checkpoints?run={idle.pk}",
        "one": f"/checkpoints/{made[11].pk}",
        "broken": f"/checkpoints/{made[9].pk}",
        "restore": f"/checkpoints/{others[1].pk}/restore",
        "verify": f"/checkpoints/{made[11].pk}/verify",
        "replay": f"/checkpoints/{others[1].pk}/replay",
        "save": f"/runs/{run.pk}/save",
        "diff": f"/checkpoints/{made[11].pk}/diff",
        "recovery": "/recovery",
        "recovery-of-run": f"/recovery?run={paused.pk}",
        "recovery-none": f"/recovery?run={idle.pk}",
        "run": f"/runs/{run.pk}#checkpoints",
    }


def test_the_pages_are_accessible_still_and_fit(open_window: Open, paths: dict[str, str]) -> None:
    assert look_everywhere(open_window, paths, area="checkpoints") == []
