"""Counters and latencies of one process: what snapshots promise, and that threads and forks lose and double nothing."""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.kernels.cache import stats
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.stats import BOUNDS, COUNTERS, NANOSECONDS, SIZE_CLASSES, Snapshot, bucket_limits

KIB, MIB = 1 << 10, 1 << 20

keys = st.tuples(
    st.sampled_from([str(tier) for tier in TierName]),
    st.integers(0, len(SIZE_CLASSES) - 1),
    st.one_of(st.sampled_from([*COUNTERS, NANOSECONDS]), st.integers(0, len(BOUNDS))),
)
snapshots = st.dictionaries(keys, st.integers(0, 10**12), max_size=20).map(Snapshot)
latencies = st.lists(st.floats(1e-7, 9.9), min_size=1, max_size=60)


def counted_by(act: Callable[[], object]) -> Snapshot:
    before = stats.process()
    act()
    return stats.process() - before


def observed(seconds: list[float]) -> Snapshot:
    def observe_all() -> None:
        for value in seconds:
            stats.observe(TierName.L2, size=KIB, seconds=value, bytes=1)

    return counted_by(observe_all)


# --- Snapshots


@given(snapshots, snapshots, snapshots)
def test_adding_up_is_the_same_in_any_order_and_nothing_adds_nothing(a: Snapshot, b: Snapshot, c: Snapshot) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Snapshot() == a


@given(snapshots, snapshots)
def test_the_difference_is_what_was_added(a: Snapshot, b: Snapshot) -> None:
    assert (a + b) - a == b
    assert not a - a
    assert a + (b - a) == b


@given(snapshots, snapshots)
def test_a_total_of_both_is_the_total_of_each(a: Snapshot, b: Snapshot) -> None:
    both = a + b

    for what in (*COUNTERS, 7):
        assert both.total(what) == a.total(what) + b.total(what)
        assert both.total(what) == sum(both.total(what, tier) for tier in TierName)
        assert both.total(what, "l2") == sum(both.total(what, "l2", at) for at in range(len(SIZE_CLASSES)))


def test_the_hit_rate_is_of_the_reads_that_came_as_far() -> None:
    counts = Snapshot({("l1", 0, "hits"): 3, ("l1", 1, "misses"): 1, ("l2", 0, "hits"): 1, ("l2", 0, "errors"): 5})

    assert counts.hit_rate("l1") == 0.75
    assert counts.hit_rate("l1", 0) == 1.0
    assert counts.hit_rate("l2") == 1.0
    assert counts.hit_rate("l3") is None
    assert counts.answered_by(["l1"]) == 0.75
    assert counts.answered_by(["l1", "l2"]) == 1.0
    assert Snapshot().answered_by(["l1"]) is None


# --- Latencies


def test_no_reads_have_no_percentile() -> None:
    assert Snapshot().percentile(0.99) is None
    assert Snapshot({("l1", 0, "hits"): 3}).percentile(0.5) is None


@given(latencies, st.floats(0.01, 1.0))
def test_a_percentile_lies_in_the_bucket_of_the_read_at_that_rank(seconds: list[float], share: float) -> None:
    rank = min(int(-(-share * len(seconds) // 1)), len(seconds))
    true = sorted(seconds)[max(rank, 1) - 1]

    found = observed(seconds).percentile(share, "l2", 0)

    low, high = bucket_limits(bisect_left(BOUNDS, true))
    assert found is not None
    assert low <= found <= high * (1 + 1e-9)


@given(latencies)
def test_percentiles_grow_with_the_share(seconds: list[float]) -> None:
    counts = observed(seconds)

    found = [counts.percentile(share) or 0.0 for share in (0.1, 0.5, 0.95, 0.99, 1.0)]

    assert found == sorted(found)


def test_a_percentile_is_at_most_a_fifth_off() -> None:
    assert max(later / earlier for earlier, later in pairwise(BOUNDS)) < 1.22
    assert (BOUNDS[0], BOUNDS[-1]) == pytest.approx((1e-6, 10.0))


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 0.0), (1e-9, 0.0), (3600.0, 10.0)])
def test_what_is_out_of_range_is_in_the_first_or_the_last_bucket(seconds: float, expected: float) -> None:
    assert observed([seconds]).percentile(0.0) == pytest.approx(expected)


# --- Counting


def test_a_read_is_observed_with_its_bytes_its_time_and_the_class_of_the_blob() -> None:
    counts = counted_by(lambda: stats.observe(TierName.L3, size=5 * MIB, seconds=0.25, bytes=4 * MIB))

    assert counts.total("bytes", "l3", SIZE_CLASSES.index("16MiB")) == counts.total("bytes") == 4 * MIB
    assert sum(counts.buckets("l3", SIZE_CLASSES.index("16MiB"))) == sum(counts.buckets()) == 1
    assert counts.seconds("l3") == 0.25
    assert counts.percentile(0.5, "l3") == pytest.approx(0.25, rel=0.21)


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (1, "64KiB"),
        (64 * KIB, "64KiB"),
        (64 * KIB + 1, "512KiB"),
        (512 * KIB, "512KiB"),
        (4 * MIB, "4MiB"),
        (16 * MIB, "16MiB"),
        (16 * MIB + 1, "64MiB"),
        (64 * MIB, "64MiB"),
        (None, "unknown"),
    ],
)
def test_the_size_class_is_of_the_whole_blob(size: int | None, name: str) -> None:
    counts = counted_by(lambda: stats.count(TierName.L1, "evictions", size=size, n=2))

    assert counts == Snapshot({("l1", SIZE_CLASSES.index(name), "evictions"): 2})


def test_threads_lose_no_count_also_when_they_have_ended() -> None:
    threads, each = 8, 5_000
    at_once = threading.Barrier(threads)

    def work() -> None:
        at_once.wait(timeout=30)
        for _ in range(each):
            stats.count(TierName.L1, "misses", size=1)

    def run() -> None:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            stats.process()  # reading beside them disturbs nobody
        for worker in workers:
            worker.join()

    assert counted_by(run).total("misses", "l1") == threads * each


def test_the_counts_of_ended_threads_are_kept_in_one_place() -> None:
    for _ in range(50):
        thread = threading.Thread(target=stats.count, args=(TierName.L1, "fills"), kwargs={"size": 1})
        thread.start()
        thread.join()

    stats.process()

    assert len(stats._counted._threads) <= threading.active_count()


def test_a_forked_child_starts_at_zero_and_its_parent_keeps_what_it_has() -> None:
    stats.count(TierName.L1, "promotions", size=1)
    before = stats.process()
    told, tells = os.pipe()

    with stats._counted._lock:  # held by another thread at the moment of the fork, as far as the child can see
        child = os.fork()
        if child == 0:
            inherited = bool(stats.process())
            stats.count(TierName.L1, "promotions", size=1)
            right = not inherited and stats.process() == Snapshot({("l1", 0, "promotions"): 1})
            os.write(tells, b"right" if right else b"wrong")
            os._exit(0)

    os.waitpid(child, 0)
    assert os.read(told, 10) == b"right"
    assert stats.process() == before


def test_a_gauge_is_asked_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [1]
    monkeypatch.setitem(stats.gauges, "l1", lambda: {"entries": len(entries)})
    entries.append(2)

    assert stats.read_gauges()["l1"] == {"entries": 2}
