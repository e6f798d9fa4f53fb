"""The clients of L2: of one Redis or Valkey, or of a cluster, never waited for longer than the settings allow.

redis-py and not django-redis, which has no code for clusters, and no second time limit for the same server.

- One attempt: redis-py's default of ten retries makes one GET on a frozen server take seconds.
- The time limit of a client is that of each wait: for a connection, for all of a command to be sent, and for more of
  the answer to come. So reading a large value needs no allowance, and sending one does; and a server that dribbles
  never reaches it, which is why whoever calls looks at the clock as well (``longest_seconds``).
- RESP 2: with RESP 3 redis-py keeps a connection on which an unexpected answer lies, for it may be a notification; here
  it would be the answer to another question.
- A cluster client finds out where the keys are before its first command, and again after each failure: one more limit
  for each node that does not answer.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.core.signals import setting_changed
from django.dispatch import receiver
from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry

from apps.kernels.cache.config import config
from apps.kernels.cache.segments import SEGMENT_BYTES

Client = Any
"""``Redis`` or ``RedisCluster``, whose common commands have no common type."""

READ_BYTES = 1 << 18
"""What one read of the socket may take: with redis-py's 64 KiB, 4 MiB are 64 of them."""


def client() -> Client:
    """For whatever is small to send. Raises RedisClusterException: no node of the cluster answers."""
    return _client(config().l2_timeout_ms / 1000)


def writer() -> Client:
    """For sending up to one segment. Raises as ``client``."""
    return _client(longest_seconds())


def longest_seconds() -> float:
    """What a server that is well needs at most for one command, be it with a whole segment."""
    found = config()
    return (found.l2_timeout_ms + found.l2_ms_per_mib * SEGMENT_BYTES / (1 << 20)) / 1000


def waiter(seconds: float) -> Client:
    """For commands that may block for ``seconds``. Raises as ``client``."""
    return _client(config().l2_timeout_ms / 1000 + seconds)


@lru_cache(maxsize=3)
def _client(seconds: float) -> Client:
    found = config()
    # A bare connection has nothing to tell about itself: ``driver_info`` would cost two more answers each.
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": found.l2_timeout_ms / 1000,
        "socket_read_size": READ_BYTES,
        "health_check_interval": 0,
        "protocol": 2,
        "decode_responses": False,
        "driver_info": None,
        "retry": Retry(NoBackoff(), 0),
    }
    if found.l2_cluster:
        return RedisCluster.from_url(_url_without(options), require_full_coverage=False, **options)
    return Redis.from_url(_url_without(options), **options)


def _url_without(options: Mapping[str, Any]) -> str:
    """The URL of L2; what it says of ``options``, for other users of the same URL, would count instead of them."""
    parts = urlsplit(config().l2_url)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in options]
    return parts._replace(query=urlencode(kept)).geturl()


@receiver(setting_changed)
def _make_anew(*, setting: str, **kwargs: Any) -> None:
    if setting == "KERNEL_CACHE":
        _client.cache_clear()


# The child of a fork makes its own: a lock of the parent's may be held by a thread that the child does not have.
os.register_at_fork(after_in_child=_client.cache_clear)
