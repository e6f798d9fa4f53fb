"""What an open run page asks for: only what is new, nothing when nothing is, and everything after a rollback."""

import csv
import io
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.dashboards.selectors import live
from apps.morphogenesis.protocols import Action
from apps.observability.lifecycle import AlertState
from apps.training.lifecycle import RunState
from apps.training.models import Decision, EpochMetric, RunLease, TrainingRun
from tests.support.run_rows import make_alert, make_anomaly, make_control, make_recordings, make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("ada", role="viewer"))
    return client


def poll(client: Client, run: TrainingRun, query: str = "", etag: str = "") -> Any:
    headers = {"If-None-Match": etag} if etag else {}
    return client.get(f"/runs/{run.pk}/live.json{query}", headers=headers)


def add_epoch(run: TrainingRun, epoch: int) -> None:
    EpochMetric.objects.create(run=run, epoch=epoch, step=epoch * 40, parameters=1, train_flops=1)


def test_the_same_state_is_sent_once(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=5)
    first = poll(client, run)

    second = poll(client, run, etag=first["ETag"])

    assert (second.status_code, second.content) == (304, b"")
    assert second["ETag"] == first["ETag"]


def test_a_poll_that_finds_nothing_new_asks_the_database_little(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=5)
    etag = poll(client, run)["ETag"]

    with CaptureQueriesContext(connection) as captured:
        poll(client, run, etag=etag)

    assert len(captured) <= 8


def test_only_epochs_after_the_last_known_one_are_sent(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=5)
    etag = poll(client, run)["ETag"]
    add_epoch(run, 6)

    answer = poll(client, run, "?since=5", etag=etag)

    assert answer.status_code == 200
    assert answer.json()["points"]["epoch"] == [6]
    assert answer["ETag"] != etag


def test_missing_measurements_are_null(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=1)
    add_epoch(run, 2)

    assert poll(client, run, "?since=1").json()["points"]["validation_loss"] == [None]


@pytest.mark.parametrize("change", ["state", "command", "silence", "control"])
def test_whatever_the_page_shows_changes_the_etag(client: Client, change: str) -> None:
    run = make_run(state=RunState.RUNNING, done=5)
    etag = poll(client, run)["ETag"]

    if change == "state":
        run.state = RunState.PAUSED
        run.save()
    elif change == "command":
        TrainingRun.objects.filter(pk=run.pk).update(command="STOP")
    elif change == "silence":
        RunLease.objects.filter(run=run).update(expires_at=timezone.now() - timedelta(seconds=1))
    else:
        make_control(run, done=1)

    assert poll(client, run, etag=etag).status_code == 200


def test_a_heartbeat_alone_is_no_news(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=5)
    etag = poll(client, run)["ETag"]
    now = timezone.now()
    RunLease.objects.filter(run=run).update(heartbeat_at=now, expires_at=now + timedelta(seconds=10))

    assert poll(client, run, etag=etag).status_code == 304


def test_a_rollback_sends_the_epochs_again_that_are_measured_anew(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=12)
    run.settings["snapshot_epochs"] = 1
    run.save()
    Decision.objects.create(
        run=run, sequence=999, epoch=10, step=400, action=Action.ROLLBACK, rule="governor", reason="the loss exploded"
    )

    first = poll(client, run, "?since=12").json()

    assert first["points"]["epoch"] == [9, 10, 11, 12]
    assert poll(client, run, "?since=12&page=1").json()["points"]["epoch"] == []


def test_a_long_run_comes_in_parts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_POINTS", 10)
    run = make_run(done=25, state=RunState.RUNNING, stories=())

    first = poll(client, run).json()
    second = poll(client, run, "?since=10&page=1").json()
    third = poll(client, run, "?since=20&page=1").json()

    assert [part["more"] for part in (first, second, third)] == [True, True, False]
    assert [len(part["points"]["epoch"]) for part in (first, second, third)] == [10, 10, 5]


@pytest.mark.parametrize(
    ("state", "asks_again"), [(RunState.RUNNING, True), (RunState.PAUSED, True), (RunState.FAILED, False)]
)
def test_a_page_asks_again_only_while_something_can_change(client: Client, state: RunState, asks_again: bool) -> None:
    run = make_run(state=state, done=5)

    assert (poll(client, run).json()["poll_after"] is not None) == asks_again


def test_a_completed_run_is_watched_until_its_control_is_done(client: Client) -> None:
    run = make_run()
    waiting = poll(client, run).json()["poll_after"]
    make_control(run)

    assert waiting is not None
    assert poll(client, run).json()["poll_after"] is None


