"""What measuring costs the platform: a call in the loop, the collectors, the upkeep, and a scrape.

Everything here runs in a process of its own, on servers of the bench's own.
"""

import socket
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest import mock

import psutil

from benchmarks.targets import Measurement

CALLS = 4_000
"""Of record, between two flushes: below what the recorder holds of a series."""
FLUSHED_SERIES = 20
PERIODS = {"collect": 15.0, "scan_anomalies": 15.0, "evaluate_alerts": 15.0, "roll_up": 60.0, "deliver": 5.0}
"""Seconds between two runs of each task (esper_site.celery)."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What single calls cost: recording, storing, sending and scraping."""

    recorded: list[float]
    flushed: list[float]
    ingested: dict[str, list[float]]
    scraped: dict[str, Any]


def calls(quick: bool) -> Calls:
    """All of them, one after the other."""
    recorded, flushed = record_call(50 if quick else 300), flush_cost(10 if quick else 50)
    return Calls(recorded, flushed, ingestion(2 if quick else 10), scrape(3 if quick else 30))


def record_call(batches: int) -> list[float]:
    """Nanoseconds a call of ``record``, by batches, as a training loop makes them, the thread running beside it."""
    from apps.observability.recorder import Recorder

    recorder = Recorder(lambda batch: None, flush_seconds=0.1)
    handle = recorder.series("bench_loss", run="0192")
    found = []
    for _ in range(batches):
        record = handle.record
        begun = time.perf_counter_ns()
        for _ in range(CALLS):
            record(0.25)
        found.append((time.perf_counter_ns() - begun) / CALLS)
        recorder.flush()  # a queue that is full would be measured instead
    recorder.close()
    return found


def flush_cost(rounds: int) -> list[float]:
    """CPU milliseconds that storing ten seconds of a run's series takes: 20 series, a value each two seconds."""
    from django.utils import timezone

    from apps.observability.contracts import Reading
    from apps.observability.store import writing

    now = timezone.now() - timedelta(minutes=30)
    found = []
    for number in range(rounds + 1):
        at = now + timedelta(seconds=10 * number)
        batch = [
            Reading(name=f"bench_run_{place}", value=0.5, at=at + timedelta(seconds=2 * tick), labels={"run": "0192"})
            for place in range(FLUSHED_SERIES)
            for tick in range(5)
        ]
        begun = time.process_time()
        writing.record(batch, source="run")
        if number:
            found.append((time.process_time() - begun) * 1000)
    return found


def own_cost(rounds: int) -> dict[str, Any]:
    """CPU of each task of observability in percent of one core at its period, and the memory that they add.

    The memory is that of this process over what it had with Django loaded and the database connected.
    """
    from django.db import connection
    from django_redis import get_redis_connection

    connection.ensure_connection()
    process = psutil.Process()
    idle = process.memory_info().rss
    from apps.observability import tasks
    from apps.observability.collectors import hosts
    from apps.observability.models import Series

    def collect() -> None:
        """What a thread of each host and a worker do, together."""
        assert hosts.publish()
        tasks.collect()

    asked = {name: getattr(tasks, name) for name in PERIODS} | {"collect": collect}
    seconds: dict[str, list[float]] = {name: [] for name in PERIODS}
    peak = idle
    with passing_time() as pass_seconds:
        for number in range(rounds + 1):
            get_redis_connection("throttle").delete(f"{hosts.KEYS}:turn:{socket.gethostname()}")
            for name, found in seconds.items():
                begun = time.process_time()
                asked[name]()
                if number:  # the first imports, and makes what is there once
                    found.append(time.process_time() - begun)
            peak = max(peak, process.memory_info().rss)
            pass_seconds(15)
    return {
        "series": Series.objects.count(),
        "idle_mib": idle / 2**20,
        "grown_mib": (peak - idle) / 2**20,
        "percent": {name: [100 * each / PERIODS[name] for each in found] for name, found in seconds.items()},
    }


@contextmanager
def passing_time() -> Any:
    """A clock of Django's that is set by hand, from some minutes ago: samples of many periods without the waiting."""
    from django.utils import timezone

    now = [timezone.now() - timedelta(minutes=20)]

    def pass_seconds(seconds: float) -> None:
        now[0] += timedelta(seconds=seconds)

    with mock.patch.object(timezone, "now", side_effect=lambda: now[0]):
        yield pass_seconds


def scrape(rounds: int) -> dict[str, Any]:
    """Milliseconds of GET /metrics in this process, and how many samples it answers."""
    from django.test import Client

    client = Client(SERVER_NAME="localhost")
    times, count = [], 0
    for number in range(rounds + 1):
        begun = time.perf_counter()
        answer = client.get("/metrics", REMOTE_ADDR="127.0.0.1")
        if number:
            times.append((time.perf_counter() - begun) * 1000)
        assert answer.status_code == 200, answer.content[:300]
        lines = answer.content.decode().splitlines()
        count = sum(1 for line in lines if line and not line.startswith("#"))
    return {"samples": count, "ms": times}


def ingestion(batches: int) -> dict[str, list[float]]:
    """Samples a second of batches of 5,000 over 100 series: through the service alone, and through the whole API."""
    return {"service": _rates(_send_to_service(), batches), "api": _rates(_send_to_api(), batches)}


def _rates(send: Callable[[int], int], batches: int) -> list[float]:
    found = []
    for number in range(batches + 1):
        begun = time.perf_counter()
        count = send(number)
        if number:
            found.append(count / (time.perf_counter() - begun))
    return found


def _send_to_service() -> Callable[[int], int]:
    from apps.observability.services.ingestion import ingest

    def send(number: int) -> int:
        batch = _batch(number, "bench_service")
        return ingest(samples=batch).stored

    return send


def _send_to_api() -> Callable[[int], int]:
    from rest_framework.test import APIClient

    from apps.accounts import services
    from apps.accounts.roles import Role, Scope
    from apps.core.actors import SYSTEM

    user, _ = services.create_user(username="bench", role=Role.ADMIN, actor=SYSTEM)
    secret = services.issue_token(user=user, name="bench", scopes=[Scope.RUNS_WRITE], actor=SYSTEM)[1]
    client = APIClient(SERVER_NAME="localhost")
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")

    def send(number: int) -> int:
        answer = client.post("/api/v1/metrics/samples", {"samples": _batch(number, "bench_api")}, format="json")
        assert answer.status_code == 200, answer.content[:300]
        return int(answer.json()["stored"])

    return send


def _batch(number: int, name: str) -> list[dict[str, Any]]:
    from django.utils import timezone

    first = timezone.now() - timedelta(days=2) + number * timedelta(minutes=50)
    return [
        {
            "name": name,
            "value": 0.25 + place,
            "at": (first + timedelta(seconds=tick)).isoformat(),
            "labels": {"host": str(place)},
        }
        for place in range(100)
        for tick in range(50)
    ]


def measured(calls: Sequence[float], cost: dict[str, Any]) -> dict[str, Measurement]:
    return {
        "record_call": Measurement.of(calls),
        "collector_cpu": Measurement.of(cost["percent"]["collect"]),
        "collector_memory": Measurement(value=cost["grown_mib"], n=1, spread=0.0),
    }


def medians(percent: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in percent.items()}
