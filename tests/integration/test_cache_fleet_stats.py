"""Statistics of all processes in the broker's Redis: added up once each, by window, whatever happens to Redis."""

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django_redis import get_redis_connection
from redis.client import Pipeline
from redis.exceptions import TimeoutError as RedisTimeoutError

from apps.core.errors import Unavailable
from apps.core.health import EveryCollector
from apps.core.registry import registry
from apps.kernels.cache import fleet, stats
from apps.kernels.cache.segments import TierName
from tests.support.forking import in_another_process
from tests.support.proxy import Proxy, proxy_to
from tests.support.stack import Servers
from tests.support.waiting import wait_until

NOW = 1_800_000_030.0


@pytest.fixture(autouse=True)
def _nothing_is_counted_yet(servers: Servers) -> None:
    fleet.publish()  # what earlier tests counted
    servers.empty_redis()


@pytest.fixture
def broker(servers: Servers, settings: Any) -> Iterator[Proxy]:
    """What stands between this process and the broker's Redis."""
    url = servers.stack.environment["BROKER_URL"]
    with proxy_to(url) as proxy:
        settings.CACHES = {**settings.CACHES, "throttle": {**settings.CACHES["throttle"], "LOCATION": proxy.url(url)}}
        yield proxy


def hit(times: int = 1) -> None:
    stats.count(TierName.L1, "hits", size=100_000, n=times)
    for _ in range(times):
        stats.observe(TierName.L1, size=100_000, seconds=0.001, bytes=100_000)


def hits(window: str = "total") -> int:
    return fleet.fleet(window).total("hits", "l1")


def hit_and_publish(times: int) -> None:
    hit(times)
    assert fleet.publish()


# --- Adding up


def test_what_two_processes_count_is_added_up_in_every_window() -> None:
    in_another_process(lambda: hit_and_publish(3))
    hit_and_publish(2)
    hit_and_publish(1)

    for window in (*fleet.WINDOWS, "total"):
        assert hits(window) == 6
    total = fleet.fleet("total")
    assert total.total("bytes", "l1", stats.SIZE_CLASSES.index("512KiB")) == 600_000
    assert total.percentile(0.5, "l1") == pytest.approx(0.001, rel=0.21)
    assert total.seconds("l1") == pytest.approx(0.006)


def test_a_forked_process_does_not_publish_what_its_parent_counted() -> None:
    hit(5)

    in_another_process(fleet.publish)
    assert hits() == 0

    fleet.publish()
    assert hits() == 5


@pytest.mark.parametrize(
    ("age", "windows"),
    [
        (240, {"5m", "1h", "24h", "7d"}),
        (1_800, {"1h", "24h", "7d"}),
        (7_200, {"24h", "7d"}),
        (3 * 86_400, {"7d"}),
        (9 * 86_400, set()),
    ],
)
def test_a_window_has_what_was_counted_in_it(monkeypatch: pytest.MonkeyPatch, age: float, windows: set[str]) -> None:
    monkeypatch.setattr(fleet, "time", SimpleNamespace(time=lambda: NOW - age))
    hit_and_publish(1)
    monkeypatch.setattr(fleet, "time", SimpleNamespace(time=lambda: NOW))

    assert {window for window in fleet.WINDOWS if hits(window)} == windows
    assert hits("total") == 1


def test_minutes_are_kept_for_two_hours_and_hours_for_eight_days_and_the_total_for_good() -> None:
    redis = get_redis_connection("throttle")

    hit_and_publish(1)

    kept = sorted(redis.ttl(key) for key in redis.keys(f"{fleet.KEYS}:*"))

    assert kept == [-1, pytest.approx(7_800, abs=5), pytest.approx(8 * 86_400, abs=5)]


# --- Processes


def test_a_process_tells_how_it_is_until_it_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "ALIVE_SECONDS", 1)
    monkeypatch.setitem(stats.gauges, "l1", lambda: {"bytes": 5, "budget": 10, "entries": 1})
    fleet.publish()
    in_another_process(fleet.publish)

    mine, other = sorted(fleet.processes(), key=lambda process: process.pid != os.getpid())
    assert (mine.pid, mine.gauges["l1"]) == (os.getpid(), {"bytes": 5, "budget": 10, "entries": 1})
    assert (other.pid != mine.pid, other.host, other.identity != mine.identity) == (True, mine.host, True)
    wait_until(lambda: not fleet.processes(), seconds=10)


# --- Redis in trouble


