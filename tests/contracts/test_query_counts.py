"""Every list of the API takes as many queries for twelve rows as for two, and no more than it used to.

The lists are generated from the URL configuration. The counts are kept in ``query_counts.json``, so that a change of
one shows in review; ``ESPER_UPDATE_QUERY_COUNTS=1 pytest tests/contracts/test_query_counts.py`` writes them anew.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from apps.core.api import ListView
from tests.contracts.list_rows import EXEMPT, ROWS, World
from tests.contracts.planted_urls import PREFIX
from tests.contracts.routes import SAMPLES, routes
from tests.support.factories import RunFactory, TokenFactory

BASELINE = Path(__file__).with_name("query_counts.json")
UPDATE = "ESPER_UPDATE_QUERY_COUNTS"
FEW, MANY = 2, 12


def lists(urlconf: str | None = None) -> Iterator[str]:
    for route in routes(urlconf):
        if isinstance(route.view_class, type) and issubclass(route.view_class, ListView):
            yield route.path.replace(SAMPLES["uuid"], "{id}")


@pytest.fixture
def client(db: None) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {TokenFactory().secret}")
    return client


def counted(client: APIClient, path: str) -> tuple[int, int]:
    """Queries that a page took, and rows that it has."""
    with CaptureQueriesContext(connection) as queries:
        response = client.get(path)
    assert response.status_code == 200, response.content
    return len(queries), len(response.json()["results"])


def queries_of(client: APIClient, path: str, make: Any) -> tuple[int, int]:
    """Queries for a page with FEW rows, and for one with MANY."""
    for _ in range(FEW):
        make()
    counted(client, path)  # what is cached after a first request is no matter of rows
    few, before = counted(client, path)
    for _ in range(MANY - FEW):
        make()
    many, after = counted(client, path)
    assert after - before == MANY - FEW, f"{path} shows {after} rows after {before}"
    return few, many


@pytest.mark.parametrize("template", ROWS)
def test_a_list_takes_as_many_queries_for_many_rows_as_for_few(client: APIClient, template: str) -> None:
    world = World()

    few, many = queries_of(client, world.path(template), lambda: ROWS[template](world))

    assert few == many
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    if UPDATE in os.environ:
        baseline = {name: value for name, value in {**baseline, template: few}.items() if name in ROWS}
        BASELINE.write_text(json.dumps(baseline, indent=2, sort_keys=True) + "\n")
    assert baseline.get(template) == few, f"if this is meant, set {UPDATE}=1 and commit {BASELINE.name}"


def test_every_list_of_the_api_has_rows_and_a_count() -> None:
    assert set(lists()) - set(EXEMPT) <= set(ROWS)
    assert set(ROWS) == set(json.loads(BASELINE.read_text()))


def test_a_list_with_a_query_for_each_row_is_found(client: APIClient, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.contracts.planted_urls"

    few, many = queries_of(client, f"/{PREFIX}each", RunFactory)

    assert many - few == MANY - FEW
