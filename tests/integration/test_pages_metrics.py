"""Charts of stored metrics as a script polls them, as tables, as files; and the page of the fleet."""

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.dashboards.selectors import fleet
from apps.observability.catalogue import METRICS
from apps.observability.contracts import Reading
from apps.observability.models import Series
from apps.observability.store import writing
from tests.integration.test_pages_alerts import client
from tests.support.alert_rows import measured, odd, rising, stepping, watched_platform
from tests.support.pages import page_of, words_of

__all__ = ["client"]
pytestmark = pytest.mark.django_db

CPU = "/charts/metrics.json?name=esper_host_cpu_ratio&range=1h"


def cpu(host: str = "mill", **values: Any) -> Series:
    labels = {"host": host}
    return measured("esper_host_cpu_ratio", rising(0.2, 0.8, over=1.0), labels=labels, unit="ratio", **values)


def curves_of(client: Client, path: str) -> list[dict[str, Any]]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.content
    found: list[dict[str, Any]] = json.loads(answer.content)["curves"]
    return found


# --- What is polled


def test_curves_have_their_values_their_unit_and_a_name_that_tells_them_apart(client: Client) -> None:
    cpu("mill")
    cpu("barn")

    found = curves_of(client, CPU)

    assert [(curve["label"], curve["unit"]) for curve in found] == [("mill", "ratio"), ("barn", "ratio")]
    assert found[0]["mean"][-1] == 0.8
    assert len(found[0]["times"]) == len(found[0]["mean"]) == 60


def test_a_label_and_a_number_choose_series(client: Client) -> None:
    cpu("mill")
    barn = cpu("barn")

    for query in ('label=host="barn"', "label=host=~b.*", 'label=host!="mill"'):
        assert [curve["id"] for curve in curves_of(client, f"{CPU}&{query}")] == [barn.pk]
    assert [curve["id"] for curve in curves_of(client, f"/charts/metrics.json?series={barn.pk}")] == [barn.pk]


def test_a_poll_that_brings_nothing_new_has_no_body(client: Client) -> None:
    series = cpu()
    etag = client.get(CPU)["ETag"]

    same = client.get(CPU, headers={"If-None-Match": etag})
    at = timezone.now() + timedelta(seconds=1)
    writing.record([Reading(name=series.name, labels=series.labels, value=0.5, at=at)], source="platform")
    other = client.get(CPU, headers={"If-None-Match": etag})

    assert (same.status_code, same.content) == (304, b"")
    assert other.status_code == 200
    assert other["ETag"] != etag


def test_what_is_no_finite_number_is_null(client: Client) -> None:
    measured("esper_run_train_loss", lambda hours: float("nan") if hours < 0.5 else 1.0)

    (curve,) = curves_of(client, "/charts/metrics.json?name=esper_run_train_loss")

    assert curve["mean"][0] == 1.0
    assert curve["mean"][-1] is None


def test_anomalies_come_with_the_curve(client: Client) -> None:
    series = cpu()
    odd(series, ago=timedelta(minutes=10), value=0.7, low=0.1, high=0.3)

    (curve,) = curves_of(client, CPU)

    assert len(curve["anomalies"]) == 1


def test_more_series_than_one_can_tell_apart_are_left_out_and_counted(client: Client) -> None:
    for place in range(10):
        measured("mine", stepping(0, 1, at=0.5), labels={"part": f"{place}"}, every=600)

    found = json.loads(client.get("/charts/metrics.json?name=mine").content)

    assert (len(found["curves"]), found["left_out"]) == (8, 2)


def test_a_metric_that_nobody_measured_is_an_empty_chart(client: Client) -> None:
    found = json.loads(client.get("/charts/metrics.json?name=esper_nothing").content)

    assert (found["curves"], found["last_at"]) == ([], None)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "name one metric"),
        ("name=a&series=1", "name one metric"),
        ("name=a%00b", "is not a metric's name"),
        ("series=x", "whole numbers"),
        ("series=-1", "whole numbers"),
        ("series=" + "9" * 30, "whole numbers"),
        ("name=a&range=century", "range is one of 1h, 24h, 7d, 30d"),
        ("name=a&label=host", "label is written"),
        ("name=a&start=yesterday", "start is a time with its zone"),
        ("name=a&start=2026-05-01T12:00:00", "start is a time with its zone"),
        ("name=a&start=2026-99-01T12:00:00Z", "start is a time with its zone"),
        ("name=a&start=0001-01-01T00:00:00%2B14:00&end=0001-01-01T00:00:00%2B14:00", "start is a time with its zone"),
        ("series=1&start=1970-01-01T00:00:00Z", "more than"),
        ("series=1&start=8999-01-01T00:00:00Z", "is before the start"),
    ],
)
def test_a_question_that_is_wrong_is_answered_with_what_is_wrong(client: Client, query: str, says: str) -> None:
    if query.startswith("series=1&"):
        query = query.replace("series=1", f"series={cpu().pk}")

    answers = [client.get(f"/charts/metrics{ending}?{query}") for ending in (".json", "", ".csv")]

    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert all(says in answer.content.decode().replace("&#x27;", "'") for answer in answers)


