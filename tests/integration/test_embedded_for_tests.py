"""What the test fixtures promise: rolled back or committed databases, real workers, a real site."""

import threading
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from django.core.cache import caches
from django.db import connection, connections, transaction
from django.utils import timezone
from django_celery_beat.models import ClockedSchedule

from apps.accounts.models import User
from apps.core.models import IdempotencyKey
from apps.core.tasks import expire_idempotency_keys
from esper_site.embedded.process import wait_for
from tests.support.databases import refuse_flushing
from tests.support.programs import RunningProgram
from tests.support.stack import DATABASE, Servers


def current() -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        return cast(tuple[Any, ...], cursor.fetchone())


@pytest.mark.parametrize("turn", ["first", "second"])
def test_db_is_the_application_role_and_is_rolled_back(db: None, turn: str) -> None:
    assert current() == ("esper_app", DATABASE)
    assert not ClockedSchedule.objects.exists()
    ClockedSchedule.objects.create(clocked_time=timezone.now())


def test_committed_db_is_seen_by_others_and_by_other_threads(committed_db: str, servers: Servers) -> None:
    with transaction.atomic():
        ClockedSchedule.objects.create(clocked_time=timezone.now())
    seen: list[int] = []

    def count() -> None:
        seen.append(ClockedSchedule.objects.count())
        connections.close_all()

    thread = threading.Thread(target=count)
    thread.start()
    thread.join()
    with psycopg.connect(servers.url("app", committed_db)) as other:
        outside = other.execute("SELECT count(*) FROM django_celery_beat_clockedschedule").fetchone()
    assert current() == ("esper_app", committed_db)
    assert (seen, outside) == ([1], (1,))


def test_a_committed_db_is_gone_afterwards(servers: Servers) -> None:
    with servers.clone() as name, psycopg.connect(servers.url("app", name)) as lingering:
        lingering.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(servers.url("app", name))


@pytest.mark.parametrize("turn", ["first", "second"])
def test_caches_begin_empty(db: None, turn: str) -> None:
    for alias in ("default", "throttle"):
        assert caches[alias].get("key") is None
        caches[alias].set("key", turn)


def test_a_test_that_would_flush_is_refused() -> None:
    item = SimpleNamespace(nodeid="test_x", fixturenames=["transactional_db"], get_closest_marker=lambda name: None)
    with pytest.raises(pytest.UsageError, match="test_x would flush the database"):
        refuse_flushing([cast(pytest.Item, item)])


def test_a_real_worker_serves_this_test(worker: Callable[..., RunningProgram]) -> None:
    user = User.objects.create(username="somebody")
    IdempotencyKey.objects.create(user=user, key="old", method="POST", path="/", body_digest="")
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(days=2))
    default = worker("default")
    expire_idempotency_keys.delay()
    assert wait_for(lambda: not IdempotencyKey.objects.exists(), seconds=20), default.output


def test_a_real_site_serves_this_test(live_site: str) -> None:
    with urllib.request.urlopen(f"{live_site}/healthz", timeout=5) as response:
        assert response.status == 200
