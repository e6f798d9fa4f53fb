"""Of two workers that are asked to collect at the same time, one does."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from apps.core.locks import alone
from apps.observability.models import Sample
from apps.observability.services import collecting


def close() -> None:
    """The connection of the thread in which this runs."""
    connection.close()


@pytest.fixture
def elsewhere(committed_db: str) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Runs something on another connection to the same database, to its end."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda act: pool.submit(act).result()
        pool.submit(close).result()


def test_a_worker_that_comes_while_another_collects_stores_nothing(
    elsewhere: Callable[[Callable[[], object]], None],
) -> None:
    with alone("observability.collect", busy=""):
        elsewhere(collecting.collect)

    assert not Sample.objects.exists()
    assert collecting.collect().stored > 0
