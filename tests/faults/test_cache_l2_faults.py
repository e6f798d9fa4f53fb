"""A Redis that is frozen, killed, restarted, flushed, or no Redis: right bytes, none, or a clear error, and soon."""

import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest
from django.conf import LazySettings

from apps.kernels.cache import clients
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.frames import encode
from apps.kernels.cache.remote import RedisTier
from apps.kernels.cache.segments import SEGMENT_BYTES, CorruptSegment, Segment, TierAway
from tests.support.valkeys import NODE_TIMEOUT_MS, SLOTS, Valkey, running, running_cluster
from tests.support.waiting import wait_until

TIMEOUT = 0.05
MARGIN = 0.1
"""What a busy machine may add to a time limit, in seconds."""
OPEN_SECONDS = 0.2

SMALL = random.Random(1).randbytes(100_000)
DIGEST = hashlib.sha256(SMALL).hexdigest()
SEGMENT = Segment.of(SMALL, blob_size=len(SMALL))
KEY = f"esper:k1:{{{DIGEST}}}"


@pytest.fixture(autouse=True)
def no_clients_are_left_over() -> Iterator[None]:
    yield
    clients._client.cache_clear()


@pytest.fixture
def tier_of(settings: LazySettings) -> Callable[..., RedisTier]:
    def make(url: str, *, cluster: bool = False) -> RedisTier:
        changes = {"l2_url": url, "l2_cluster": cluster, "l2_timeout_ms": TIMEOUT * 1000, "l2_ms_per_mib": 20.0}
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, **changes}
        return RedisTier(Breaker("l2", open_seconds=OPEN_SECONDS))

    return make


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with running() as valkey:
        yield valkey


@pytest.fixture
def valkey(server: Valkey) -> Iterator[Valkey]:
    """Empty at first, and well again in the end."""
    with server.client as client:
        client.flushall()
    yield server
    server.thaw()
    if server.process.poll() is not None:
        server.start()
    server.await_answers()


