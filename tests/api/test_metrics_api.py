"""Metrics over the API: samples come in whole batches, and come out as newest values, lists and curves."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.observability.models import Sample, Series
from apps.observability.store import writing
from tests.api.conftest import Caller
from tests.support.metrics import samples

pytestmark = pytest.mark.django_db

METRICS = "/api/v1/metrics"
AT = timezone.now().replace(microsecond=0) - timedelta(minutes=5)


def sample(**changes: Any) -> dict[str, Any]:
    return {"name": "my_loss", "value": 0.5, "at": AT.isoformat(), "labels": {"run": "r1"}, **changes}


def send(client: Caller, *batch: Any) -> Any:
    return client.post(f"{METRICS}/samples", {"samples": list(batch)}, format="json")


def test_a_batch_is_kept_and_sent_again_it_is_known(admin: Caller) -> None:
    batch = [sample(), sample(value="NaN", labels={}), sample(name="mine:rate", value=3, kind="counter", unit="s")]

    assert send(admin, *batch).json() == {"stored": 3, "known": 0}
    assert send(admin, *batch).json() == {"stored": 0, "known": 3}
    assert set(Series.objects.values_list("name", "kind", "source")) == {
        ("my_loss", "gauge", "client"),
        ("mine:rate", "counter", "client"),
    }


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"name": "esper_loss"}, "/name"),
        ({"name": "1st"}, "/name"),
        ({"name": 7}, "/name"),
        ({"value": "high"}, "/value"),
        ({"value": True}, "/value"),
        ({"value": None}, "/value"),
        ({"value": 10**400}, "/value"),
        ({"at": "yesterday"}, "/at"),
        ({"at": "2026-02-30T00:00:00Z"}, "/at"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "/at"),
        ({"at": "9999-12-31T23:59:59-12:00"}, "/at"),
        ({"at": 1764230400}, "/at"),
        ({"labels": []}, "/labels"),
        ({"labels": {"a-b": "c"}}, "/labels"),
        ({"labels": {"a": 1}}, "/labels/a"),
        ({"labels": {"a": []}}, "/labels/a"),
        ({"labels": None}, "/labels"),
        ({"name": []}, "/name"),
        ({"labels": {"a": "x" * 201}}, "/labels/a"),
        ({"labels": {f"l{n}": "" for n in range(17)}}, "/labels"),
        ({"kind": "histogram"}, "/kind"),
        ({"kind": []}, "/kind"),
        ({"unit": "u" * 25}, "/unit"),
        ({"colour": "red"}, ""),
    ],
)
def test_a_wrong_sample_is_named_and_nothing_is_kept(admin: Caller, wrong: dict[str, Any], place: str) -> None:
    answer = send(admin, sample(), sample(**wrong))

    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"/samples/1{place}"]
    assert not Sample.objects.exists()
    assert not Series.objects.exists()


@pytest.mark.parametrize("body", [{}, [], {"samples": {}}, {"samples": []}, {"samples": [1]}, {"samples": [{}] * 5001}])
def test_what_is_no_batch_is_refused(admin: Caller, body: Any) -> None:
    answer = admin.post(f"{METRICS}/samples", body, format="json")

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"].startswith("/samples")


def test_too_many_series_are_refused_with_what_to_do(admin: Caller, settings: Any) -> None:
    settings.METRICS_MAX_SERIES = 2

    answer = send(admin, *[sample(labels={"request": str(n)}) for n in range(3)])

    assert answer.status_code == 400
    assert answer.json()["code"] == "too_many_series"
    assert "leave out labels" in answer.json()["detail"]


def test_the_newest_values(admin: Caller) -> None:
    send(admin, sample(), sample(at=(AT + timedelta(seconds=15)).isoformat(), value="+Inf"))
    send(admin, sample(labels={"run": "r2"}, value=7))

    answer = admin.get(f"{METRICS}/current", {"name": "my_loss", "label": 'run=~"r1|r2"'}).json()

    assert [(row["series"]["labels"]["run"], row["value"]) for row in answer["results"]] == [("r1", None), ("r2", 7.0)]
    assert answer["has_more"] is False
    assert admin.get(f"{METRICS}/current", {"limit": 1}).json()["has_more"] is True


def test_a_curve_has_null_where_there_is_no_number(admin: Caller) -> None:
    send(admin, *[sample(value=v, at=(AT + timedelta(seconds=n)).isoformat()) for n, v in enumerate([1, "NaN", 3])])

    asked = {"name": "my_loss", "label": "run=r1", "start": AT.isoformat()}
    answer = admin.get(f"{METRICS}/query", asked)

    [curve] = answer.json()["results"]
    assert (curve["step"], curve["mean"]) == (0, [1.0, None, 3.0])
    assert curve["times"] == [AT.timestamp(), AT.timestamp() + 1, AT.timestamp() + 2]
    assert admin.get(f"{METRICS}/query", asked, headers={"If-None-Match": answer["ETag"]}).status_code == 304


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({}, "/name"),
        ({"name": "a", "step": "fast"}, "/step"),
        ({"name": "a", "step": -1}, "/step"),
        ({"name": "a", "points": 0}, "/points"),
        ({"name": "a", "start": "monday"}, "/start"),
        ({"name": "a", "start": "0001-01-01T00:00:00Z", "end": "0001-01-02T00:00:00Z"}, "/start"),
        ({"name": "a", "end": "9999-12-31T23:59:59Z"}, "/end"),
        ({"name": "a", "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "/end"),
        ({"name": "a", "start": "2020-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "/start"),
        ({"name": "a", "label": "run"}, "/label"),
        ({"name": "a", "label": 'run=~"("'}, "/label"),
        ({"name": "a", "colour": "red"}, "/colour"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(admin: Caller, asked: dict[str, Any], place: str) -> None:
    answer = admin.get(f"{METRICS}/query", asked)

    assert answer.status_code == 400
    assert [error["pointer"] for error in answer.json()["errors"]] == [place]


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ({"step": 1}, "/step"),
        ({"step": 300, "start": AT - timedelta(days=100)}, "/step"),
        ({"step": 0, "start": AT - timedelta(days=40)}, "/step"),
    ],
)
def test_a_step_that_is_too_short_for_the_range_is_refused(admin: Caller, asked: dict[str, Any], place: str) -> None:
    send(admin, sample())
    since = {"start": AT - timedelta(days=1), **asked}["start"]

    answer = admin.get(f"{METRICS}/query", {"name": "my_loss", **asked, "start": since.isoformat()})

    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == place


def test_more_than_fifty_curves_at_once_are_refused(admin: Caller) -> None:
    writing.record([one for n in range(51) for one in samples([1.0], labels={"n": str(n)})], source="platform")

    answer = admin.get(f"{METRICS}/query", {"name": "queue_length"})

    assert answer.json()["code"] == "too_many"


def test_series_are_listed_by_name_kind_and_label(admin: Caller) -> None:
    send(admin, sample(), sample(labels={"run": "r2"}), sample(name="other", labels={}, kind="counter"))

    def names(**asked: Any) -> list[Any]:
        return [row["labels"].get("run") for row in admin.get(f"{METRICS}/series", asked).json()["results"]]

    assert names(name="my_loss", sort="id") == ["r1", "r2"]
    assert names(label="run=r2") == ["r2"]
    assert names(label="run!=r2", sort="id") == ["r1", None]
    assert names(kind="counter") == [None]
    assert admin.get(f"{METRICS}/series", {"label": "run=~r"}).status_code == 400


def test_a_reader_may_not_send_samples(caller: Any) -> None:
    assert send(caller("viewer"), sample()).status_code == 403
