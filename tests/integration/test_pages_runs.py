"""The list of runs, and the form that starts one."""

import re
from collections.abc import Callable
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.observability.lifecycle import AlertState
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.support.run_rows import make_alert, make_control, make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("ada", role="operator"))
    return client


def names_on(page: str) -> list[str]:
    return re.findall(r'class="title"><a href="/runs/[^"]+">([^<]+)</a>', page)


def queries_of(action: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        action()
    return len(captured)


def test_an_empty_list_teaches_how_to_start(client: Client) -> None:
    page = client.get("/runs").content.decode()

    assert "make grow" in page
    assert "start-run" in page


def test_a_row_shows_what_the_run_is_doing_and_what_it_grew(client: Client) -> None:
    run = make_run(name="digits-one")
    make_control(run)

    page = client.get("/runs").content.decode()

    assert names_on(page) == ["digits-one"]
    assert "+5,504 since the start" in page
    assert page.count("fossilised") >= 2
    assert "culled" in page
    assert "static 9" in page


def test_a_run_without_measurements_shows_dashes_instead_of_zeros(client: Client) -> None:
    make_run(state=RunState.QUEUED)

    page = client.get("/runs").content.decode()

    assert page.count("—") >= 2
    assert not re.search(r">\s*0\.0", page)  # at the beginning of what a cell says: a time may have it inside


def test_the_number_of_queries_does_not_grow_with_the_runs(client: Client) -> None:
    make_run(done=2, epochs=2)
    client.get("/runs")
    with_one = queries_of(lambda: client.get("/runs"))
    for number in range(6):
        make_run(name=f"more-{number}", done=2, epochs=2)

    assert queries_of(lambda: client.get("/runs")) == with_one <= 12


def test_walking_the_pages_shows_every_run_once(client: Client) -> None:
    expected = [f"run-{number:02d}" for number in range(27)]
    for name in expected:
        make_run(name=name, state=RunState.QUEUED)

    seen, path = [], "/runs"
    while path:
        page = client.get(path).content.decode()
        seen += names_on(page)
        older = re.search(r'href="(\?[^"]+)">Older runs', page)
        path = f"/runs{older[1]}" if older else ""

    assert seen == expected[::-1]


def test_filters_are_in_the_address_and_can_be_combined(client: Client) -> None:
    make_run(name="wanted", task="spirals", state=RunState.QUEUED)
    make_run(name="other-task", state=RunState.QUEUED)
    make_run(name="other-state", task="spirals", state=RunState.PAUSED, done=1)

    page = client.get("/runs?state=QUEUED&task=spirals").content.decode()

    assert names_on(page) == ["wanted"]
    assert 'href="?task=spirals" aria-current="true">queued' in page.replace("&amp;", "&")


def test_controls_stand_beside_their_runs_until_they_are_asked_for(client: Client) -> None:
    make_control(make_run(name="grown", epochs=4, stories=()))

    assert names_on(client.get("/runs").content.decode()) == ["grown"]
    assert names_on(client.get("/runs?controls=1").content.decode()) == ["grown (static)", "grown"]


@pytest.mark.parametrize("order", ["accuracy", "parameters", "growth", "name"])
def test_every_order_shows_every_run_once(client: Client, order: str) -> None:
    for number in range(27):
        make_run(name=f"run-{number % 9}", state=RunState.QUEUED)
    make_run(name="small", epochs=2, done=2, stories=())

    first = client.get(f"/runs?order={order}").content.decode()
    rest = re.search(r'href="(\?[^"]+)">Older runs', first)
    assert rest is not None
    second = client.get("/runs" + rest[1].replace("&amp;", "&")).content.decode()

    ids = re.findall(r'name="run" value="([^"]+)"', first + second)
    assert len(ids) == len(set(ids)) == 28


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("newest", ["grown", "plain", "young"]),
        ("accuracy", ["plain", "grown", "young"]),
        ("parameters", ["plain", "grown", "young"]),
        ("growth", ["grown", "plain", "young"]),
        ("name", ["grown", "plain", "young"]),
    ],
)
def test_runs_come_in_the_order_that_is_asked_for(client: Client, order: str, names: list[str]) -> None:
    make_run(name="young", state=RunState.QUEUED)
    plain = make_run(name="plain", stories=())
    make_run(name="grown")
    TrainingRun.objects.filter(pk=plain.pk).update(result={**plain.result, "test_accuracy": 1.0})

    assert names_on(client.get(f"/runs?order={order}").content.decode()) == names