def test_what_redis_could_not_take_is_sent_later_and_once(broker: Proxy) -> None:
    hit_and_publish(1)
    broker.cut()
    hit(2)
    assert not fleet.publish()
    hit(4)
    assert not fleet.publish()
    with pytest.raises(Unavailable):
        fleet.fleet("1h")
    with pytest.raises(Unavailable):
        fleet.processes()

    broker.mend()

    assert fleet.publish()
    assert fleet.publish()
    assert hits() == 7


def test_what_redis_took_without_an_answer_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hit(2)
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "execute", losing_the_answer(Pipeline.execute))
        assert not fleet.publish()
    assert hits() == 2

    hit(1)
    assert fleet.publish()

    assert hits() == 3


def test_what_a_frozen_redis_works_off_later_is_counted_once(broker: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    hit(1)
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "multi", freezing(broker, Pipeline.multi))
        assert not fleet.publish()

    broker.mend()  # the commands that nobody waits for go on beside those of the next attempt

    wait_until(fleet.publish, seconds=10)
    assert hits() == 1


def test_commands_that_arrive_after_those_of_the_next_attempt_do_nothing(
    broker: Proxy, servers: Servers, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit(1)
    with monkeypatch.context() as patched:
        patched.setattr(Pipeline, "multi", freezing(broker, Pipeline.multi))
        assert not fleet.publish()
    direct = {**settings.CACHES["throttle"], "LOCATION": servers.stack.environment["BROKER_URL"]}
    settings.CACHES = {**settings.CACHES, "throttle": direct}
    assert fleet.publish()

    attempts = transactions()
    broker.mend()

    wait_until(lambda: transactions() > attempts, seconds=10)
    assert hits() == 1


def transactions() -> int:
    """How many the server has been asked to execute."""
    return int(get_redis_connection("throttle").info("commandstats")["cmdstat_exec"]["calls"])


def freezing(broker: Proxy, multi: Callable[..., None]) -> Callable[..., None]:
    """What is sent after the batch's number was read arrives only when the proxy is mended."""

    def freeze(pipeline: Any) -> None:
        broker.freeze()
        multi(pipeline)

    return freeze


def losing_the_answer(execute: Callable[..., Any]) -> Callable[..., Any]:
    def run(pipeline: Any) -> None:
        execute(pipeline)
        raise RedisTimeoutError("no answer")

    return run


# --- Prometheus


def samples(collector: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collectors[collector]()
        for sample in family.samples
    }


def test_prometheus_reads_the_counts_of_all_processes() -> None:
    in_another_process(lambda: hit_and_publish(3))

    found = samples("kernel_cache")

    assert found["esper_cache_hits_total", "l1", "512KiB"] == 3
    assert found["esper_cache_bytes_total", "l1", "512KiB"] == 300_000
    assert found["esper_cache_misses_total", "l4", "unknown"] == 0
    assert found["esper_cache_latency_seconds_count", "l1"] == 3
    assert found["esper_cache_latency_seconds_sum", "l1"] == pytest.approx(0.003)
    buckets = [value for name, value in found.items() if name[:2] == ("esper_cache_latency_seconds_bucket", "l1")]
    assert buckets == sorted(buckets)
    assert (buckets[0], buckets[-1]) == (0, 3)


def test_prometheus_reads_how_each_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stats.gauges, "l1", lambda: {"bytes": 5, "budget": 10, "entries": 1})
    states = {"l2": {"state": "open", "since": 3.0}, "l3": {"state": "closed", "since": 0.0}}
    monkeypatch.setitem(stats.gauges, "breakers", lambda: states)
    fleet.publish()
    (process,) = fleet.processes()

    found = samples("kernel_cache_processes")

    assert found["esper_cache_l1_bytes", process.name] == 5
    assert found["esper_cache_l1_budget_bytes", process.name] == 10
    assert found["esper_cache_l1_entries", process.name] == 1
    assert found["esper_cache_breaker_open", process.name, "l2"] == 1
    assert found["esper_cache_breaker_open", process.name, "l3"] == 0


@pytest.mark.django_db
def test_prometheus_is_told_that_redis_does_not_answer(broker: Proxy) -> None:
    broker.cut()

    up = {
        sample.labels["collector"]: sample.value
        for family in EveryCollector().collect()
        if family.name == "esper_collector_up"
        for sample in family.samples
    }

    assert (up["kernel_cache"], up["kernel_cache_processes"], up["kernels"]) == (0, 0, 1)