# --- Tables and files


def test_the_table_has_the_points_of_the_chart_the_newest_first(client: Client) -> None:
    cpu()

    page = client.get("/charts/metrics?name=esper_host_cpu_ratio&title=Processors", headers={"HX-Request": "true"})

    table = page.content.decode()
    assert "Processors" in table
    assert table.index("80.0\xa0%") < table.index("79.0\xa0%")
    assert table.count("<tr>") == 61


def test_the_file_has_the_points_in_the_order_of_time(client: Client) -> None:
    cpu(host="=mill")

    rows = list(
        csv.DictReader(io.StringIO(client.get("/charts/metrics.csv?name=esper_host_cpu_ratio").content.decode()))
    )

    assert len(rows) == 60
    assert rows[0]["time"] < rows[-1]["time"]
    assert (rows[-1]["labels"], rows[-1]["mean"]) == ('host="=mill"', "0.8")


# --- The fleet


def test_the_fleet_shows_the_worst_of_each_with_its_age(client: Client) -> None:
    watched_platform(hours=1.0, every=60)

    page = words_of(page_of(client, "/fleet"))

    assert "Disk used 93." in page
    assert "checkpoints, the highest of 2" in page
    assert "newest signal" in page


def test_hosts_and_queues_say_how_they_are(client: Client) -> None:
    watched_platform(hours=1.0, every=60)

    page = words_of(page_of(client, "/fleet"))

    assert "gpu-1 answers" in page
    assert "compile no worker 4" in page
    assert "1 of 4 parts does not answer: workers" in page
    assert "3 queues without a worker: default, train, compile" in page


def test_what_is_old_is_said_to_be(client: Client) -> None:
    at = timezone.now() - timedelta(minutes=12)
    reading = Reading(name="esper_host_cpu_ratio", labels={"host": "mill"}, value=0.5, at=at, unit="ratio")
    writing.record([reading], source="platform")

    page = words_of(page_of(client, "/fleet"))

    assert "stale newest signal" in page
    assert "mill silent" in page
    assert "1 host silent" in page


def test_what_runs_short_comes_with_its_evidence(client: Client) -> None:
    watched_platform(hours=1.0, every=60)

    page = words_of(page_of(client, "/fleet"))

    assert "critical 1 of the 1 messages of route night shift do not arrive" in page
    assert "Where to do it" in page
    assert "Evidence" in page


def test_the_charts_are_of_the_range_that_the_address_names(client: Client) -> None:
    page = page_of(client, "/fleet?range=7d")

    assert "name=esper_host_cpu_ratio&amp;range=7d" in page
    assert "range=1h&amp;title" in page_of(client, "/fleet?range=century")


def test_the_first_lines_are_fetched_again_alone(client: Client) -> None:
    cpu()

    part = client.get("/fleet", headers={"HX-Request": "true"}).content.decode()

    assert part.startswith('<div id="now"')
    assert "Processors busy 80.0 %" in words_of(part)


def test_charts_of_gpus_are_there_where_a_host_has_one(client: Client) -> None:
    without = page_of(client, "/fleet")
    measured("esper_gpu_utilisation_ratio", rising(0.1, 0.9, over=1.0), labels={"host": "mill", "gpu": "0"}, every=600)

    assert "GPUs busy" not in without
    assert "GPUs busy" in page_of(client, "/fleet")


def test_the_fleet_is_shown_while_the_broker_is_silent(client: Client, settings: Any) -> None:
    cpu()
    throttle = {**settings.CACHES["throttle"], "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {**settings.CACHES, "throttle": throttle}

    page = words_of(page_of(client, "/fleet"))

    assert "broker silent" in page
    assert "compile unknown" in page
    assert "mill answers" in page


def test_what_the_fleet_reads_is_measured() -> None:
    charted = [metric for _, metric in (*fleet.CHARTS, *fleet.GPU_CHARTS)]

    assert {name for name in (*fleet.READ, *charted) if name not in METRICS} == set()
    assert {metric for _, metric, _ in fleet.FIGURES} <= set(fleet.READ)


def test_an_empty_fleet_says_what_fills_it(client: Client) -> None:
    page = words_of(page_of(client, "/fleet"))

    assert "No host has told of itself yet" in page
    assert "Bring back what does not answer" in page
    assert "no sample yet" in page


def test_more_hosts_take_no_more_queries(client: Client) -> None:
    def counted() -> int:
        with CaptureQueriesContext(connection) as queries:
            page_of(client, "/fleet")
        return len(queries)

    cpu("host-0", every=600)
    counted()
    few = counted()
    for place in range(1, 8):
        cpu(f"host-{place}", every=600)

    assert counted() == few
