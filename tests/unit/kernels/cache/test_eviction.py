"""Who leaves L1: S3-FIFO as the paper has it, cost-aware by what is saved, and no policy loses an entry."""

import random
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.kernels.cache.config import POLICIES as NAMES
from apps.kernels.cache.eviction import cost_aware
from apps.kernels.cache.memory import MemoryCache

BUDGET = 800
LARGEST = BUDGET // 8
READS = st.lists(st.integers(0, 60), max_size=400)
SIZES = {key: 1 + (key * 37) % LARGEST for key in range(61)}
CHANGES = st.lists(st.tuples(st.sampled_from(["read", "read", "put", "remove"]), st.integers(0, 60)), max_size=300)


class PlainS3Fifo:
    """The algorithm of the paper (Yang et al., SOSP 2023) written plainly, with bytes where it counts objects: a small
    queue of a tenth, out of which goes to main what was read more than once; frequencies up to 3, cleared on the way;
    ghosts of nine tenths."""

    def __init__(self) -> None:
        self.small: deque[int] = deque()
        self.main: deque[int] = deque()
        self.ghost: deque[int] = deque()
        self.frequency: dict[int, int] = {}

    def read(self, key: int) -> bool:
        if key in self.frequency:
            self.frequency[key] = min(self.frequency[key] + 1, 3)
            return True
        while self.bytes(self.small) + self.bytes(self.main) + SIZES[key] > BUDGET:
            if self.bytes(self.small) > BUDGET // 10 or not self.main:
                self.evict_small()
            else:
                self.evict_main()
        if key in self.ghost:
            self.ghost.remove(key)
            self.main.appendleft(key)
        else:
            self.small.appendleft(key)
        self.frequency[key] = 0
        return False

    def evict_small(self) -> None:
        key = self.small.pop()
        if self.frequency[key] > 1:
            self.main.appendleft(key)
            self.frequency[key] = 0
            return
        del self.frequency[key]
        self.ghost.appendleft(key)
        while self.bytes(self.ghost) > BUDGET - BUDGET // 10:
            self.ghost.pop()

    def evict_main(self) -> None:
        key = self.main.pop()
        if self.frequency[key] > 0:
            self.frequency[key] -= 1
            self.main.appendleft(key)
        else:
            del self.frequency[key]

    @staticmethod
    def bytes(queue: deque[int]) -> int:
        return sum(SIZES[key] for key in queue)


def read(cache: MemoryCache, key: int, *, cost: float = 0.01) -> bool:
    """Whether it hit; stored if not."""
    if cache.get(key) is not None:
        return True
    cache.put(key, key + 1, size=SIZES[key], cost=cost)
    return False


@given(reads=READS)
def test_s3_fifo_hits_exactly_where_the_algorithm_of_the_paper_does(reads):
    cache, paper = MemoryCache(BUDGET, "s3-fifo"), PlainS3Fifo()
    assert [read(cache, key) for key in reads] == [paper.read(key) for key in reads]


def test_s3_fifo_hits_where_the_paper_does_on_a_long_trace():
    chance = random.Random(4)
    reads = [min(int(chance.paretovariate(0.7)), 60) for _ in range(5_000)]
    cache, paper = MemoryCache(BUDGET, "s3-fifo"), PlainS3Fifo()
    assert [read(cache, key) for key in reads] == [paper.read(key) for key in reads]


@pytest.mark.parametrize("name", NAMES)
@given(changes=CHANGES)
def test_a_policy_knows_exactly_what_the_cache_holds(name, changes):
    cache = MemoryCache(BUDGET, name)
    for change, key in changes:
        if change == "read":
            read(cache, key)
        elif change == "put":
            cache.put(key, key + 1, size=SIZES[key], cost=0.01)
        else:
            cache.remove(key)

        assert sorted(entry.key for entry in known(cache)) == sorted(cache.held())
        if name == "cost-aware":
            assert [entry.place for entry in known(cache)] == list(range(len(known(cache))))


def known(cache: MemoryCache) -> list:
    """The entries in the structures of the policy."""
    policy = cache._policy
    if cache.policy == "cost-aware":
        return policy._entries
    if cache.policy == "lru":
        return list(policy._order.values())
    assert policy._small_bytes == sum(entry.size for entry in policy._small.values())
    assert policy._ghost_bytes == sum(policy._ghosts.values()) <= BUDGET
    return [*policy._small.values(), *policy._main.values()]


def test_what_is_often_read_outlives_a_sweep_that_is_ten_times_the_cache():
    cache = MemoryCache(8_000, "cost-aware")
    for _ in range(50):
        for key in range(4):
            if cache.get(key) is None:
                cache.put(key, key + 1, size=1_000, cost=0.01)
    for key in range(100, 180):
        cache.put(key, key, size=1_000, cost=0.01)
    assert all(cache.has(key) for key in range(4))


def test_what_was_popular_once_makes_room_for_what_is_read_now():
    cache = MemoryCache(8_000, "cost-aware")
    for key in list(range(8)) * 200:
        if cache.get(key) is None:
            cache.put(key, key + 1, size=1_000, cost=0.01)
    for key in list(range(100, 108)) * 2_000:
        if cache.get(key) is None:
            cache.put(key, key + 1, size=1_000, cost=0.01)
    assert set(cache.held()) == set(range(100, 108))


def test_one_fetch_that_was_slow_by_chance_counts_a_few_times_at_most():
    cache = MemoryCache(BUDGET, "cost-aware")
    for key in range(8):
        cache.put(key, key + 1, size=LARGEST, cost=1_000.0 if key == 5 else 0.01)
    slow, usual = cache._entries[5], cache._entries[6]
    assert 1 < slow.saved / usual.saved <= cost_aware.FURTHEST_COST


def test_the_memory_of_what_left_is_bounded():
    cache = MemoryCache(BUDGET, "cost-aware")
    for key in range(3 * cost_aware.FEWEST_GHOSTS):
        cache.put(key, key, size=LARGEST, cost=0.01)
    assert len(cache._policy._ghosts) == cost_aware.FEWEST_GHOSTS


@pytest.mark.parametrize("name", NAMES)
def test_four_threads_never_see_a_byte_above_the_budget_nor_another_keys_value(name):
    cache, seen = MemoryCache(BUDGET, name), []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(4_000):
            key = chance.randrange(60)
            value = cache.get(key)
            if value not in (None, key + 1):
                seen.append(f"{value} under {key}")
            if value is None:
                cache.put(key, key + 1, size=SIZES[key], cost=0.01)
            if chance.random() < 0.05:
                cache.remove(key)
            if (found := cache.statistics().bytes) > BUDGET:
                seen.append(f"{found} bytes")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == []
    found = cache.statistics()
    assert found.hits + found.misses == 4 * 4_000
    assert found.bytes == sum(entry.size for entry in known(cache))
    assert sorted(entry.key for entry in known(cache)) == sorted(cache.held())
