"""Keyset pages: complete under inserts, bound to their filter, bounded in size."""

import random
from typing import Any
from urllib.parse import urlsplit

import pytest

from apps.training.models import EpochMetric
from tests.api.conftest import Caller
from tests.support.factories import BlueprintFactory, EpochMetricFactory, RunFactory
from tests.support.problems import assert_problem


def walk(client: Caller, path: str) -> list[dict[str, Any]]:
    """All rows of a list, following the Link header."""
    rows: list[dict[str, Any]] = []
    while path:
        response = client.get(path)
        body = response.json()
        rows += body["results"]
        path = next_link(response)
        assert bool(path) is body["has_more"] is (body["next_cursor"] is not None)
    return rows


def next_link(response: Any) -> str:
    return response["Link"].partition(">")[0].lstrip("<") if response.has_header("Link") else ""


@pytest.mark.parametrize("sort", ["-id", "id", "name", "-name"])
def test_each_row_of_the_first_page_on_is_returned_exactly_once_under_inserts(admin: Caller, sort: str) -> None:
    names = [f"row-{number:03d}" for number in range(23)]
    random.Random(7).shuffle(names)
    before = {BlueprintFactory(name=name).name for name in names}
    path, seen = f"/api/v1/blueprints?page_size=5&sort={sort}", []

    while path:
        response = admin.get(path)
        seen += [row["name"] for row in response.json()["results"]]
        path = next_link(response)
        BlueprintFactory(name=f"row-{len(seen):03d}-new")

    assert [name for name in seen if name in before].__len__() == len(before)
    assert set(seen) >= before
    assert len(seen) == len(set(seen))


def test_pages_follow_the_sort(admin: Caller) -> None:
    for name in ("b", "c", "a", "e", "d"):
        BlueprintFactory(name=name)

    assert [row["name"] for row in walk(admin, "/api/v1/blueprints?sort=name&page_size=2")] == list("abcde")
    assert [row["name"] for row in walk(admin, "/api/v1/blueprints?sort=-name&page_size=2")] == list("edcba")


def test_pages_keep_the_filter(admin: Caller) -> None:
    RunFactory.create_batch(5, state="COMPLETED")
    RunFactory.create_batch(4, state="RUNNING")
    RunFactory.create_batch(3, state="QUEUED")

    rows = walk(admin, "/api/v1/runs?state=RUNNING&state=COMPLETED&page_size=2")

    assert sorted(row["state"] for row in rows) == ["COMPLETED"] * 5 + ["RUNNING"] * 4


def test_a_list_inside_a_run_has_its_own_order(admin: Caller) -> None:
    run = RunFactory()
    for epoch in (3, 1, 2):
        EpochMetricFactory(run=run, epoch=epoch)
    EpochMetricFactory(epoch=9)

    rows = walk(admin, f"/api/v1/runs/{run.pk}/metrics?page_size=1")

    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert EpochMetric.objects.count() == 4


def test_rows_are_counted_only_when_asked(admin: Caller) -> None:
    RunFactory.create_batch(3)

    assert "count" not in admin.get("/api/v1/runs").json()
    assert admin.get("/api/v1/runs?count=true&page_size=1").json()["count"] == 3


def test_the_last_page_ends_the_walk(admin: Caller) -> None:
    RunFactory.create_batch(2)

    response = admin.get("/api/v1/runs?page_size=2")

    assert response.json()["has_more"] is False
    assert response.json()["next_cursor"] is None
    assert not response.has_header("Link")


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("page_size=0", "/page_size"),
        ("page_size=201", "/page_size"),
        ("page_size=ten", "/page_size"),
        ("page_size=%D9%A3", "/page_size"),
        ("sort=settings", "/sort"),
        ("count=yes", "/count"),
        ("cursor=forged", "/cursor"),
        ("state=BROKEN", "/state"),
        ("control_of=x", "/control_of"),
        ("stat=RUNNING", "/stat"),
        ("owner=", "/owner"),
        ("cursor=", "/cursor"),
    ],
)
def test_a_wrong_parameter_is_named(admin: Caller, query: str, pointer: str) -> None:
    assert_problem(admin.get(f"/api/v1/runs?{query}"), 400, "", pointer)


@pytest.mark.parametrize("change", ["&state=RUNNING", "&sort=id"])
def test_a_cursor_belongs_to_its_filter_and_sort(admin: Caller, change: str) -> None:
    RunFactory.create_batch(3, state="RUNNING")
    link = next_link(admin.get("/api/v1/runs?page_size=1"))

    assert_problem(admin.get(link + change), 400, "cursor", "/cursor")


def test_a_cursor_belongs_to_its_list(admin: Caller) -> None:
    RunFactory.create_batch(3)
    query = urlsplit(next_link(admin.get("/api/v1/runs?page_size=1"))).query

    assert_problem(admin.get(f"/api/v1/seeds?{query}"), 400, "cursor", "/cursor")


def test_a_page_may_change_its_size_in_the_middle(admin: Caller) -> None:
    RunFactory.create_batch(6)
    first = admin.get("/api/v1/runs?page_size=2").json()

    rest = admin.get(f"/api/v1/runs?page_size=50&cursor={first['next_cursor']}").json()

    assert len(rest["results"]) == 4


def test_a_page_of_runs_costs_the_same_queries_whatever_its_length(
    admin: Caller, django_assert_max_num_queries: Any
) -> None:
    for run in RunFactory.create_batch(10):
        EpochMetricFactory.create_batch(2, run=run)

    with django_assert_max_num_queries(3):
        admin.get("/api/v1/runs")
