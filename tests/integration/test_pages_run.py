"""The page of one run: is it healthy, what did it grow and why, was it worth it."""

import re
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert, Severity
from apps.training.lifecycle import RunState
from apps.training.models import Decision, RunKind, RunLease, TrainingRun
from tests.support.run_rows import STORIES, make_alert, make_anomaly, make_control, make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("ada", role="operator"))
    return client


def text_of(client: Client, run: TrainingRun) -> str:
    """The page as words, without its tags."""
    page = client.get(f"/runs/{run.pk}").content.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace(" .", ".")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (RunState.QUEUED, "Waiting for a free train worker."),
        (RunState.RUNNING, "Healthy: epoch 6 of 40 measured, its worker answers."),
        (RunState.PAUSED, "Paused after epoch 6 of 40"),
        (RunState.RECOVERING, "Lost its worker after epoch 6 of 40"),
        (RunState.FAILED, "Failed at epoch 6 of 40: out of memory."),
        (RunState.CANCELLED, "Stopped after epoch 6 of 40."),
    ],
)
def test_the_first_sentence_says_how_the_run_is(client: Client, state: RunState, says: str) -> None:
    run = make_run(
        state=state, done=0 if state == RunState.QUEUED else 6, failure="out of memory" * (state == "FAILED")
    )

    assert says in text_of(client, run)


def test_a_completed_run_says_how_long_it_took(client: Client) -> None:
    assert "Completed all 40 epochs in 1 min." in text_of(client, make_run())


def test_a_run_whose_worker_is_silent_is_not_called_healthy(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=6)
    RunLease.objects.filter(run=run).update(expires_at=timezone.now() - timedelta(seconds=1))

    text = text_of(client, run)

    assert "no sign of life" in text
    assert "Healthy" not in text


def test_a_run_that_waits_for_its_kernels_says_so(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=0)

    assert "Waiting for its kernels" in text_of(client, run)


def test_decisions_read_as_sentences_with_what_was_refused(client: Client) -> None:
    text = text_of(client, make_run(state=RunState.RUNNING, done=9))

    assert "epoch 8 germinated widen_linear@layers.0.width. The training loss improved 3.1 %" in text
    assert "Refused residual_mlp@layers.0.residual : Widening comes first" in text
    assert "look back steps 150" in text


def test_holds_in_a_row_are_one_sentence(client: Client) -> None:
    text = text_of(client, make_run(state=RunState.RUNNING, done=7))

    assert text.count("held") == 1
    assert "epochs 1–7 held. Growth begins after 10 % of the planned steps." in text


def test_decisions_beyond_the_page_are_counted_and_left_to_the_file(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=1, stories=())
    Decision.objects.bulk_create(
        Decision(run=run, sequence=100 + n, epoch=n, step=n, action="ADVANCE", rule="g1", reason="next")
        for n in range(305)
    )

    assert "6 older decisions are in the CSV file" in text_of(client, run)


def test_each_seed_has_an_account_of_rent_and_gain(client: Client) -> None:
    text = text_of(client, make_run())

    assert "Gain 0.0412 nats, interval 0.0253 to 0.0581; rent 0.0015" in text.replace("\xa0", " ")
    assert "Its 4 moves through the life cycle" in text
    assert "max output difference 2.4e−07" in text


def test_a_culled_seed_stays_culled_when_its_slot_rests_or_is_free_again(client: Client) -> None:
    page = client.get(f"/runs/{make_run().pk}").content.decode()

    fates = re.findall(r'class="fate"><span class="state tone-([a-z]+)"', page)
    assert fates == ["fossilized", "culled", "fossilized"]


def test_a_seed_that_ended_without_a_measured_gain_says_why_it_ended(client: Client) -> None:
    run = make_run(stories=(replace(STORIES[1], outcome={}),))

    text = text_of(client, run)

    assert "culled epochs 12–24" in text
    assert "It has not earned its rent within 6 epochs of evaluation." in text
    assert "The timer ran out." not in text


@pytest.mark.parametrize(("static", "says"), [(-0.02, "2.0 pp above"), (0.02, "2.0 pp below"), (0.0, "as accurate as")])
def test_the_static_control_stands_beside_the_result_whichever_way_it_went(
    client: Client, static: float, says: str
) -> None:
    run = make_run()
    make_control(run, accuracy=static)

    assert f"On the test set this run is {says} the static net of the same final size" in text_of(client, run)


def test_a_result_without_its_control_claims_nothing(client: Client) -> None:
    run = make_run()
    make_control(run, done=10)

    assert "Until it is done, nothing here says whether growing was worth it" in text_of(client, run)


def test_a_control_leads_back_to_its_run(client: Client) -> None:
    run = make_run(name="grown")

    page = client.get(f"/runs/{make_control(run).pk}").content.decode()

    assert f'static control of <a href="/runs/{run.pk}">grown</a>' in page


