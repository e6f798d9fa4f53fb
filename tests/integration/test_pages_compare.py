"""Runs laid over each other: which ones, over which axis, in what they differ, and what each came to."""

import csv
import io
import re
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from apps.dashboards.selectors import compare_curves
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, TrainingRun
from tests.support.run_rows import STEPS, make_control, make_run, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(make_user("ada", role="viewer"))
    return client


def address(*runs: TrainingRun, kind: str = "", more: str = "") -> str:
    return f"/runs/compare{kind}?" + "&".join(f"run={run.pk}" for run in runs) + more


def text_of(client: Client, path: str, status: int = 200) -> str:
    """The page as words, without its tags."""
    response = client.get(path)
    assert response.status_code == status
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode())).replace("\xa0", " ")


def lines_of(client: Client, path: str) -> list[dict[str, Any]]:
    return client.get(path).json()["lines"]


def test_two_runs_stand_beside_each_other_in_the_order_of_the_address(client: Client) -> None:
    one, two = make_run(name="first"), make_run(name="second", seed=1)

    page = client.get(address(two, one)).content.decode()

    assert re.findall(r'class="title">.*?<a href="/runs/[^"]+">([^<]+)</a>', page, re.S) == ["second", "first"]


def test_only_settings_that_differ_are_shown(client: Client) -> None:
    one, two = make_run(), make_run(seed=7, epochs=20, done=20, stories=())

    page = client.get(address(one, two)).content.decode()

    shown = re.findall(r'<th scope="row">([^<]+)</th>', page)
    assert shown == ["seed", "epochs"]


def test_settings_within_lists_are_told_one_by_one(client: Client) -> None:
    one, two = make_run(), make_run()
    branches = [{"operator": "widen_linear", "site": "layers.0"}, {"operator": "residual_mlp", "site": "layers.1"}]
    TrainingRun.objects.filter(pk=two.pk).update(settings=two.settings | {"topology": {"branches": branches}})

    page = text_of(client, address(one, two))

    assert "topology › branches › 2 › operator — residual_mlp" in page
    assert "{" not in page.split("Where their settings differ")[1].split("What each came to")[0]


def test_runs_that_were_set_up_alike_say_so(client: Client) -> None:
    assert "In none: they do the same" in text_of(client, address(make_run(), make_run()))


def test_a_grown_run_stands_beside_its_static_control(client: Client) -> None:
    grown, other = make_run(name="grown"), make_run(name="other", seed=1)
    make_control(grown, accuracy=-0.01)

    lines = lines_of(client, address(grown, other, kind=".json"))

    assert [(line["number"], line["is_control"]) for line in lines] == [(1, False), (2, False), (1, True)]
    assert "One pair of grown and static net: +1.0 pp on the test set. A single pair has no interval." in text_of(
        client, address(grown, other)
    )


def test_several_pairs_have_a_gain_with_its_interval(client: Client) -> None:
    runs = [make_run(name=f"grown-{seed}", seed=seed) for seed in range(3)]
    for run, accuracy in zip(runs, (-0.01, -0.012, -0.011), strict=True):
        make_control(run, accuracy=accuracy)

    assert "Over 3 pairs of grown and static net: +1.1 pp on the test set, 95 % interval +0.9 to +1.3: grown is" in (
        text_of(client, address(*runs))
    )


def test_pairs_that_do_not_agree_are_not_called_better(client: Client) -> None:
    runs = [make_run(name=f"grown-{seed}", seed=seed) for seed in range(2)]
    for run, accuracy in zip(runs, (-0.01, 0.01), strict=True):
        make_control(run, accuracy=accuracy)

    assert "they do not tell the two apart" in text_of(client, address(*runs))


def test_runs_without_controls_do_not_say_whether_growing_was_worth_it(client: Client) -> None:
    page = text_of(client, address(make_run(), make_run(seed=1)))

    assert "nothing here says whether growing was worth it" in page


def test_the_most_accurate_and_the_smallest_are_named(client: Client) -> None:
    runs = [make_run(name="large", epochs=20), make_run(name="small", epochs=20, stories=())]
    alike = [make_run(name=f"alike-{number}", epochs=2, stories=()) for number in range(2)]

    assert "Most accurate on the test set: " in text_of(client, address(*runs))
    assert "Smallest: small, 4,298 parameters." in text_of(client, address(*runs))
    assert "All have 4,298 parameters." in text_of(client, address(*alike))


def test_accuracies_of_different_tasks_are_not_ranked(client: Client) -> None:
    page = text_of(client, address(make_run(), make_run(task="spirals")))

    assert "They train on different tasks" in page
    assert "Most accurate" not in page


@pytest.mark.parametrize(
    ("axis", "first"), [("epoch", 1), ("step", STEPS), ("time", 2 / 60), ("flops", 6 * 4298 * STEPS * 32 / 1e9)]
)
def test_curves_can_be_laid_over_each_measure_of_progress(client: Client, axis: str, first: float) -> None:
    path = address(make_run(), make_run(seed=1), kind=".json", more=f"&x={axis}")

    assert [line["x"][0] for line in lines_of(client, path)] == pytest.approx([first, first], rel=1e-3)