def seconds_until_away(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    with pytest.raises(TierAway):
        call()
    return time.perf_counter() - began


# --- One server


def test_a_frozen_server_is_waited_for_once(valkey: Valkey, tier_of: Callable[..., RedisTier]) -> None:
    tier = tier_of(valkey.url)
    tier.put(DIGEST, 0, SEGMENT)
    assert tier.get(DIGEST, 0) == SEGMENT
    valkey.freeze()
    assert TIMEOUT <= seconds_until_away(lambda: tier.get(DIGEST, 0)) < TIMEOUT + MARGIN
    calls: list[Callable[[], object]] = [
        lambda: tier.get(DIGEST, 0),
        lambda: tier.acquire(DIGEST, 0),
        lambda: tier.put(DIGEST, 0, SEGMENT),
        lambda: tier.put_absent(DIGEST, 0, "token"),
        lambda: tier.release(DIGEST, 0, "token"),
        lambda: tier.wait(DIGEST, 0, time.monotonic() + 5),
        lambda: tier.drop(DIGEST),
        tier.usage,
    ]
    assert sum(seconds_until_away(call) for call in calls) < TIMEOUT
    valkey.thaw()
    wait_until(lambda: tier.breaker.state == "half-open", seconds=2)
    assert tier.get(DIGEST, 0) == SEGMENT
    assert tier.breaker.state == "closed"


def test_a_frozen_server_that_nobody_is_connected_to_is_waited_for_once(
    valkey: Valkey, tier_of: Callable[..., RedisTier]
) -> None:
    tier = tier_of(valkey.url)
    valkey.freeze()
    assert TIMEOUT <= seconds_until_away(lambda: tier.get(DIGEST, 0)) < TIMEOUT + MARGIN


def test_sending_a_segment_to_a_frozen_server_takes_its_allowance_at_most(
    valkey: Valkey, tier_of: Callable[..., RedisTier]
) -> None:
    tier = tier_of(valkey.url)
    segment = Segment.of(bytes(SEGMENT_BYTES), blob_size=SEGMENT_BYTES)
    assert tier.put(DIGEST, 0, SEGMENT)
    valkey.freeze()
    allowed = TIMEOUT + 4 * 0.02
    assert TIMEOUT < seconds_until_away(lambda: tier.put("f" * 64, 0, segment)) < allowed + MARGIN


def test_a_late_answer_is_not_taken_for_that_to_another_question(
    valkey: Valkey, tier_of: Callable[..., RedisTier]
) -> None:
    other = Segment.of(b"other bytes", blob_size=11)
    other_digest = hashlib.sha256(other.data).hexdigest()
    tier = tier_of(valkey.url)
    tier.put(DIGEST, 0, SEGMENT)
    tier.put(other_digest, 0, other)
    valkey.freeze()
    seconds_until_away(lambda: tier.get(DIGEST, 0))
    valkey.thaw()
    wait_until(lambda: tier.breaker.state == "half-open", seconds=2)
    assert tier.get(other_digest, 0) == other
    assert tier.get(DIGEST, 0) == SEGMENT


def test_a_killed_server_is_away_at_once_and_a_new_one_is_found(
    valkey: Valkey, tier_of: Callable[..., RedisTier]
) -> None:
    tier = tier_of(valkey.url)
    tier.put(DIGEST, 0, SEGMENT)
    valkey.kill()
    for _ in range(8):
        assert seconds_until_away(lambda: tier.get(DIGEST, 0)) < TIMEOUT + MARGIN
    assert tier.breaker.opened == 1
    valkey.start()
    valkey.await_answers()
    wait_until(lambda: tier.breaker.state == "half-open", seconds=2)
    assert tier.get(DIGEST, 0) is None
    assert tier.put(DIGEST, 0, SEGMENT)
    assert tier.get(DIGEST, 0) == SEGMENT


def test_a_server_that_was_restarted_between_two_reads_is_only_empty(
    valkey: Valkey, tier_of: Callable[..., RedisTier]
) -> None:
    tier = tier_of(valkey.url)
    token = tier.acquire(DIGEST, 0)
    assert token
    valkey.restart()
    assert tier.get(DIGEST, 0) is None
    assert not tier.put(DIGEST, 0, SEGMENT, lease=token), "the lease is gone, and what it protected from may have been"
    assert tier.breaker.opened == 0


def test_a_flushed_server_is_only_empty(valkey: Valkey, tier_of: Callable[..., RedisTier]) -> None:
    tier = tier_of(valkey.url)
    tier.put(DIGEST, 0, SEGMENT)
    with valkey.client as client:
        client.flushall()
    assert tier.get(DIGEST, 0) is None


def test_the_value_of_another_key_is_never_given_out(valkey: Valkey, tier_of: Callable[..., RedisTier]) -> None:
    tier = tier_of(valkey.url)
    other = Segment.of(b"other bytes", blob_size=11)
    other_digest = hashlib.sha256(other.data).hexdigest()
    tier.put(other_digest, 0, other)
    with valkey.client as client:
        client.copy(f"esper:k1:{{{other_digest}}}", KEY)
    with pytest.raises(CorruptSegment, match="in the place of"):
        tier.get(DIGEST, 0)
    assert tier.get(DIGEST, 0) is None
    assert tier.get(other_digest, 0) == other


def test_a_flipped_bit_is_never_given_out(valkey: Valkey, tier_of: Callable[..., RedisTier]) -> None:
    tier = tier_of(valkey.url)
    tier.put(DIGEST, 0, SEGMENT)
    with valkey.client as client:
        byte = client.getrange(KEY, 5000, 5000)
        client.setrange(KEY, 5000, bytes([byte[0] ^ 1]))
    with pytest.raises(CorruptSegment, match="other bytes"):
        tier.get(DIGEST, 0)


def test_a_password_that_is_wrong_is_an_outage(valkey: Valkey, tier_of: Callable[..., RedisTier]) -> None:
    with valkey.client as client:
        client.config_set("requirepass", "secret")
        try:
            for url in (valkey.url, valkey.url.replace("//", "//:wrong@")):
                assert seconds_until_away(partial(tier_of(url).get, DIGEST, 0)) < TIMEOUT + MARGIN
        finally:
            client.config_set("requirepass", "")


def test_a_replica_that_takes_no_writes_is_an_outage(valkey: Valkey, tier_of: Callable[..., RedisTier]) -> None:
    tier = tier_of(valkey.url)
    with valkey.client as client:
        client.replicaof("127.0.0.1", "1")
        try:
            seconds_until_away(lambda: tier.put(DIGEST, 0, SEGMENT))
        finally:
            client.replicaof("NO", "ONE")


# --- No Redis at all


@contextmanager
def babbling(answer: bytes, *, pause: float = 0.0) -> Iterator[str]:
    """The URL of a server that says ``answer`` to whatever it is asked, in ten pieces, ``pause`` seconds apart."""
    over, size = threading.Event(), -(-len(answer) // 10)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):  # the client may have heard enough
                    while connection.recv(65536):
                        for start in range(0, len(answer), size):
                            over.wait(pause)
                            connection.sendall(answer[start : start + size])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
    clients._client.cache_clear()
    thread.join(timeout=5)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-\xff\xfe\r\n",
        b"$3\r\nabcdef",
        b"$99999999\r\nabc",
        b"$-7\r\n",
        b"*2\r\n$1\r\na\r\n:1\r\n",
        b"*1000\r\n",
        b":1\r\n",
        b"-LOADING the dataset\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-CLUSTERDOWN no\r\n",
        b"\0" * 100,
        b"$5\r\nhello\r\n" * 3,
    ],
)
def test_whatever_a_server_says_it_is_no_kernel(answer: bytes, tier_of: Callable[..., RedisTier]) -> None:
    with babbling(answer) as url:
        tier = tier_of(url)
        for _ in range(3):
            began = time.perf_counter()
            with pytest.raises((TierAway, CorruptSegment)):
                tier.get(DIGEST, 0)
            assert time.perf_counter() - began < 2 * TIMEOUT + MARGIN