def test_lanes_tell_what_each_seed_was_and_when(client: Client) -> None:
    spans = poll(client, make_run()).json()["spans"]

    second = [(span["state"], span["from"][0]) for span in spans if span["seed"] == 2]
    assert second == [
        ("GERMINATED", 12), ("TRAINING", 13), ("GRAFTING", 15), ("STABILIZING", 17), ("EVALUATING", 18),
        ("CULLED", 24), ("EMBARGOED", 24),
    ]  # fmt: skip
    assert next(span for span in spans if span["state"] == "EMBARGOED")["until"] == [29, 1160]


def test_lanes_have_a_row_for_each_site_before_anything_has_grown(client: Client) -> None:
    run = make_run(state=RunState.QUEUED)

    assert "layers.0.width" in poll(client, run).json()["sites"]


def test_the_events_rail_has_each_kind_of_mark(client: Client) -> None:
    events = poll(client, make_run()).json()["events"]

    assert {event["kind"] for event in events} == {"germinate", "graft", "fossilise", "cull", "snapshot"}


@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?since=1e9", "?since=" + "9" * 40, "?since=%00&page=%00"])
def test_a_silly_since_is_the_beginning(client: Client, query: str) -> None:
    run = make_run(state=RunState.RUNNING, done=2)

    answer = poll(client, run, query)

    assert (answer.status_code, answer.json()["from"]) == (200, 0)


@pytest.mark.parametrize("chart", ["accuracy", "loss", "parameters", "flops"])
def test_each_chart_has_a_table_with_the_same_points(client: Client, chart: str) -> None:
    run = make_run(state=RunState.RUNNING, done=3)

    page = client.get(f"/runs/{run.pk}/charts/{chart}").content.decode()

    assert page.count("<tr>") == 4


def test_a_long_table_leads_to_older_epochs(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=205, epochs=300, stories=())

    newest = client.get(f"/runs/{run.pk}/charts/loss").content.decode()
    older = client.get(f"/runs/{run.pk}/charts/loss?before=6").content.decode()

    assert "?before=6" in newest
    assert older.count("<tr>") == 6


def test_a_chart_as_a_file_holds_every_epoch_in_the_units_of_storage(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=3)

    response = client.get(f"/runs/{run.pk}/charts/accuracy.csv")

    rows = list(csv.DictReader(io.StringIO(response.getvalue().decode())))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert 0 < float(rows[0]["validation_accuracy"]) < 1


def test_seeds_and_decisions_come_as_files(client: Client) -> None:
    run = make_run()

    seeds = client.get(f"/runs/{run.pk}/charts/seeds.csv").getvalue().decode()
    decisions = client.get(f"/runs/{run.pk}/charts/decisions.csv").getvalue().decode()

    assert "layers.0.width,widen,EVALUATING,FOSSILIZED,G5" in seeds
    assert "GERMINATE,loss_trigger,layers.0.width" in decisions


def test_no_cell_of_a_file_is_taken_for_a_formula(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=1, stories=())
    Decision.objects.create(run=run, sequence=99, epoch=1, step=1, action="HOLD", rule="x", reason="=HYPERLINK(1)")

    assert "'=HYPERLINK(1)" in client.get(f"/runs/{run.pk}/charts/decisions.csv").getvalue().decode()


def test_a_chart_that_does_not_exist_is_not_found(client: Client) -> None:
    run = make_run(state=RunState.QUEUED)

    assert client.get(f"/runs/{run.pk}/charts/nonsense").status_code == 404
    assert client.get(f"/runs/{run.pk}/charts/nonsense.csv").status_code == 404


def events_of(client: Client, run: TrainingRun, kind: str) -> list[dict[str, Any]]:
    return [event for event in poll(client, run).json()["events"] if event["kind"] == kind]


def test_anomalies_lie_at_the_epochs_at_which_they_were(client: Client) -> None:
    run = make_run(stories=())
    make_anomaly(run, epoch=20.5, until=23)

    (mark,) = events_of(client, run, "anomaly")

    assert (mark["at"], mark["until"]) == ([20, 20.5 * 40], [23, 23 * 40])
    assert "esper_run_train_loss" in mark["text"]
    assert mark["href"] == f"/alerts/anomalies?run={run.pk}"


