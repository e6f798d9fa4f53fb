"""The parts of the cache's bench on a small scale: they measure what they say, and their table has every row."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import cache_faults, cache_replay, cache_tiers
from benchmarks.cache_site import Site, in_fresh_process, own_valkeys
from benchmarks.cache_workload import Workload

pytestmark = pytest.mark.usefixtures("committed_db")

REPEATS = {"10KiB": 20, "100KiB": 20}
SMALL = Workload(kernels=60, reads=600, phases=2, workers=2, largest=500_000)


@pytest.fixture
def site(committed_db: str, tmp_path: Path) -> Iterator[Site]:
    with own_valkeys(tmp_path) as site:
        yield site


def test_every_tier_is_read_at_every_size_beside_the_bare_ways(site: Site) -> None:
    found = in_fresh_process(cache_tiers.read_all, site, REPEATS)

    assert set(found["latencies"]) == set(REPEATS)
    for latencies in found["latencies"].values():
        assert set(latencies) == {"l1", "l2", "l3", "l4", "redis_get", "file", "select"}
        assert all(0 < latency["p50_ms"] <= latency["p95_ms"] and latency["n"] == 20 for latency in latencies.values())
    assert len(found["ratios"]) == 10
    assert cache_tiers.measurements(found)["l2_get_100kib_vs_bare_redis_get"].value > 0
    assert len(cache_tiers.lines(found)) == 3


def test_the_workload_is_answered_by_every_tier_and_warming_helps(site: Site) -> None:
    found = in_fresh_process(cache_replay.replay, site, SMALL)

    every = found["all"]
    assert every["reads"] == SMALL.reads
    assert sum(every[tier] for tier in cache_replay.TIERS) == pytest.approx(1)
    assert all(every[tier] > 0 for tier in cache_replay.TIERS), "some kernels were cold"
    assert len(found["phases"]) == SMALL.phases
    assert found["warming"]["gain"] > 0
    assert "claimed" in "\n".join(cache_replay.lines(found))


def test_a_frozen_redis_is_waited_for_once_and_found_again(site: Site) -> None:
    (found,) = in_fresh_process(cache_faults.freeze, site, 1)

    assert found["first_ms"] > found["before_ms"]
    assert found["following_p50_ms"] < found["first_ms"]
    assert 0 <= found["recovery_s"] < 30
