"""Signs of life of the Celery workers: each queue that is served has a key in the broker's Redis that soon expires.

Celery's own heart (every 2 s, in the worker's main process, also while a task runs) drives them, so that readiness can
be read in one round trip instead of a broadcast to all workers.
"""

import json
from collections.abc import Iterable
from typing import Any

import structlog
from celery.signals import celeryd_after_setup, heartbeat_sent
from django_redis import get_redis_connection
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

MAX_AGE_SECONDS = 15
KEY = "esper:worker:{queue}"

_served: dict[str, list[str]] = {}
"""Node name -> its queues, in this worker process."""


@celeryd_after_setup.connect(weak=False)
def remember_queues(sender: str, instance: Any, **kwargs: Any) -> None:
    _served[sender] = sorted(instance.app.amqp.queues.consume_from)


@heartbeat_sent.connect(weak=False)
def beat(sender: Any, **kwargs: Any) -> None:
    for node, queues in _served.items():
        try:
            show_life(node, queues)
        except (RedisError, OSError) as error:
            log.warning("heartbeat_lost", node=node, error=str(error))


def show_life(node: str, queues: Iterable[str]) -> None:
    """Raises RedisError."""
    pipeline = get_redis_connection("throttle").pipeline(transaction=False)
    for queue in queues:
        pipeline.set(KEY.format(queue=queue), json.dumps({"node": node}), ex=MAX_AGE_SECONDS)
    pipeline.execute()


def silent_queues(queues: Iterable[str]) -> list[str]:
    """Those that no worker has served for MAX_AGE_SECONDS. Raises RedisError."""
    names = list(queues)
    values = get_redis_connection("throttle").mget([KEY.format(queue=name) for name in names])
    return [name for name, value in zip(names, values, strict=True) if value is None]
