"""L2: copies in Redis or Valkey, which all processes share, and the leases under which one of them loads for all.

A lease ("Scaling Memcache at Facebook", Nishtala et al., NSDI 2013) is given to one of those that miss a segment at the
same time. It is for single flight: the others wait for what its holder puts. And it is against stale copies: ``drop``
takes all leases of the blob away, so what was loaded before it cannot be put after it. A holder that dies loses its
lease after ``ESPER_CACHE_LEASE`` seconds, and the next one loads.

Keys: ``esper:k1:{<sha256>}`` for the first segment, ``esper:k1:{<sha256>}:<index>`` for each other, and ``...:lease``
beside it. What is in the braces decides the slot in a cluster: all of a blob is on one node.
"""

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from redis.cluster import RedisCluster
from redis.exceptions import (
    ClusterDownError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
)

from apps.kernels.cache import clients
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.config import config
from apps.kernels.cache.frames import ABSENT, HEADER_BYTES, Absent, decode, encode, encode_absent
from apps.kernels.cache.segments import CorruptSegment, Segment, TierAway, TierName, segment_count
from apps.kernels.models.blobs import MAX_KERNEL_BYTES

__all__ = ["ABSENT", "Absent", "RedisTier", "Usage"]

Answer = TypeVar("Answer")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.05
JITTER = 0.1
"""The share by which a time to live differs: what was put together does not expire together."""

# KEYS: the value, its lease. ARGV: the token, milliseconds. Not given either while the value is there: whoever missed
# it before it came finds it now. A lease without an end is none of ours.
ACQUIRE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if redis.call('PTTL', KEYS[2]) == -1 then redis.call('DEL', KEYS[2]) end
return redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
# KEYS: the value, its lease. ARGV: the token, the value, milliseconds.
PUT_UNDER_LEASE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""
# As PUT_UNDER_LEASE, but for a value that is worth less than any other.
PUT_ABSENT = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local put = redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return put and 1 or 0
"""
# KEYS: the lease. ARGV: the token.
RELEASE = """
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
"""


class Fault(Enum):
    """What an error of the client means for the tier."""

    REFUSED = "refused"
    """The server is there, but keeps nothing more: a put fails, and the breaker stays as it is."""
    FAILED = "failed"
    """The server is not there, or not for us: nothing works, but it says so at once."""
    STALLED = "stalled"
    """As FAILED, and finding out took long: the breaker opens, so that the next caller does not wait as well."""


FAULTS: tuple[tuple[type[Exception], Fault], ...] = (
    (OutOfMemoryError, Fault.REFUSED),  # "OOM command not allowed": full, and told to evict nothing
    (TimeoutError, Fault.STALLED),
    (ClusterDownError, Fault.STALLED),  # the client waits a quarter of a second before it says so
    (RedisClusterException, Fault.STALLED),  # no node answered, or none has the slot; each was asked
    (RedisError, Fault.FAILED),  # refused connections; LOADING, READONLY, NOAUTH, MOVED in circles; broken protocol
    (OSError, Fault.FAILED),
    (UnicodeError, Fault.FAILED),  # hiredis, of an error message that is no text: not a Redis
)
"""The first one that fits counts."""
ERRORS = tuple(error for error, _ in FAULTS)


class _Refused(Exception):
    """Fault.REFUSED."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The memory of the server, or of all nodes of the cluster together, in bytes."""

    used: int
    limit: int
    """0: none is set."""
    evicted_keys: int
    """Since the server began."""
    keys: int
    """Of everybody who uses the server."""


