"""Several write at once: the cap holds, nobody waits for nobody, and what is rolled back is not remembered."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from apps.core.errors import Invalid
from apps.observability.contracts import Written
from apps.observability.models import FiveMinuteRollup, Sample, Series
from apps.observability.services.upkeep import roll_up
from apps.observability.store import registering, writing
from tests.support.metrics import samples

pytestmark = pytest.mark.usefixtures("committed_db")


def together(*calls: Callable[[], Any]) -> list[Any]:
    """What each returns or raises, all begun at one time, each in a thread with a connection of its own."""
    gate = Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait(timeout=30)
        try:
            return call()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(run, call) for call in calls]]


def test_the_cap_of_series_holds_whoever_else_begins_some(settings: Any) -> None:
    settings.METRICS_MAX_SERIES = 5
    batches = [samples([1.0], labels={"writer": str(n)}) for n in range(8)]

    outcomes = together(*[lambda batch=batch: writing.record(batch, source="client") for batch in batches])

    assert Series.objects.count() == 5
    refused = [each for each in outcomes if isinstance(each, Invalid)]
    assert [each.code for each in refused] == ["too_many_series"] * 3


def test_one_batch_sent_twice_at_once_is_kept_once() -> None:
    there = [one for n in range(20) for one in samples([1.0] * 50, labels={"n": str(n)})]
    writing.record(there[:1], source="client")

    outcomes = together(
        lambda: writing.record(there, source="client"), lambda: writing.record(there[::-1], source="client")
    )

    assert sum(each.stored for each in outcomes) == 999
    assert Sample.objects.count() == 1000


def test_a_series_that_was_rolled_back_is_begun_again() -> None:
    batch = samples([1.0])
    with transaction.atomic():
        writing.record(batch, source="platform")
        transaction.set_rollback(True)

    assert writing.record(batch, source="platform") == Written(stored=1, known=0)
    assert Series.objects.count() == 1


def test_a_series_that_another_process_removed_is_begun_again() -> None:
    writing.record(samples([1.0]), source="platform")
    assert registering._known
    Series.objects.all().delete()

    assert writing.record(samples([2.0]), source="platform").stored == 1
    assert Sample.objects.filter(series_id=Series.objects.get().pk).count() == 1


def test_a_roll_up_that_finds_another_at_work_goes_home() -> None:
    writing.record(samples([1.0], start=timezone.now() - timedelta(hours=1)), source="platform")
    number = "SELECT pg_try_advisory_lock(('x' || left(encode(sha256('metrics upkeep'), 'hex'), 16))::bit(64)::bigint)"
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
        assert other.execute(number).fetchone() == (True,)
        roll_up()
        assert not FiveMinuteRollup.objects.exists()
        other.execute("SELECT pg_advisory_unlock_all()")  # closing gives it back, too, but some time later

    roll_up()

    assert FiveMinuteRollup.objects.count() == 1
