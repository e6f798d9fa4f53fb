"""What the collectors of hosts, servers, queues and the cache read, and how a round of them is stored."""

import json
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import pytest
from celery import current_app
from django.conf import LazySettings
from django.db import connection, transaction
from django.utils import timezone
from django_redis import get_redis_connection
from prometheus_client.core import Metric
from redis.exceptions import ConnectionError as RedisDown

from apps.core import collectors, heartbeats
from apps.core.ids import new_id
from apps.core.registry import registry
from apps.kernels.cache import fleet, stats
from apps.kernels.cache.segments import TierName
from apps.observability.catalogue import spec_of, stored_names
from apps.observability.collectors import cache, database, gpu, hosts, runs, servers
from apps.observability.collectors.families import family
from apps.observability.contracts import Reading
from apps.observability.models import Sample, Series
from apps.observability.services import collecting
from apps.observability.store import writing
from tests.support.families import told
from tests.support.metrics import samples

pytestmark = pytest.mark.django_db


class TestHosts:
    @pytest.fixture(autouse=True)
    def _here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hosts.socket, "gethostname", lambda: "here")

    def tell(self, monkeypatch: pytest.MonkeyPatch, host: str, **changes: Any) -> None:
        """Another host tells of itself."""
        monkeypatch.setattr(hosts.socket, "gethostname", lambda: host)
        read = hosts.read
        monkeypatch.setattr(hosts, "read", lambda before: read(before) | changes)
        assert hosts.publish()
        monkeypatch.setattr(hosts, "read", read)

    def test_a_host_tells_its_processors_memory_and_disks(self) -> None:
        hosts.publish()

        found = told(hosts.told())

        assert found["esper_host_cpus{host=here}"] >= 1
        assert 0 < found["esper_host_memory_used_ratio{host=here}"] < 1
        memory = {
            kind: found[f"esper_host_memory_bytes{{host=here}}{{kind={kind}}}"]
            for kind in ("total", "used", "available")
        }
        assert memory["used"] + memory["available"] == memory["total"]
        assert any(name.startswith("esper_host_disk_used_ratio{disk=/") for name in found)

    def test_every_host_is_seen_from_any(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tell(monkeypatch, "worker-1", cpus=64)
        self.tell(monkeypatch, "worker-2", cpus=32)

        found = told(hosts.told())

        assert found["esper_host_cpus{host=worker-1}"] == 64
        assert found["esper_host_cpus{host=worker-2}"] == 32

    def test_one_process_of_a_host_tells_for_all(self) -> None:
        assert [hosts.publish(), hosts.publish()] == [True, False]

    def test_the_processors_share_is_of_the_time_since_the_last_reading(self) -> None:
        now = hosts.read({})

        assert now["cpu"] is None
        assert hosts.read({"busy": now["busy"] - 30, "total": now["total"] - 60})["cpu"] == pytest.approx(0.5, abs=0.05)

    def test_a_host_that_is_silent_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tell(monkeypatch, "gone")
        get_redis_connection("throttle").delete(f"{hosts.KEYS}:gone")

        assert "esper_host_cpus{host=gone}" not in told(hosts.told())

    def test_a_disk_with_several_folders_is_told_once(self, settings: LazySettings, tmp_path: Path) -> None:
        settings.ESPER_HOME = settings.CHECKPOINTS_ROOT = tmp_path

        assert len(hosts.disks()) <= 2  # and that of the root

    def test_gpus_are_told_where_there_are_any(self, monkeypatch: pytest.MonkeyPatch) -> None:
        card = {"gpu": "0", "busy": 0.4, "total": 80.0, "used": 20.0, "celsius": None, "watts": 200.0}
        monkeypatch.setattr(gpu, "read", lambda: [card])
        hosts.publish()

        found = told(hosts.told())

        assert found["esper_gpu_memory_used_ratio{gpu=0}{host=here}"] == 0.25
        assert found["esper_gpu_power_watts{gpu=0}{host=here}"] == 200
        assert "esper_gpu_temperature_celsius{gpu=0}{host=here}" not in found


class TestServers:
    def test_the_database_tells_its_size_connections_and_transactions(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database())")
            size = cursor.fetchone()[0]

        found = told(database.told())

        assert found["esper_database_bytes"] == pytest.approx(size, rel=0.01)
        assert 0 <= found["esper_database_connections_used_ratio"] < 1
        assert found["esper_database_transactions_total{outcome=commit}"] > 0

    def test_both_redis_servers_tell_memory_and_clients(self) -> None:
        found = told(servers.told())

        for server in ("cache", "broker"):
            assert found[f"esper_redis_memory_bytes{{server={server}}}"] > 0
            assert 0 < found[f"esper_redis_memory_used_ratio{{server={server}}}"] < 1
            assert found[f"esper_redis_clients{{server={server}}}"] >= 1


class TestQueues:
    def test_what_waits_is_counted_and_the_oldest_has_its_age(self) -> None:
        begun = time.time()
        for _ in range(3):
            current_app.send_task("apps.core.tasks.expire_idempotency_keys", queue="compile")

        found = told(servers.queues())

        assert found["esper_queue_messages{queue=compile}"] == 3
        assert 0 < found["esper_queue_oldest_age_seconds{queue=compile}"] <= time.time() - begun
        assert found["esper_queue_oldest_age_seconds{queue=train}"] == 0

    @pytest.mark.parametrize("message", ["no json", "[]", "{}", json.dumps({"headers": {"esper_sent_at": "x"}})])
    def test_a_message_that_is_not_ours_has_no_age(self, message: str) -> None:
        get_redis_connection("throttle").lpush("compile", message)

        found = told(servers.queues())

        assert found["esper_queue_messages{queue=compile}"] == 1
        assert "esper_queue_oldest_age_seconds{queue=compile}" not in found

    def test_a_queue_is_served_while_its_worker_gives_signs_of_life(self) -> None:
        heartbeats.show_life("node", ["train"])

        found = told(servers.queues())

        assert found["esper_queue_served{queue=train}"] == 1
        assert found["esper_queue_served{queue=compile}"] == 0


def test_the_cache_tells_the_last_hour_as_one_number_a_tier() -> None:
    fleet.publish()  # what earlier tests of this process counted
    before = fleet.fleet("1h")
    hits, misses = before.total("hits", "l3"), before.total("misses", "l3")
    stats.count(TierName.L3, "hits", size=1000, n=300)
    stats.count(TierName.L3, "misses", size=1000, n=100)
    fleet.publish()

    found = told(cache.told())

    assert found["esper_cache_hit_ratio{tier=l3}"] == pytest.approx((hits + 300) / (hits + misses + 400))


def test_of_a_tier_that_was_hardly_asked_no_share_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stats.count(TierName.L3, "misses", size=1000, n=1)
    fleet.publish()
    hour = fleet.fleet("1h")
    monkeypatch.setattr(cache, "LEAST_READS", hour.total("hits", "l3") + hour.total("misses", "l3") + 1)

    assert "esper_cache_hit_ratio{tier=l3}" not in told(cache.told())


class TestRuns:
    def record(self, run: UUID, *, seconds_ago: float = 1.0) -> None:
        at = timezone.now() - timedelta(seconds=seconds_ago)
        reading = Reading(name="esper_run_train_loss", value=0.5, at=at, labels={"run": str(run)}, run_id=run)
        writing.record([reading], source="run")

    def test_a_run_that_has_been_silent_for_five_minutes_is_not_told(self) -> None:
        trains, ended = new_id(), new_id()
        self.record(trains)
        self.record(ended, seconds_ago=301)

        assert told(runs.told()) == {f"esper_run_train_loss{{run={trains}}}": 0.5}

    def test_of_more_than_can_be_told_the_newest_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runs, "MOST", 1)
        older, newer = new_id(), new_id()
        self.record(older)
        self.record(newer)

        assert list(told(runs.told())) == [f"esper_run_train_loss{{run={newer}}}"]