class RedisTier:
    """L2. It tells apart what is not here (None) from what is known to be nowhere (ABSENT)."""

    name = TierName.L2

    def __init__(self, breaker: Breaker) -> None:
        self.breaker = breaker

    def get(self, digest: str, index: int) -> Segment | Absent | None:
        """Segment ``index``, verified; None: not here; ABSENT: lately no tier had it.

        Raises:
            TierAway. CorruptSegment: something else was in its place; it is dropped.
        """
        key = _key(digest, index)
        try:
            raw = self._ask(lambda: clients.client().get(key))
            if raw is None:
                return None
            if not isinstance(raw, bytes):
                raise CorruptSegment("an answer that is no string")
            return decode(digest, index, raw)
        except CorruptSegment as error:
            self._ask(lambda: clients.client().unlink(key))
            raise CorruptSegment(f"segment {index} of {digest} in Redis: {error}") from error

    def has(self, digest: str) -> bool:
        """Is the first segment here? Raises TierAway."""
        key = _key(digest, 0)
        try:
            return bool(self._ask(lambda: clients.client().strlen(key)) > HEADER_BYTES)  # ABSENT is a header alone
        except CorruptSegment:
            self._ask(lambda: clients.client().unlink(key))
            return False

    def acquire(self, digest: str, index: int) -> str | None:
        """The token of the lease to load the segment; None: another process has it, or what it loaded is here now.

        Raises:
            TierAway: also when the server is full: there can be no lease then, and waiting for a value is in vain.
        """
        token, milliseconds = secrets.token_hex(16), max(int(config().lease * 1000), 1)
        keys = (_key(digest, index), _lease(digest, index))
        try:
            given = self._ask(lambda: clients.client().eval(ACQUIRE, 2, *keys, token, milliseconds))
        except _Refused as error:
            raise TierAway(str(error)) from error
        return token if given == 1 else None

    def release(self, digest: str, index: int, token: str) -> None:
        """Give a lease up without a value: another process may load. Raises TierAway."""
        key = _lease(digest, index)
        self._ask(lambda: clients.client().eval(RELEASE, 1, key, token))

    def wait(self, digest: str, index: int, until: float) -> Segment | Absent | None:
        """What ``get`` says once the lease is given up or has expired, or at ``until`` (monotonic); raises as it."""
        key, pause = _lease(digest, index), SHORTEST_PAUSE
        while self._ask(lambda: clients.client().exists(key)):
            left = until - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
        return self.get(digest, index)

    def put(self, digest: str, index: int, segment: Segment, *, lease: str | None = None) -> bool:
        """Keep a copy, and give the lease up; whether it was taken.

        With a lease only while it is still held; without one always, for who wrote the blob and knows that it is there.
        Not taken are blobs above ``ESPER_CACHE_L2_LARGEST``, and any by a server that is full.

        Raises:
            TierAway.
        """
        taken = segment.blob_size <= config().l2_largest and self._set(
            digest, index, encode(digest, index, segment), ttl=config().l2_ttl, lease=lease
        )
        if not taken and lease is not None:
            self.release(digest, index, lease)
        return taken

    def put_absent(self, digest: str, index: int, lease: str) -> bool:
        """Remember for a short while that no tier has the segment, if the lease is still held. Raises TierAway."""
        keys = (_key(digest, index), _lease(digest, index))
        value, milliseconds = encode_absent(digest, index), _milliseconds(config().absent_ttl)
        try:
            return bool(self._ask(lambda: clients.client().eval(PUT_ABSENT, 2, *keys, lease, value, milliseconds)))
        except _Refused:
            self.release(digest, index, lease)
            return False

    def drop(self, digest: str, *, blob_size: int = MAX_KERNEL_BYTES) -> None:
        """Forget every segment of the blob, that it is absent, and the leases to load it. Raises TierAway."""
        indexes = range(segment_count(blob_size))
        keys = [name(digest, index) for index in indexes for name in (_key, _lease)]
        self._ask(lambda: clients.client().unlink(*keys))

    def tell(self, stream: str, event: dict[str, str], *, kept: int) -> None:
        """Add an entry to a stream that keeps about the last ``kept``. Raises TierAway."""
        try:
            self._ask(lambda: clients.client().xadd(stream, dict(event), maxlen=kept, approximate=True))
        except (_Refused, CorruptSegment) as error:
            raise TierAway(str(error)) from error

    def usage(self) -> Usage:
        """Raises TierAway."""
        nodes = self._ask(_infos)
        return Usage(
            used=sum(node["used_memory"] for node in nodes),
            limit=sum(node["maxmemory"] for node in nodes),
            evicted_keys=sum(node["evicted_keys"] for node in nodes),
            keys=sum(part["keys"] for node in nodes for name, part in node.items() if _is_database(name, part)),
        )

    def _set(self, digest: str, index: int, value: bytes, *, ttl: float, lease: str | None) -> bool:
        keys, milliseconds = (_key(digest, index), _lease(digest, index)), _milliseconds(ttl)

        def write() -> Any:
            if lease is None:
                return clients.writer().set(keys[0], value, px=milliseconds)
            return clients.writer().eval(PUT_UNDER_LEASE, 2, *keys, lease, value, milliseconds)

        try:
            return bool(self._ask(write))
        except _Refused:
            return False

    def _ask(self, command: Callable[[], Answer]) -> Answer:
        """What the server answers; the breaker learns how it went. An answer that came too late counts as a failure.

        Raises:
            TierAway, _Refused. CorruptSegment: the key holds a value of another type.
        """
        if not self.breaker.allows():
            raise TierAway(f"Redis failed {self.breaker.seconds_since_change:.0f} s ago")
        began = time.perf_counter()
        try:
            answer = command()
        except ERRORS as error:
            if isinstance(error, ResponseError) and str(error).startswith("WRONGTYPE"):
                self.breaker.succeeded()
                raise CorruptSegment("a value of another type") from error
            fault = next(fault for kind, fault in FAULTS if isinstance(error, kind))
            if fault is Fault.REFUSED:
                self.breaker.succeeded()
                raise _Refused(f"Redis keeps nothing more: {error}") from error
            self.breaker.failed(was_timeout=fault is Fault.STALLED)
            raise TierAway(f"Redis does not answer: {error}") from error
        if time.perf_counter() - began > clients.longest_seconds():
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        return answer


def _infos() -> list[dict[str, Any]]:
    """INFO of the server, or of each node that has keys of its own."""
    client = clients.client()
    if isinstance(client, RedisCluster):
        return list(client.info(target_nodes=RedisCluster.PRIMARIES).values())
    return [client.info()]


def _is_database(name: str, part: Any) -> bool:
    """ "db0" and its like in INFO."""
    return name.startswith("db") and isinstance(part, dict) and "keys" in part


def _key(digest: str, index: int) -> str:
    return f"esper:k1:{{{digest}}}:{index}" if index else f"esper:k1:{{{digest}}}"


def _lease(digest: str, index: int) -> str:
    return f"{_key(digest, index)}:lease"


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * random.uniform(1 - JITTER, 1 + JITTER) * 1000), 1)  # noqa: S311 - no secret
