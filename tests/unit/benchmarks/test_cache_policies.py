"""The comparison of policies: made traces are what they say, and so are the policies that are only simulated."""

import statistics

import pytest

from benchmarks import cache_policies
from benchmarks.cache_policies import Belady, Sketch, WTinyLfu
from benchmarks.cache_trace_kinds import LARGEST, READS, SMALLEST, TUNED, UNTUNED, made
from benchmarks.cache_traces import Request, replay, replay_over

MIB = 1 << 20


def reads(keys: str, size: int = 10) -> list[Request]:
    return [Request("GET", key, size) for key in keys]


@pytest.mark.parametrize("kind", [*TUNED, *UNTUNED])
def test_a_trace_is_the_same_for_a_seed_and_needs_more_than_the_largest_cache(kind):
    trace = made(kind, 1)
    sizes = {request.key: request.size for request in trace}

    assert trace == made(kind, 1)
    assert kind == "loop" or trace != made(kind, 2)
    assert len(trace) == READS
    assert all(sizes[request.key] == request.size for request in trace)
    assert SMALLEST <= min(sizes.values()) <= max(sizes.values()) <= LARGEST
    assert sum(sizes.values()) > 512 * MIB


def test_belady_keeps_what_is_read_next():
    trace = reads("abcdefghiabcdefgh")  # i is not read again: it never comes in
    assert replay_over(Belady(80, trace), trace).hits == [False] * 9 + [True] * 8


def test_nobody_hits_more_often_than_belady_where_all_sizes_are_equal():
    trace = made("even", 1)[:5_000]
    best = replay_over(Belady(64 * MIB, trace), trace).by_objects()
    others = [replay(trace, capacity=64 * MIB, policy=policy).by_objects() for policy in cache_policies.POLICIES]
    others.append(replay_over(WTinyLfu(64 * MIB), trace).by_objects())
    assert max(others) < best


def test_w_tinylfu_lets_nobody_in_who_is_read_less_often_than_who_would_leave():
    often, once = [f"often {key}" for key in range(8)], [f"once {key}" for key in range(50)]
    trace = [Request("GET", key, 12) for key in [*often * 5, *once, *often]]
    assert replay_over(WTinyLfu(100), trace).hits[-8:] == [True] * 8


def test_the_counters_of_the_sketch_end_at_15_and_are_halved():
    sketch = Sketch()
    for _ in range(999):
        sketch.count("a", entries=100)
    assert sketch.frequency("a") == 15
    sketch.count("a", entries=100)
    assert sketch.frequency("a") == 7


def test_the_row_is_the_mean_of_the_seeds_at_the_worst_size():
    found = {"above_s3fifo": {"64": [0.04, 0.02], "256": [0.05, -0.03], "512": [0.1, 0.1]}}
    row = cache_policies.measurements(found)[cache_policies.HELD_TO]
    assert row.value == pytest.approx(statistics.fmean([0.05, -0.03]))
    assert row.n == 2