def test_an_alert_lasts_until_it_is_resolved(client: Client) -> None:
    run = make_run(stories=())
    over = make_alert(run, AlertState.RESOLVED, epoch=10, until=12)
    make_alert(run, AlertState.FIRING, epoch=30)

    firing, resolved = events_of(client, run, "alert")

    assert (resolved["at"], resolved["until"], resolved["href"]) == ([10, 400], [12, 480], f"/alerts/{over.pk}")
    assert (firing["at"], firing["until"]) == ([30, 1200], None)


def test_what_was_odd_before_anything_was_measured_lies_at_the_start(client: Client) -> None:
    run = make_run(state=RunState.QUEUED)
    make_anomaly(run)

    assert events_of(client, run, "anomaly")[0]["at"] == [0, 0.0]


def test_marks_of_other_runs_stay_with_them(client: Client) -> None:
    make_anomaly(make_run(epochs=2, stories=()))

    assert events_of(client, make_run(epochs=2, stories=()), "anomaly") == []


@pytest.mark.parametrize("change", ["anomaly", "longer", "alert", "acknowledged", "resolved"])
def test_whatever_is_odd_changes_the_etag_and_the_panels(client: Client, change: str) -> None:
    run = make_run(epochs=3, stories=())
    anomaly, alert = make_anomaly(run, epoch=1), make_alert(run, epoch=1)
    before = poll(client, run)

    if change == "anomaly":
        make_anomaly(run, epoch=2)
    elif change == "longer":
        anomaly.until += timedelta(seconds=1)
        anomaly.save()
    elif change == "alert":
        make_alert(run, epoch=2)
    elif change == "acknowledged":
        alert.acknowledged_at = timezone.now()
        alert.save()
    else:
        alert.state = AlertState.RESOLVED
        alert.save()

    after = poll(client, run, etag=before["ETag"])
    assert after.json()["panels"] != before.json()["panels"]


def test_an_ended_run_is_asked_for_again_while_an_alert_about_it_is_open(client: Client) -> None:
    run = make_run(epochs=2, stories=())
    TrainingRun.objects.filter(pk=run.pk).update(wants_control=False)
    alert = make_alert(run)
    firing = poll(client, run).json()["poll_after"]
    alert.state = AlertState.RESOLVED
    alert.save()

    assert (firing, poll(client, run).json()["poll_after"]) == (10_000, None)


def recorded(client: Client, run: TrainingRun, etag: str = "") -> Any:
    headers = {"If-None-Match": etag} if etag else {}
    return client.get(f"/runs/{run.pk}/recorded.json", headers=headers)


def test_what_the_worker_recorded_lies_over_the_epochs(client: Client) -> None:
    run = make_run(epochs=10, stories=())
    make_recordings(run)

    charts = recorded(client, run).json()["charts"]

    assert list(charts) == ["throughput", "gradient", "overhead"]
    steps = charts["gradient"]["step"]
    assert steps == sorted(set(steps))
    assert 0 < steps[0] <= 40
    assert 360 < steps[-1] <= 400
    assert len(steps) == len(charts["gradient"]["mean"]) == 18


def test_a_time_without_recordings_is_a_gap(client: Client) -> None:
    run = make_run(epochs=20, stories=())
    make_recordings(run, gap=range(8, 12))

    assert recorded(client, run).json()["charts"]["overhead"]["mean"].count(None) == 1


def test_of_a_few_recordings_every_one_is_drawn(client: Client) -> None:
    run = make_run(epochs=6, stories=())
    make_recordings(run, gap=range(2, 5))

    drawn = recorded(client, run).json()["charts"]["overhead"]["mean"]

    assert len(drawn) > 1
    assert None not in drawn, "a point that stands alone would not be seen"


def test_recordings_that_are_known_are_not_sent_again(client: Client) -> None:
    run = make_run(epochs=4, stories=())
    make_recordings(run)
    etag = recorded(client, run)["ETag"]

    assert recorded(client, run, etag).status_code == 304


def test_a_run_without_recordings_has_none(client: Client) -> None:
    assert recorded(client, make_run(epochs=2, stories=())).json() == {"charts": {}, "poll_after": None}


def test_recordings_have_their_table_and_their_file(client: Client) -> None:
    run = make_run(epochs=4, stories=())
    make_recordings(run)

    page = client.get(f"/runs/{run.pk}").content.decode()

    table, file = (
        re.search(r'href="(/charts/metrics\?[^"]+)"', page),
        re.search(r'href="(/charts/metrics.csv[^"]+)"', page),
    )
    assert table is not None
    assert file is not None
    assert "<td" in client.get(table[1].replace("&amp;", "&")).content.decode()
    assert client.get(file[1].replace("&amp;", "&")).content.decode().count("esper_run_samples_per_second") == 6
