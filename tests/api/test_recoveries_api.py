"""`/recoveries`: how runs came back, stage by stage, over HTTP."""

import pytest

from apps.training.models import RecoveryCause, RecoveryState
from tests.api.conftest import Caller
from tests.support.checkpoint_rows import make_recovery
from tests.support.factories import CheckpointFactory, RunFactory
from tests.support.problems import assert_problem

pytestmark = pytest.mark.django_db

RECOVERIES = "/api/v1/recoveries"


def test_a_recovery_tells_the_seconds_of_each_stage(admin: Caller) -> None:
    run = RunFactory()
    checkpoint = CheckpointFactory(run_id=run.pk)
    recovery = make_recovery(run, checkpoint=checkpoint, seconds=(11.0, 0.25, 0.5, None, 0.25))

    answer = admin.get(f"{RECOVERIES}/{recovery.pk}").json()

    assert (answer["run"], answer["checkpoint"], answer["cause"]) == (str(run.pk), str(checkpoint.pk), "lease")
    assert {stage["name"]: stage["seconds"] for stage in answer["stages"]} == {
        "detect": 11.0,
        "load": 0.25,
        "restore": 0.5,
        "validate": None,
        "resume": 0.25,
    }
    assert answer["total_seconds"] == 12.0


def test_one_that_is_under_way_has_no_total_yet(admin: Caller) -> None:
    recovery = make_recovery(RunFactory(), state=RecoveryState.OPEN, seconds=(11.0, None, None, None, None))

    answer = admin.get(f"{RECOVERIES}/{recovery.pk}").json()

    assert (answer["state"], answer["total_seconds"], answer["ended_at"]) == ("OPEN", None, None)


def test_checkpoints_that_were_passed_over_are_named(admin: Caller) -> None:
    broken = CheckpointFactory()
    skipped = {"checkpoint": str(broken.pk), "step": 40, "problem": "manifest: the file is gone"}
    recovery = make_recovery(RunFactory(), skipped=[skipped])

    assert admin.get(f"{RECOVERIES}/{recovery.pk}").json()["skipped"] == [skipped]


@pytest.mark.parametrize(
    ("query", "found"),
    [("cause=restore", {"restored"}), ("state=FAILED", {"lost"}), ("state=RESUMED&state=FAILED", {"restored", "lost"})],
)
def test_recoveries_are_found_by_cause_and_outcome(admin: Caller, query: str, found: set[str]) -> None:
    names = {
        str(make_recovery(RunFactory(), cause=RecoveryCause.RESTORE).pk): "restored",
        str(make_recovery(RunFactory(), state=RecoveryState.FAILED).pk): "lost",
        str(make_recovery(RunFactory(), state=RecoveryState.OPEN).pk): "open",
    }

    answer = admin.get(f"{RECOVERIES}?{query}").json()["results"]

    assert {names[row["id"]] for row in answer} == found


def test_those_of_one_run_are_found(admin: Caller) -> None:
    run = RunFactory()
    mine, _ = make_recovery(run), make_recovery(RunFactory())

    (found,) = admin.get(RECOVERIES, {"run": str(run.pk)}).json()["results"]

    assert found["id"] == str(mine.pk)


def test_they_are_only_read(admin: Caller) -> None:
    assert_problem(admin.post(RECOVERIES, {}), 405)
