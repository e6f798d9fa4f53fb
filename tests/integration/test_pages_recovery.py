"""The page of recoveries: what was lost, from where it went on, and where the seconds went."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.core.ids import new_id
from apps.dashboards import recovery_drawing
from apps.training.lifecycle import RecoveryState, RunState
from apps.training.models import RecoveryCause, TrainingRun
from tests.support.checkpoint_rows import make_checkpoints, make_recovery
from tests.support.factories import CheckpointFactory, RunFactory
from tests.support.pages import page_of, words_of
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("ada", role="viewer"))
    return client


@pytest.fixture
def run() -> TrainingRun:
    found: Any = RunFactory(name="digits-grown", state=RunState.RUNNING)
    return found


def rows_of(html: str) -> list[str]:
    return [words_of(row) for row in html.split('<tr role="row" id="r-')[1:]]


def test_a_recovery_says_what_was_lost_from_where_it_went_on_and_how_long_each_stage_took(
    client: Client, run: TrainingRun
) -> None:
    (checkpoint,) = make_checkpoints(run, count=1)
    make_recovery(run, checkpoint=checkpoint, seconds=(11.2, 0.31, 0.08, 0.05, 0.4))

    (row,) = rows_of(page_of(client, "/recovery"))

    assert "digits-grown resumed Its worker was silent lost train@worker-1" in row
    assert "brought back by train@worker-2, token 2 step 400" in row
    assert "detect 11.2 s , load 310 ms , restore 80 ms , validate 50 ms , resume 400 ms 12 s" in row


def test_a_broken_one_that_was_passed_over_stands_there_with_its_problem(client: Client, run: TrainingRun) -> None:
    older: Any = CheckpointFactory(run_id=run.pk, step=40)
    broken: Any = CheckpointFactory(run_id=run.pk, step=80)
    skipped = [{"checkpoint": str(broken.pk), "step": 80, "problem": "the index of its pack is not the one written"}]
    make_recovery(run, checkpoint=older, skipped=skipped)

    page = page_of(client, "/recovery")

    assert "passed over step 80 : the index of its pack is not the one written" in words_of(page)
    assert f'href="/checkpoints/{broken.pk}"' in page


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ({"fingerprint": "same", "environment": "same"}, "computes as before, bit for bit"),
        ({"fingerprint": "different", "environment": "same"}, "does not compute as before"),
        ({"fingerprint": "different", "environment": "different"}, "it is another machine or other versions"),
    ],
)
def test_whether_the_network_computes_as_before_is_told(
    client: Client, run: TrainingRun, report: dict[str, str], says: str
) -> None:
    checkpoint: Any = CheckpointFactory(run_id=run.pk)
    make_recovery(run, checkpoint=checkpoint, report=report)

    assert says in rows_of(page_of(client, "/recovery"))[0]


def test_one_that_took_longer_than_it_may_is_marked_and_counted(client: Client, run: TrainingRun) -> None:
    make_recovery(run, seconds=(28.0, 1.0, 0.5, 0.1, 0.2))
    make_recovery(run, seconds=(40.0, 1.0, 0.5, 0.1, 0.2))

    page = page_of(client, "/recovery")

    assert ["over 30 s" in row for row in rows_of(page)] == [True, False]
    assert "Longer than 30 s 1 marked below" in words_of(page)


def test_totals_are_of_those_that_resumed(client: Client, run: TrainingRun) -> None:
    for seconds in (1.0, 2.0, 3.0, 20.0):
        make_recovery(run, seconds=(seconds, None, None, None, None))
    make_recovery(run, state=RecoveryState.FAILED, seconds=(99.0, None, None, None, None))

    words = words_of(page_of(client, "/recovery"))

    assert "5 recoveries: 4 resumed, 1 failed. Half of them within 2 s." in words
    assert "p95 20 s of 4 measured" in words


@pytest.mark.parametrize(
    ("state", "values", "says"),
    [
        (RecoveryState.RESUMED, {"cause": RecoveryCause.FAULT}, "its beginning: there was no checkpoint"),
        (RecoveryState.OPEN, {"seconds": (None,) * 5}, "coming back"),
        (RecoveryState.FAILED, {"problem": "its workers were lost 6 times"}, "its workers were lost 6 times"),
    ],
)
def test_each_outcome_is_told_in_words(
    client: Client, run: TrainingRun, state: str, values: dict[str, Any], says: str
) -> None:
    make_recovery(run, state=state, **values)

    assert says in rows_of(page_of(client, "/recovery"))[0]


def test_those_of_one_run_are_shown_alone(client: Client, run: TrainingRun) -> None:
    other: Any = RunFactory(name="spirals")
    make_recovery(run), make_recovery(other)

    page = page_of(client, f"/recovery?run={run.pk}")

    assert len(rows_of(page)) == 1
    assert "spirals" not in page


def test_before_anything_was_lost_the_page_says_so(client: Client) -> None:
    assert "Nothing was lost so far" in page_of(client, "/recovery")


def test_a_run_that_there_is_not_is_not_found(client: Client) -> None:
    assert client.get(f"/recovery?run={new_id()}").status_code == 404


def test_the_page_of_a_run_leads_to_its_recoveries(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=3, stories=())
    make_recovery(run)

    page = page_of(client, f"/runs/{run.pk}")

    assert "It came back 1 time" in words_of(page)
    assert f'href="/recovery?run={run.pk}"' in page


def test_the_number_of_queries_does_not_grow_with_the_list(client: Client, run: TrainingRun) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page_of(client, "/recovery")
        return len(captured)

    make_recovery(run)
    queries()
    with_one = queries()
    for _ in range(3):
        make_recovery(run)

    assert queries() == with_one <= 9


class TestStack:
    def test_stages_follow_each_other_on_the_scale_of_the_longest(self) -> None:
        drawn = recovery_drawing.stack({"detect": 10.0, "load": None, "restore": 30.0}, longest=80.0)

        assert [(part.stage, part.x, part.width) for part in drawn.parts] == [
            ("detect", 0.0, 50.0),
            ("restore", 50.0, 150.0),
        ]
        assert drawn.target == 150.0

    def test_a_limit_beyond_the_scale_is_not_drawn(self) -> None:
        assert recovery_drawing.stack({"detect": 2.0}, longest=2.0).target is None
