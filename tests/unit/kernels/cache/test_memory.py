"""L1: never above its budget, true counts, each policy, and healthy after a fork."""

import os
import threading
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.kernels.cache.config import POLICIES as NAMES
from apps.kernels.cache.eviction import POLICIES
from apps.kernels.cache.memory import MemoryCache, MemoryTier
from apps.kernels.cache.segments import CorruptSegment, Segment

BUDGET = 800
LARGEST = BUDGET // 8
CHILDREN = 200
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["get", "get", "put", "remove"]), st.integers(0, 40), st.integers(1, LARGEST + 5)),
    max_size=200,
)


def test_every_policy_of_the_settings_is_there():
    assert tuple(POLICIES) == NAMES


@pytest.mark.parametrize("policy", NAMES)
@given(operations=OPERATIONS)
@settings(max_examples=60, deadline=None)
def test_the_budget_and_the_counts_hold_whatever_is_done(policy, operations):
    cache = MemoryCache(BUDGET, policy)
    hits = misses = taken = refused = 0
    for operation, key, size in operations:
        if operation == "get":
            value = cache.get(key)
            assert value is None or value[0] == key
            hits, misses = hits + (value is not None), misses + (value is None)
        elif operation == "put":
            took = cache.put(key, (key, size), size=size, cost=0.01)
            assert cache.has(key) == took
            assert not (took and size > LARGEST)
            taken, refused = taken + took, refused + (not took)
        else:
            cache.remove(key)
            assert not cache.has(key)
        found = cache.statistics()
        held = [cache._entries[held_key].value for held_key in cache.held()]
        assert found.bytes == sum(held_size for _, held_size in held) <= BUDGET
        assert (found.hits, found.misses, found.insertions, found.rejected) == (hits, misses, taken, refused)
        assert found.entries == len(held)


@given(operations=OPERATIONS)
@settings(max_examples=100, deadline=None)
def test_lru_is_an_exact_lru_of_bytes(operations):
    cache, model = MemoryCache(BUDGET, "lru"), OrderedDict()
    for operation, key, size in operations:
        if operation == "get":
            assert (cache.get(key) is not None) == (key in model)
            if key in model:
                model.move_to_end(key)
            continue
        model.pop(key, None)
        if operation == "remove":
            cache.remove(key)
            continue
        cache.put(key, size, size=size, cost=1)
        if size <= LARGEST:
            while sum(model.values()) + size > BUDGET:
                model.popitem(last=False)
            model[key] = size
    assert set(cache.held()) == set(model)


def test_what_is_dearer_to_fetch_stays_when_all_else_is_equal():
    cache = MemoryCache(BUDGET, "cost-aware")
    for key in range(8):
        cache.put(key, key, size=LARGEST, cost=1.0 if key else 0.001)
    assert cache.put("newcomer", 1, size=LARGEST, cost=1.0)
    assert not cache.has(0)


def test_a_corrupt_segment_is_removed_and_told():
    tier = MemoryTier(1 << 20, "lru")
    tier.put("d", 0, Segment(b"changed", 7, Segment.of(b"as was.", blob_size=7).digests), cost=0.1)
    with pytest.raises(CorruptSegment):
        tier.get("d", 0)
    assert tier.get("d", 0) is None


def test_a_blob_above_an_eighth_stays_out_though_its_segments_are_small():
    tier = MemoryTier(BUDGET, "lru")
    assert not tier.put("d", 0, Segment.of(b"x", blob_size=LARGEST + 1), cost=0.1)
    assert tier.put("e", 0, Segment.of(b"x", blob_size=LARGEST), cost=0.1)
    assert tier.digests() == {"e"}
    tier.drop("e")
    assert tier.digests() == set()


@pytest.mark.parametrize("policy", NAMES)
def test_children_forked_while_four_threads_churn_are_all_healthy(policy):
    cache, stop = MemoryCache(BUDGET, policy), threading.Event()

    def churn(seed: int) -> None:
        number = seed
        while not stop.is_set():
            number = (number * 1103515245 + 12345) % (1 << 31)
            cache.put(number % 50, 1, size=1 + number % LARGEST, cost=0.01)
            cache.get(number % 47)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        codes = [_exit_code_of_a_child(cache) for _ in range(CHILDREN // len(NAMES) + 1)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(codes) == {0}


def _exit_code_of_a_child(cache: MemoryCache) -> int:
    child = os.fork()
    if child == 0:
        free = cache._lock.acquire(timeout=2)
        if not free:
            os._exit(1)
        cache._lock.release()
        took = cache.statistics().bytes == 0 and cache.put("k", "v", size=1, cost=1)
        os._exit(0 if took and cache.get("k") == "v" else 2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