def test_an_external_run_with_settings_of_its_own_has_a_page(client: Client) -> None:
    run = TrainingRun.objects.create(
        name="theirs",
        kind=RunKind.EXTERNAL,
        task="cifar",
        host="resnet",
        seed=1,
        epochs=3,
        settings={"lr": [1, {"a": None}]},
    )

    assert "Waiting for its client." in text_of(client, run)


def test_the_number_of_queries_does_not_grow_with_seeds_and_epochs(client: Client) -> None:
    small = make_run(name="small", epochs=12, stories=STORIES[:1])
    large = make_run(name="large")
    make_control(large)
    make_control(small)
    client.get(f"/runs/{small.pk}")

    with CaptureQueriesContext(connection) as few:
        client.get(f"/runs/{small.pk}")
    with CaptureQueriesContext(connection) as many:
        client.get(f"/runs/{large.pk}")

    assert len(many) == len(few) <= 26


def test_a_run_that_does_not_exist_is_a_page_that_says_so(client: Client) -> None:
    for path in (f"/runs/{uuid4()}", "/runs/not-an-id"):
        response = client.get(path)
        assert response.status_code == 404
        assert "There is nothing at this address" in response.content.decode()


def test_stopping_shows_first_what_will_happen_and_what_will_not(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=17)

    page = client.get(f"/runs/{run.pk}/stop").content.decode()

    assert "A stopped run cannot be resumed" in page
    assert "the newest after epoch 16" in page
    assert page.count("without a verdict") == 2
    run.refresh_from_db()
    assert run.command == "CONTINUE"


def test_stopping_keeps_the_reason_and_leads_back(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=17)

    response = client.post(f"/runs/{run.pk}/stop", {"reason": "seen enough"})

    run.refresh_from_db()
    assert (response.status_code, response["Location"], run.command) == (302, f"/runs/{run.pk}", "STOP")
    text = text_of(client, run)
    assert "ada asked to stop" in text
    assert "seen enough" in text
    assert "Stopping at the next step boundary." in text


def test_pausing_answers_a_script_with_the_panels_as_they_are_now(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=17)

    response = client.post(f"/runs/{run.pk}/pause", headers={"HX-Request": "true"})

    page = response.content.decode()
    assert response.status_code == 200
    assert 'id="run-head"' in page
    assert "Pausing at the next step boundary." in page
    assert "<html" not in page


@pytest.mark.parametrize("command", ["pause", "resume", "stop"])
def test_a_command_that_makes_no_sense_now_is_refused_with_its_reason(client: Client, command: str) -> None:
    run = make_run()

    response = client.post(f"/runs/{run.pk}/{command}")

    assert response.status_code == 409
    assert "Not done:" in response.content.decode()


def test_a_completed_run_offers_itself_again_and_nothing_else(client: Client) -> None:
    page = client.get(f"/runs/{make_run(seed=3).pk}").content.decode()

    assert "task=digits&amp;host=mlp&amp;epochs=40&amp;seed=3" in page
    assert "run-stop" not in page


def test_names_and_reasons_cannot_carry_markup(client: Client) -> None:
    run = make_run(name="<script>alert(1)</script>", state=RunState.FAILED, done=2, failure="<img src=x onerror=1>")

    for path in (f"/runs/{run.pk}", "/runs", "/search?q=<script>alert(1)</script>"):
        page = client.get(path).content.decode()
        assert "<script>alert" not in page
        assert "<img" not in page


def test_a_run_about_which_an_alert_fires_is_not_called_healthy(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=6, stories=())
    make_alert(run, epoch=3)

    page = text_of(client, run)

    assert "1 alert is firing: loss spike. Epoch 6 of 40 measured, its worker answers." in page
    assert "Healthy" not in page


def test_a_critical_alert_makes_the_run_bad(client: Client) -> None:
    run = make_run(epochs=2, stories=())
    make_alert(run)
    Alert.objects.update(severity=Severity.CRITICAL)

    assert 'class="health tone-bad"' in client.get(f"/runs/{run.pk}").content.decode()


def test_alerts_that_are_over_do_not_touch_the_health(client: Client) -> None:
    run = make_run(epochs=2, stories=())
    make_alert(run, AlertState.RESOLVED)

    page = text_of(client, run)

    assert "alert is firing" not in page
    assert "On the way there: 1 alert." in page
    assert "resolved" in page


def test_the_first_screen_says_what_is_odd_and_why(client: Client) -> None:
    run = make_run(epochs=3, stories=())
    alert = make_alert(run, epoch=2)
    make_anomaly(run, epoch=1)

    page = client.get(f"/runs/{run.pk}").content.decode()

    assert f'href="/alerts/{alert.pk}"' in page
    assert "0.94 lies above everything of the last 300 values" in page
    assert f'href="/alerts/anomalies?run={run.pk}"' in page


def test_a_run_leads_to_its_curves_beside_those_of_its_control(client: Client) -> None:
    run = make_run(epochs=4, stories=())
    control = make_control(run)

    page = client.get(f"/runs/{run.pk}").content.decode()

    assert f"/runs/compare?run={run.pk}&amp;run={control.pk}" in page
