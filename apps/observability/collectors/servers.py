"""Both Redis servers, by INFO, and the queues that lie in the broker's."""

import json
import time
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django_redis import get_redis_connection
from prometheus_client.core import Metric

from apps.core import heartbeats
from apps.core.task_metrics import SENT_AT
from apps.observability.collectors.families import families

SERVERS = {"cache": "default", "broker": "throttle"}
"""What it is for -> its name among Django's caches."""


def told() -> Iterable[Metric]:
    """Raises RedisError: one does not answer. The other is told in that case by nobody: both are needed for work."""
    info = {(server,): get_redis_connection(alias).info() for server, alias in SERVERS.items()}
    return families(
        {
            "esper_redis_memory_bytes": {server: it["used_memory"] for server, it in info.items()},
            "esper_redis_memory_used_ratio": {server: _used(it) for server, it in info.items()},
            "esper_redis_clients": {server: it["connected_clients"] for server, it in info.items()},
            "esper_redis_commands_total": {server: it["total_commands_processed"] for server, it in info.items()},
            "esper_redis_evictions_total": {server: it["evicted_keys"] for server, it in info.items()},
        }
    )


def queues() -> Iterable[Metric]:
    """Two round trips. Raises RedisError."""
    names = settings.REQUIRED_QUEUES
    pipeline = get_redis_connection("throttle").pipeline(transaction=False)
    for name in names:
        pipeline.llen(name)
        pipeline.lindex(name, -1)  # workers take from the right
    answers = pipeline.execute()
    lengths, oldest = answers[::2], answers[1::2]
    silent = heartbeats.silent_queues(names)
    now = time.time()
    return families(
        {
            "esper_queue_messages": {(name,): length for name, length in zip(names, lengths, strict=True)},
            "esper_queue_oldest_age_seconds": {
                (name,): _age(message, now) for name, message in zip(names, oldest, strict=True)
            },
            "esper_queue_served": {(name,): name not in silent for name in names},
        }
    )


def _used(info: dict[str, Any]) -> float | None:
    limit = info.get("maxmemory") or info.get("total_system_memory")
    return info["used_memory"] / limit if limit else None


def _age(message: bytes | None, now: float) -> float | None:
    """Seconds since the message was sent; None: it does not say, or is no message of ours."""
    if message is None:
        return 0.0
    try:
        return max(0.0, now - float(json.loads(message)["headers"][SENT_AT]))
    except (ValueError, KeyError, TypeError):
        return None