def test_epochs_that_are_missing_are_a_gap(client: Client) -> None:
    path = address(make_run(), make_run(gap=range(5, 8)), kind=".json")

    line = lines_of(client, path)[1]

    assert line["x"][3:6] == [4, 6, 8]
    assert line["validation_loss"][4] is None


def test_long_runs_are_thinned_to_means(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_curves, "POINTS", 10)
    run = make_run()
    path = address(run, make_run(epochs=5, stories=(), seed=1), kind=".json")

    long, short = lines_of(client, path)

    assert (long["stride"], len(long["x"]), short["stride"], len(short["x"])) == (4, 10, 1, 5)
    losses = EpochMetric.objects.filter(run=run, epoch__lte=4).values_list("validation_loss", flat=True)
    assert long["validation_loss"][0] == pytest.approx(sum(losses) / 4)


def test_the_same_curves_are_sent_once(client: Client) -> None:
    run = make_run(state=RunState.RUNNING, done=5)
    path = address(run, make_run(), kind=".json")
    etag = client.get(path)["ETag"]
    unchanged = client.get(path, headers={"If-None-Match": etag})

    EpochMetric.objects.create(run=run, epoch=6, step=240, parameters=1, train_flops=1)

    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 200


def test_runs_that_have_ended_are_not_asked_for_again(client: Client) -> None:
    assert client.get(address(make_run(), make_run(), kind=".json")).json()["poll_after"] is None


def test_a_table_has_a_column_for_each_line(client: Client) -> None:
    grown, other = make_run(name="grown"), make_run(name="other", epochs=20, done=20, stories=())
    make_control(grown)

    page = client.get(address(grown, other, kind="/accuracy")).content.decode()

    assert page.count("<tr>") == 41
    assert [name.strip() for name in re.findall(r'<th class="right">([^<]+)', page)] == [
        "Epoch", "grown, %", "other, %", "grown (static), %"
    ]  # fmt: skip
    assert '<td class="right">40</td>' in page
    assert "—" in page


def test_the_file_has_every_measurement_of_every_line(client: Client) -> None:
    one, two = make_run(name="=cmd"), make_run(name="other", epochs=20, done=20, stories=())

    response = client.get(address(one, two, kind=".csv"))

    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))  # type: ignore[attr-defined]
    assert len(rows) == 60
    assert (rows[0]["run"], rows[0]["name"], rows[0]["seconds"]) == (str(one.pk), "'=cmd", "2.0")


def test_nothing_chosen_leads_to_the_choice(client: Client) -> None:
    make_run(name="there-is-one")

    page = text_of(client, "/runs/compare")

    assert "No runs chosen" in page
    assert "there-is-one" in page


def test_one_run_alone_asks_for_another(client: Client) -> None:
    one, other = make_run(name="alone"), make_run(name="another")

    page = client.get(address(one)).content.decode()

    assert "One run alone" in page
    assert f'<option value="{other.pk}">' in page
    assert f'<option value="{one.pk}">' not in page


def test_runs_that_are_not_there_are_named_and_left_out(client: Client) -> None:
    missing = uuid4()

    page = text_of(client, address(make_run(), make_run(), more=f"&run={missing}&run=banana"))

    assert f"No run has the id {missing} : it is left out." in page
    assert "“banana” is no id of a run: it is left out." in page
    assert "2 runs compared" in page


def test_a_comparison_of_nothing_that_is_there_is_not_found(client: Client) -> None:
    assert "No run has the id" in text_of(client, f"/runs/compare?run={uuid4()}&run={uuid4()}", status=404)


def test_more_than_eight_runs_are_cut_to_eight(client: Client) -> None:
    runs = [make_run(name=f"run-{number}", epochs=2, done=2, stories=()) for number in range(9)]

    page = text_of(client, address(*runs))

    assert "8 runs compared" in page
    assert "the last 1 of those that you chose is left out" in page


def test_runs_that_have_measured_nothing_can_be_compared(client: Client) -> None:
    runs = make_run(name="one", state=RunState.QUEUED), make_run(name="two", state=RunState.QUEUED)

    assert "Fewer than two of them have measured anything yet" in text_of(client, address(*runs))
    assert [line["x"] for line in lines_of(client, address(*runs, kind=".json"))] == [[], []]


@pytest.mark.parametrize("more", ["&x=banana", "&controls=maybe", "&run=%00", "&run=" + "x" * 4000, "&before=-1&x=%FF"])
@pytest.mark.parametrize("kind", ["", ".json", ".csv", "/loss"])
def test_a_silly_query_string_is_no_error(client: Client, kind: str, more: str) -> None:
    run, other = (make_run(epochs=1, done=1, stories=()) for _ in range(2))

    assert client.get(address(run, other, kind=kind, more=more)).status_code == 200


def test_there_is_no_table_of_what_is_not_measured(client: Client) -> None:
    assert client.get(address(make_run(), make_run(), kind="/banana")).status_code == 404


@pytest.mark.parametrize("kind", ["", ".json", "/loss"])
def test_the_number_of_queries_does_not_grow_with_the_runs(client: Client, kind: str) -> None:
    runs = [make_run(name=f"run-{number}", epochs=2, done=2, stories=()) for number in range(6)]
    for run in runs:
        make_control(run)

    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get(path)
        return len(captured)

    assert queries(address(*runs[:2], kind=kind)) == queries(address(*runs, kind=kind)) <= 12