class TestReading:
    @pytest.mark.parametrize("error", [RedisDown("away"), ValueError("a fault of ours")])
    def test_a_collector_that_fails_is_told_and_the_others_go_on(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> NoReturn:
            raise error

        monkeypatch.setitem(registry.collectors, "queues", fail)

        found = told(collectors.read_collectors())

        assert found["esper_collector_up{collector=queues}"] == 0
        assert found["esper_collector_up{collector=runs}"] == 1
        assert "esper_runs{state=RUNNING}" in found

    def test_a_query_that_hangs_is_ended_by_the_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hang() -> Iterable[Metric]:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(60)")
            return []

        monkeypatch.setattr(collectors, "QUERY_SECONDS", 0.05)
        monkeypatch.setitem(registry.collectors, "queues", hang)

        found = told(collectors.read_collectors())

        assert found["esper_collector_up{collector=queues}"] == 0
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("0",)

    def test_a_slow_collector_rests_and_what_it_said_counts_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now, calls = [100.0], []

        def slow() -> Iterable[Metric]:
            calls.append(now[0])
            now[0] += 0.5
            return [family("esper_database_bytes", float(len(calls)))]

        monkeypatch.setattr(collectors.time, "monotonic", lambda: now[0])
        monkeypatch.setattr(registry, "collectors", {"slow": slow})
        resting = collectors.Resting()

        def said(after: float) -> float:
            now[0] += after
            return told(collectors.read_collectors(resting=resting))["esper_database_bytes"]

        assert [said(0), said(49), said(2)] == [1, 1, 2]

    def test_one_that_failed_slowly_is_asked_again_within_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        failed = collectors.Read(families=None, seconds=3.0, at=100.0)

        assert failed.rests_until == 160.0


class TestCollecting:
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        collecting.resting.forget()
        hosts.publish()

    def test_a_round_has_one_time_a_multiple_of_fifteen_seconds(self) -> None:
        collecting.collect()

        (at,) = set(Sample.objects.values_list("at", flat=True))
        assert at.timestamp() % collecting.PERIOD == 0
        assert timedelta(0) <= timezone.now() - at < timedelta(seconds=2 * collecting.PERIOD)

    def test_everything_that_the_catalogue_wants_stored_and_nothing_else_is(self) -> None:
        collecting.collect()

        names = set(Series.objects.values_list("name", flat=True))
        assert names <= set(stored_names())
        assert {"esper_host_cpus", "esper_runs", "esper_database_bytes", "esper_checkpoint_save_seconds_count"} <= names
        assert not [name for name in names if name.endswith("_bucket") or not spec_of(name).stored]

    def test_counters_are_counters_and_units_are_kept(self) -> None:
        collecting.collect()

        kinds = {name: (kind, unit) for name, kind, unit in Series.objects.values_list("name", "kind", "unit")}
        assert kinds["esper_database_transactions_total"] == ("counter", "")
        assert kinds["esper_checkpoint_save_seconds_sum"] == ("counter", "seconds")
        assert kinds["esper_checkpoint_save_seconds_count"] == ("counter", "")
        assert kinds["esper_host_memory_bytes"] == ("gauge", "bytes")

    def test_a_second_round_within_the_same_time_stores_nothing_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = timezone.now()
        monkeypatch.setattr(collecting.timezone, "now", lambda: now)
        first = collecting.collect()

        second = collecting.collect()

        assert first.stored > 200
        assert Sample.objects.count() - first.stored < 10  # what a first reading cannot tell, and what is new
        assert second.known >= first.stored

    def test_a_reading_that_cannot_be_kept_costs_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name is too long, and one is no text that PostgreSQL keeps."""
        disks = [("here", "/" + "x" * 300), ("here", "/\udcff"), ("here", "/data")]
        wrong = family("esper_host_disk_used_ratio", dict.fromkeys(disks, 0.5))
        monkeypatch.setitem(registry.collectors, "hosts", lambda: [wrong])

        collecting.collect()

        kept = Series.objects.filter(name="esper_host_disk_used_ratio")
        assert [row.labels["disk"] for row in kept] == ["/data"]
        assert Series.objects.filter(name="esper_runs").exists()

    def test_clients_that_have_filled_the_store_do_not_blind_the_platform(self, settings: LazySettings) -> None:
        settings.METRICS_MAX_SERIES = 1
        writing.record(samples([1.0]), source="client")

        assert collecting.collect().stored > 100

    def test_a_disk_that_never_answers_does_not_hold_up_the_worker(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host tells of itself in a thread of its own."""
        monkeypatch.setattr(hosts.socket, "gethostname", lambda: "silent")
        monkeypatch.setattr(hosts, "read", lambda before: pytest.fail("the task asks the disks"))

        assert collecting.collect().stored > 100

    def test_readings_of_runs_are_not_stored_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(registry.collectors, "runs_now", lambda: [family("esper_run_train_loss", {("a",): 0.5})])

        collecting.collect()

        assert not Series.objects.filter(name__startswith="esper_run_").exists()