def test_alerts_that_fire_about_a_run_stand_at_its_state(client: Client) -> None:
    run = make_run()
    make_alert(run, AlertState.FIRING)
    make_alert(run, AlertState.RESOLVED)

    assert "1 alert firing" in client.get("/runs").content.decode()


@pytest.mark.parametrize(
    "query",
    [
        "state=BANANA",
        "order=banana",
        f"order=name&after={uuid4()}",
        "state=&task=&host=",
        "after=not-an-id",
        f"after={uuid4()}",
        "q=%00",
        "q=" + "x" * 5000,
        "q=%27%3B+DROP+TABLE",
        "q=%F0%9F%8C%B1",
        "mine=2&controls=maybe",
        "page=9&unknown=1",
    ],
)
def test_a_silly_query_string_is_no_error(client: Client, query: str) -> None:
    make_run(state=RunState.QUEUED)

    assert client.get(f"/runs?{query}").status_code == 200


def test_starting_a_run_leads_to_its_page(client: Client) -> None:
    response = client.post("/runs/new", {"task": "digits", "host": "mlp", "epochs": "5", "seed": "7", "name": "mine"})

    run = TrainingRun.objects.get()
    assert (response.status_code, response["Location"]) == (303, f"/runs/{run.pk}")
    assert (run.name, run.epochs, run.seed, run.wants_control) == ("mine", 5, 7, False)
    assert run.owner is not None
    assert run.owner.username == "ada"


def test_a_dialog_is_led_to_the_new_run_by_its_script(client: Client) -> None:
    response = client.post(
        "/runs/new", {"task": "spirals", "host": "mlp", "seed": "0", "control": "on"}, headers={"HX-Request": "true"}
    )

    run = TrainingRun.objects.get()
    assert response["HX-Redirect"] == f"/runs/{run.pk}"
    assert run.wants_control


@pytest.mark.parametrize(
    ("values", "field", "says"),
    [
        ({"host": "cnn", "task": "spirals"}, "host", "runs on: mlp"),
        ({"epochs": "0"}, "epochs", "greater than or equal to 1"),
        ({"epochs": "many"}, "epochs", "whole number"),
        ({"seed": "-1"}, "seed", "greater than or equal to 0"),
        ({"seed": str(2**31)}, "seed", "less than or equal"),
        ({"task": "chess"}, "task", "Select a valid choice"),
        ({"name": "x" * 121}, "name", "at most 120 characters"),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_nothing_is_started(
    client: Client, values: dict[str, str], field: str, says: str
) -> None:
    response = client.post("/runs/new", {"task": "digits", "host": "mlp", "epochs": "", "seed": "0"} | values)

    page = response.content.decode()
    error = re.search(rf'id="id_{field}_error">([^<]+)<', page)
    assert response.status_code == 422
    assert error is not None
    assert says in error[1].replace("&#x27;", "'")
    assert 'aria-invalid="true"' in page
    assert not TrainingRun.objects.exists()


def test_a_run_can_be_repeated_with_its_own_settings(client: Client) -> None:
    page = client.get("/runs/new?task=spirals&host=mlp&epochs=60&seed=5").content.decode()

    assert '<option value="spirals" selected>' in page
    assert 'value="60"' in page
    assert 'value="5"' in page
