"""L2 on a real Valkey: what is put comes back or is missing, leases let one load for all, and nothing stale is put."""

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from django.conf import settings as current

from apps.kernels.cache import clients
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.config import config
from apps.kernels.cache.remote import ABSENT, JITTER, RedisTier
from apps.kernels.cache.segments import SEGMENT_BYTES, CorruptSegment, Segment, TierAway
from tests.support.valkeys import running
from tests.support.waiting import wait_until

SMALL = random.Random(1).randbytes(10_000)
DIGEST = hashlib.sha256(SMALL).hexdigest()
SEGMENT = Segment.of(SMALL, blob_size=len(SMALL))


@pytest.fixture
def tier() -> Iterator[RedisTier]:
    clients.client().flushdb()
    yield RedisTier(Breaker("l2"))
    clients.client().flushdb()


def lease_of(tier: RedisTier, digest: str = DIGEST, index: int = 0) -> str:
    token = tier.acquire(digest, index)
    assert token is not None
    return token


# --- Values


def test_what_is_put_comes_back_whole(tier: RedisTier) -> None:
    assert tier.get(DIGEST, 0) is None
    assert tier.put(DIGEST, 0, SEGMENT)
    assert tier.get(DIGEST, 0) == SEGMENT


def test_segments_of_a_large_blob_are_values_of_their_own(tier: RedisTier) -> None:
    data = random.Random(2).randbytes(SEGMENT_BYTES + 700_000)
    digest = hashlib.sha256(data).hexdigest()
    parts = [Segment.of(data[start : start + SEGMENT_BYTES], blob_size=len(data)) for start in (0, SEGMENT_BYTES)]
    for index, part in enumerate(parts):
        assert tier.put(digest, index, part)
    assert [tier.get(digest, index) for index in range(3)] == [*parts, None]
    tier.drop(digest, blob_size=len(data))
    assert [tier.get(digest, index) for index in range(2)] == [None, None]


def test_values_expire_but_not_all_at_once(tier: RedisTier, configure: Callable[..., None]) -> None:
    configure(l2_ttl=100.0)
    left = []
    for _ in range(30):
        tier.put(DIGEST, 0, SEGMENT)
        left.append(clients.client().pttl(f"esper:k1:{{{DIGEST}}}") / 1000)
    assert all(100 * (1 - JITTER) - 1 <= seconds <= 100 * (1 + JITTER) for seconds in left)
    assert max(left) - min(left) > 1


def test_a_blob_above_the_limit_is_not_kept_and_its_lease_is_given_up(
    tier: RedisTier, configure: Callable[..., None]
) -> None:
    configure(l2_largest=len(SMALL) - 1)
    assert not tier.put(DIGEST, 0, SEGMENT, lease=lease_of(tier))
    assert tier.get(DIGEST, 0) is None
    assert tier.acquire(DIGEST, 0)


@pytest.mark.parametrize("garbage", [b"", b"garbage", SMALL])
def test_garbage_is_refused_and_dropped(tier: RedisTier, garbage: bytes) -> None:
    clients.client().set(f"esper:k1:{{{DIGEST}}}", garbage)
    with pytest.raises(CorruptSegment, match=DIGEST):
        tier.get(DIGEST, 0)
    assert tier.get(DIGEST, 0) is None


def test_a_value_of_another_type_is_refused_and_dropped(tier: RedisTier) -> None:
    clients.client().lpush(f"esper:k1:{{{DIGEST}}}", SMALL)
    with pytest.raises(CorruptSegment, match="type"):
        tier.get(DIGEST, 0)
    assert tier.get(DIGEST, 0) is None
    assert tier.breaker.state == "closed"


# --- Leases


def test_one_of_those_that_miss_gets_the_lease(tier: RedisTier) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda _: tier.acquire(DIGEST, 0), range(50)))
    assert sum(token is not None for token in tokens) == 1


def test_there_is_no_lease_for_what_is_there(tier: RedisTier) -> None:
    tier.put(DIGEST, 0, SEGMENT)
    assert tier.acquire(DIGEST, 0) is None


def test_the_holder_puts_and_gives_the_lease_up(tier: RedisTier) -> None:
    assert tier.put(DIGEST, 0, SEGMENT, lease=lease_of(tier))
    assert tier.get(DIGEST, 0) == SEGMENT
    assert not clients.client().exists(f"esper:k1:{{{DIGEST}}}:lease")


def test_what_was_loaded_before_the_blob_was_dropped_is_not_put_after(tier: RedisTier) -> None:
    token = lease_of(tier)
    tier.drop(DIGEST)
    assert not tier.put(DIGEST, 0, SEGMENT, lease=token)
    assert tier.get(DIGEST, 0) is None


def test_a_lease_that_was_given_up_lets_the_next_one_load(tier: RedisTier) -> None:
    tier.release(DIGEST, 0, lease_of(tier))
    assert tier.acquire(DIGEST, 0)


def test_what_its_url_says_of_time_limits_and_answers_is_for_others(configure: Callable[..., None]) -> None:
    """REDIS_URL, which it is by default, has other users."""
    url = current.KERNEL_CACHE["l2_url"]
    configure(l2_url=f"{url}?socket_timeout=600&decode_responses=true&client_name=esper", l2_timeout_ms=50.0)
    options = clients.client().connection_pool.connection_kwargs

    assert (options["socket_timeout"], options["decode_responses"]) == (0.05, False)
    assert options["client_name"] == "esper"


def test_the_shortest_lease_is_one_that_redis_knows(tier: RedisTier, configure: Callable[..., None]) -> None:
    configure(lease=0.0001)
    assert tier.acquire(DIGEST, 0)


def test_nobody_gives_up_the_lease_of_another(tier: RedisTier) -> None:
    lease_of(tier)
    tier.release(DIGEST, 0, "0" * 32)
    assert tier.acquire(DIGEST, 0) is None


def test_the_lease_of_a_holder_that_died_expires(tier: RedisTier, configure: Callable[..., None]) -> None:
    configure(lease=0.1)
    lost = lease_of(tier)
    wait_until(lambda: tier.acquire(DIGEST, 0), seconds=2)
    assert not tier.put(DIGEST, 0, SEGMENT, lease=lost)


def test_who_waits_gets_what_the_holder_puts(tier: RedisTier) -> None:
    token = lease_of(tier)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tier.wait, DIGEST, 0, time.monotonic() + 5)
        tier.put(DIGEST, 0, SEGMENT, lease=token)
        assert waiting.result() == SEGMENT


def test_who_waits_learns_that_the_holder_gave_up(tier: RedisTier) -> None:
    token = lease_of(tier)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tier.wait, DIGEST, 0, time.monotonic() + 5)
        tier.release(DIGEST, 0, token)
        assert waiting.result() is None


def test_nobody_waits_longer_than_told(tier: RedisTier) -> None:
    lease_of(tier)
    began = time.monotonic()
    assert tier.wait(DIGEST, 0, began + 0.05) is None
    assert 0.05 <= time.monotonic() - began < 0.5


def read_as_all_do(tier: RedisTier) -> bool:
    """Get the segment, loading it if nobody else does; whether the right one came."""
    while True:
        segment = tier.get(DIGEST, 0)
        if segment is not None:
            return segment == SEGMENT
        token = tier.acquire(DIGEST, 0)
        if token is not None:
            clients.client().incr("loads")
            return tier.put(DIGEST, 0, SEGMENT, lease=token)
        tier.wait(DIGEST, 0, time.monotonic() + 5)


def in_child(act: Callable[[], bool]) -> int:
    """The process id of a forked child, which says 0 when it ends if ``act`` returned True."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if act() else 1)
        finally:  # whatever it raised: the child must never go on as a second pytest
            os._exit(2)
    return child


def test_fifty_readers_in_five_processes_load_once(tier: RedisTier) -> None:
    def ten_readers() -> bool:
        with ThreadPoolExecutor(10) as pool:
            readings = [pool.submit(read_as_all_do, tier) for _ in range(10)]
            return all(reading.result() for reading in readings)

    children = [in_child(ten_readers) for _ in range(5)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 5
    assert clients.client().get("loads") == b"1"


# --- What is known to be nowhere


def test_that_there_are_no_such_bytes_is_remembered_for_a_short_while(
    tier: RedisTier, configure: Callable[..., None]
) -> None:
    configure(absent_ttl=0.1)
    assert tier.put_absent(DIGEST, 0, lease_of(tier))
    assert tier.get(DIGEST, 0) is ABSENT
    wait_until(lambda: tier.get(DIGEST, 0) is None, seconds=2)


def test_a_writer_puts_over_it(tier: RedisTier) -> None:
    tier.put_absent(DIGEST, 0, lease_of(tier))
    tier.put(DIGEST, 0, SEGMENT)
    assert tier.get(DIGEST, 0) == SEGMENT


def test_it_is_not_put_over_a_value(tier: RedisTier) -> None:
    token = lease_of(tier)
    tier.put(DIGEST, 0, SEGMENT)
    assert not tier.put_absent(DIGEST, 0, token)
    assert tier.get(DIGEST, 0) == SEGMENT


def test_it_is_not_put_after_the_blob_was_dropped(tier: RedisTier) -> None:
    token = lease_of(tier)
    tier.drop(DIGEST)
    assert not tier.put_absent(DIGEST, 0, token)
    assert tier.get(DIGEST, 0) is None


def test_dropping_forgets_it(tier: RedisTier) -> None:
    tier.put_absent(DIGEST, 15, lease_of(tier, index=15))
    tier.drop(DIGEST)
    assert tier.get(DIGEST, 15) is None


# --- A server that is full


def test_a_server_that_is_full_refuses_puts_and_leases_but_still_answers(
    tier: RedisTier, configure: Callable[..., None]
) -> None:
    with running("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as valkey:
        configure(l2_url=valkey.url)
        tier.put(DIGEST, 0, SEGMENT)
        other = replace(SEGMENT, data=bytes(len(SMALL)))
        token = lease_of(tier, "f" * 64)
        with valkey.client as client:
            client.config_set("maxmemory", "1mb")
        assert not tier.put("f" * 64, 0, other, lease=token)
        assert not tier.put("e" * 64, 0, other)
        with pytest.raises(TierAway, match="keeps nothing more"):
            tier.acquire("d" * 64, 0)
        assert not tier.put_absent("f" * 64, 0, token)
        assert tier.get(DIGEST, 0) == SEGMENT
        assert tier.breaker.state == "closed"
        with valkey.client as client:
            client.config_set("maxmemory", "0")
        assert tier.acquire("f" * 64, 0), "the lease of the put that was refused was given up"


def test_the_usage_of_the_server(tier: RedisTier, configure: Callable[..., None]) -> None:
    with running("--maxmemory", "32mb") as valkey:
        configure(l2_url=valkey.url)
        assert tier.usage().keys == 0
        tier.put(DIGEST, 0, SEGMENT)
        found = tier.usage()
    assert (found.keys, found.limit, found.evicted_keys) == (1, 32 << 20, 0)
    assert len(SMALL) < found.used < found.limit


# --- Clients


def test_clients_are_made_anew_when_the_settings_change(configure: Callable[..., None]) -> None:
    before = clients.client()
    assert clients.client() is before
    configure(l2_timeout_ms=config().l2_timeout_ms * 2)
    after = clients.client()
    assert after is not before
    assert after.connection_pool.connection_kwargs["socket_timeout"] == config().l2_timeout_ms / 1000


def test_the_writer_has_the_time_that_a_segment_takes(configure: Callable[..., None]) -> None:
    configure(l2_timeout_ms=50.0, l2_ms_per_mib=20.0)
    assert clients.client().connection_pool.connection_kwargs["socket_timeout"] == pytest.approx(0.05)
    assert clients.writer().connection_pool.connection_kwargs["socket_timeout"] == pytest.approx(0.13)


def test_a_forked_child_has_a_client_of_its_own_and_its_parent_keeps_its(tier: RedisTier) -> None:
    tier.put(DIGEST, 0, SEGMENT)
    before = clients.client().client_id()

    def reads_with_another_connection() -> bool:
        return clients.client().client_id() != before and tier.get(DIGEST, 0) == SEGMENT

    children = [in_child(reads_with_another_connection) for _ in range(5)]
    while children:
        assert tier.get(DIGEST, 0) == SEGMENT
        child, status = os.waitpid(children[-1], os.WNOHANG)
        if child:
            children.pop()
            assert status == 0
    assert clients.client().client_id() == before