def test_a_server_that_answers_in_dribs_is_left_alone_after_five_answers(tier_of: Callable[..., RedisTier]) -> None:
    value = encode(DIGEST, 0, SEGMENT)
    with babbling(b"$%d\r\n%s\r\n" % (len(value), value), pause=TIMEOUT / 2) as url:
        tier = tier_of(url)
        for _ in range(5):
            assert tier.get(DIGEST, 0) == SEGMENT
        assert seconds_until_away(lambda: tier.get(DIGEST, 0)) < TIMEOUT


# --- A cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Valkey]]:
    with running_cluster() as nodes:
        yield nodes


def owner(nodes: list[Valkey], digest: str) -> Valkey:
    """The node that has the keys of a blob."""
    with nodes[0].client as client:
        slot = client.execute_command("CLUSTER KEYSLOT", f"esper:k1:{{{digest}}}")
    return nodes[next(n for n in range(3) if slot < (n + 1) * SLOTS // 3)]


def test_a_cluster_keeps_blobs_on_all_its_nodes(cluster: list[Valkey], tier_of: Callable[..., RedisTier]) -> None:
    tier = tier_of(cluster[0].url, cluster=True)
    blobs: dict[str, list[Segment]] = {}
    for seed in range(6):
        data = random.Random(seed).randbytes(SEGMENT_BYTES + 50_000)
        parts = [data[:SEGMENT_BYTES], data[SEGMENT_BYTES:]]
        blobs[hashlib.sha256(data).hexdigest()] = [Segment.of(part, blob_size=len(data)) for part in parts]
    for digest, segments in blobs.items():
        for index, segment in enumerate(segments):
            token = tier.acquire(digest, index)
            assert token
            assert tier.acquire(digest, index) is None
            assert tier.put(digest, index, segment, lease=token)
    assert len({owner(cluster, digest).port for digest in blobs}) > 1
    assert tier.usage().keys == 2 * len(blobs)
    for digest, segments in blobs.items():
        assert [tier.get(digest, index) for index in range(2)] == segments
        tier.drop(digest)
        assert [tier.get(digest, index) for index in range(2)] == [None, None]
    late = tier.acquire(DIGEST, 0)
    assert late
    tier.drop(DIGEST)
    assert not tier.put(DIGEST, 0, SEGMENT, lease=late)


def test_a_frozen_node_is_waited_for_a_bounded_time(cluster: list[Valkey], tier_of: Callable[..., RedisTier]) -> None:
    tier = tier_of(cluster[0].url, cluster=True)
    tier.put(DIGEST, 0, SEGMENT)
    node = owner(cluster, DIGEST)
    node.freeze()
    try:
        assert seconds_until_away(lambda: tier.get(DIGEST, 0)) < 2 * TIMEOUT + MARGIN
        assert seconds_until_away(lambda: tier.get(DIGEST, 0)) < TIMEOUT
    finally:
        node.thaw()
    wait_until(lambda: _is_back(tier), seconds=10)


def test_a_frozen_cluster_is_waited_for_a_bounded_time(
    cluster: list[Valkey], tier_of: Callable[..., RedisTier]
) -> None:
    tier = tier_of(cluster[0].url, cluster=True)
    tier.put(DIGEST, 0, SEGMENT)
    for node in cluster:
        node.freeze()
    try:
        assert seconds_until_away(lambda: tier.get(DIGEST, 0)) < 4 * TIMEOUT + MARGIN
        assert seconds_until_away(lambda: tier.get(DIGEST, 0)) < TIMEOUT
    finally:
        for node in cluster:
            node.thaw()
    wait_until(lambda: _is_back(tier), seconds=10)


def test_a_cluster_that_lost_a_node_is_away_in_a_bounded_time(
    cluster: list[Valkey], tier_of: Callable[..., RedisTier]
) -> None:
    """The last test of the cluster: nothing brings the slots of the node back."""
    tier = tier_of(cluster[0].url, cluster=True)
    tier.put(DIGEST, 0, SEGMENT)
    node = owner(cluster, DIGEST)
    node.kill()
    assert seconds_until_away(lambda: tier.get(DIGEST, 0)) < 2 * TIMEOUT + MARGIN
    left = [other for other in cluster if other is not node]
    wait_until(
        lambda: all(other.cluster_info()["cluster_state"] == "fail" for other in left),
        seconds=10 * NODE_TIMEOUT_MS / 1000,
    )
    other_tier = tier_of(left[0].url, cluster=True)
    assert seconds_until_away(lambda: other_tier.get(DIGEST, 0)) < 0.25 + 3 * TIMEOUT + MARGIN
    assert seconds_until_away(lambda: other_tier.get(DIGEST, 0)) < TIMEOUT


def _is_back(tier: RedisTier) -> bool:
    try:
        return tier.get(DIGEST, 0) == SEGMENT
    except TierAway:
        return False
