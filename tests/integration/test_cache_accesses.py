"""How often bytes are read: counted by processes, added up in Redis, written to PostgreSQL once, weighted by age."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_redis import get_redis_connection
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from apps.core.errors import Unavailable
from apps.kernels.cache import accesses
from apps.kernels.cache.config import config
from apps.kernels.models import AccessBatch, BlobAccess, KernelBlob
from esper_site.embedded.home import REPOSITORY
from tests.support.forking import in_another_process
from tests.support.proxy import proxy_to
from tests.support.stack import Servers

A, B, C, GONE = (letter * 64 for letter in "abcd")


@pytest.fixture
def blobs(db: None) -> None:
    make_blobs()


def make_blobs() -> None:
    KernelBlob.objects.bulk_create(KernelBlob(digest=digest, size=1, chunk_count=1) for digest in (A, B, C))


@pytest.fixture(autouse=True)
def _nothing_is_counted_yet(servers: Servers) -> Iterator[None]:
    accesses.publish()  # what earlier tests counted
    servers.empty_redis()
    yield
    accesses.publish()


def read_and_publish(*digests: str) -> None:
    for digest in digests:
        accesses.read(digest)
    assert accesses.publish()


def reads() -> dict[str, int]:
    return dict(BlobAccess.objects.values_list("digest", "reads"))


def score(digest: str) -> float:
    return float(accesses.score_now(BlobAccess.objects.filter(pk=digest)).values_list("score_now", flat=True).get())


def grow_older(half_lives: float) -> None:
    for row in BlobAccess.objects.all():
        row.scored_at -= timedelta(seconds=half_lives * config().half_life)
        row.save()


# --- In a process


def test_the_second_read_within_a_half_life_tells_that_the_bytes_are_worth_keeping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, digest = [1_000.0], os.urandom(32).hex()
    monkeypatch.setattr(accesses, "time", SimpleNamespace(monotonic=lambda: now[0]))

    assert not accesses.read(digest)
    now[0] += config().half_life - 1
    assert accesses.read(digest)
    now[0] += config().half_life + 1
    assert not accesses.read(digest)


def test_a_process_remembers_so_many_digests_and_forgets_the_one_not_read_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accesses, "REMEMBERED", 2)
    first, second, third = (os.urandom(32).hex() for _ in range(3))
    accesses.read(first)
    accesses.read(second)
    accesses.read(first)

    accesses.read(third)

    assert accesses.read(first)
    assert not accesses.read(second)


# --- Written


@pytest.mark.usefixtures("blobs")
def test_the_reads_of_all_processes_are_written_in_one_statement() -> None:
    read_and_publish(A, A, B)
    in_another_process(lambda: read_and_publish(A, C))

    with CaptureQueriesContext(connection) as done:
        assert accesses.flush() == 1

    assert len([query for query in done.captured_queries if "kernels_blobaccess" in query["sql"]]) == 1
    assert reads() == {A: 3, B: 1, C: 1}
    assert score(A) == pytest.approx(3, rel=0.01)
    assert accesses.flush() == 0


@pytest.mark.usefixtures("blobs")
def test_the_weight_of_a_read_halves_with_every_half_life() -> None:
    read_and_publish(A, A, A, A, B)
    accesses.flush()
    grow_older(2)
    assert score(A) == pytest.approx(1, rel=0.01)

    read_and_publish(A, A)
    accesses.flush()

    assert score(A) == pytest.approx(3, rel=0.01)
    assert score(B) == pytest.approx(0.25, rel=0.01)
    assert BlobAccess.objects.get(pk=A).score == pytest.approx(3, rel=0.01)
    assert reads() == {A: 6, B: 1}


@pytest.mark.usefixtures("blobs")
def test_reads_of_long_ago_weigh_nothing_and_stop_nobody() -> None:
    read_and_publish(A, B)
    accesses.flush()
    grow_older(50_000)
    assert score(A) < 1e-29

    read_and_publish(A)
    accesses.flush()

    assert score(A) == pytest.approx(1, rel=0.01)


@pytest.mark.usefixtures("blobs")
def test_a_clock_that_goes_back_makes_nothing_heavier() -> None:
    read_and_publish(A)
    accesses.flush()
    grow_older(-5)
    ahead = BlobAccess.objects.get(pk=A).scored_at
    assert score(A) == 1

    read_and_publish(A)
    accesses.flush()

    row = BlobAccess.objects.get(pk=A)
    assert (row.score, row.scored_at) == (2, ahead)


@pytest.mark.usefixtures("blobs")
def test_bytes_that_are_gone_and_names_of_no_bytes_are_left_out() -> None:
    read_and_publish(A, GONE)
    get_redis_connection("throttle").hincrby(accesses.READS, "not a digest", 1)

    accesses.flush()

    assert reads() == {A: 1}


@pytest.mark.usefixtures("blobs")
def test_names_of_batches_are_forgotten_after_a_week() -> None:
    AccessBatch.objects.create(name="old")
    AccessBatch.objects.update(flushed_at=timezone.now() - timedelta(days=8))

    read_and_publish(A)
    accesses.flush()

    assert AccessBatch.objects.exclude(name="old").count() == AccessBatch.objects.count() == 1


# --- In trouble


@pytest.mark.usefixtures("blobs")
def test_what_redis_could_not_take_is_sent_later_and_once(servers: Servers, settings: Any) -> None:
    url = servers.stack.environment["BROKER_URL"]
    with proxy_to(url) as proxy:
        settings.CACHES = {**settings.CACHES, "throttle": {**settings.CACHES["throttle"], "LOCATION": proxy.url(url)}}
        read_and_publish(A)
        proxy.cut()
        accesses.read(A)
        assert not accesses.publish()
        accesses.read(B)
        with pytest.raises(Unavailable):
            accesses.flush()

        proxy.mend()

        assert accesses.publish()
        accesses.flush()
    assert reads() == {A: 2, B: 1}


def test_while_redis_is_away_a_process_counts_so_many_digests(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accesses, "MOST_UNPUBLISHED", 1)

    read_and_publish(A, B, A)

    assert get_redis_connection("throttle").hgetall(accesses.READS) == {A.encode(): b"2"}


@pytest.mark.usefixtures("blobs")
def test_a_flush_that_dies_before_its_commit_is_done_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    read_and_publish(A)
    with monkeypatch.context() as patched:
        patched.setattr(accesses, "_add", raising(DatabaseError("gone")))
        with pytest.raises(DatabaseError):
            accesses.flush()
    assert reads() == {}
    read_and_publish(A, B)

    assert accesses.flush() == 2

    assert reads() == {A: 2, B: 1}


@pytest.mark.usefixtures("blobs")
def test_a_flush_that_dies_after_its_commit_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read_and_publish(A)
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "delete", raising(RedisConnectionError("gone")))
        with pytest.raises(Unavailable):
            accesses.flush()
    assert reads() == {A: 1}
    read_and_publish(B)

    assert accesses.flush() == 1

    assert reads() == {A: 1, B: 1}
    assert get_redis_connection("throttle").keys(f"{accesses.READS}*") == []


@pytest.mark.parametrize("step", ["_flush_batch", "_add", "score", "delete"])
def test_a_killed_flush_loses_and_doubles_nothing(committed_db: str, step: str) -> None:
    make_blobs()
    read_and_publish(A, A, B)

    killed = subprocess.run([sys.executable, "-c", KILLED, step], cwd=REPOSITORY, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    accesses.flush()

    assert reads() == {A: 2, B: 1}
    assert get_redis_connection("throttle").keys(f"{accesses.READS}*") == []


KILLED = """
import os, signal, sys
import django
django.setup()
from django.db.backends.utils import CursorWrapper
from redis.client import Pipeline
from apps.kernels.cache import accesses

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

step = sys.argv[1]
if step == "delete":
    Pipeline.delete = die
elif step == "score":  # after the statement, before the commit
    add = accesses._add
    accesses._add = lambda counts: (add(counts), die())
else:
    setattr(accesses, step, die)
accesses.flush()
"""


def test_two_flushes_at_once_write_every_batch_once(committed_db: str) -> None:
    make_blobs()
    at_once, failures = threading.Barrier(3), list[BaseException]()

    def flush_often() -> None:
        try:
            at_once.wait(timeout=30)
            for _ in range(20):
                accesses.flush()
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    flushes = [threading.Thread(target=flush_often) for _ in range(2)]
    for flush in flushes:
        flush.start()
    at_once.wait(timeout=30)
    for _ in range(30):
        read_and_publish(A, B)
    for flush in flushes:
        flush.join()
    accesses.flush()

    assert failures == []
    assert reads() == {A: 30, B: 30}


def raising(error: Exception) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail
