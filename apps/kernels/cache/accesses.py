"""How often the bytes of a digest are read: counted in each process, added up in Redis, written in batches.

    may_keep = read(digest)    # at every read
    publish()                  # every few seconds, in each process that serves
    flush()                    # by beat
    score_now(BlobAccess.objects.filter(...))

An UPDATE for each read would rewrite an indexed row each time, and make a cached read wait for PostgreSQL.

A read counts 1 and half as much with every half-life that passes. A batch is taken out of the way of new counts under
a name of its own (RENAME), and that name is written in the transaction that adds the batch. So a flush that dies at
any point is taken up by the next one: before the commit nothing was written; after it, the name says so.
"""

import os
import re
import threading
import time
from collections import OrderedDict
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db import connection, transaction
from django.db.models import ExpressionWrapper, F, FloatField, Func, QuerySet, Value
from django.db.models.functions import Greatest, Least, Now, Power
from django.utils import timezone
from redis.exceptions import RedisError, WatchError

from apps.core.errors import Unavailable
from apps.kernels.cache.config import config
from apps.kernels.cache.deliveries import Delivery, broker
from apps.kernels.models import AccessBatch, BlobAccess

REMEMBERED = 10_000
"""Digests of which a process knows when it last read them."""
MOST_UNPUBLISHED = 10_000
"""Digests that a process counts while Redis is away; reads of others are not counted then."""
READS = "esper:cache:reads"
BATCHES = f"{READS}:batches"
"""The names of the batches that are not flushed yet."""
NAMES_KEPT = timedelta(days=7)
"""How long it is remembered that a batch was written: longer than Redis is away, or restored from an older state."""
SMALLEST_WEIGHT = 100
"""Half-lives after which a read weighs nothing that matters (2^-100); PostgreSQL refuses to raise to much lower."""
DIGEST = re.compile(r"[0-9a-f]{64}")

_ADD = """
INSERT INTO kernels_blobaccess AS known (digest, score, scored_at, reads, last_read_at)
SELECT digest, batch.reads, %(now)s, batch.reads, %(now)s
FROM unnest(%(digests)s::text[], %(reads)s::bigint[]) AS batch (digest, reads) JOIN kernels_kernelblob USING (digest)
ORDER BY digest
ON CONFLICT (digest) DO UPDATE SET
    score = excluded.score + known.score * power(0.5::float8, least(%(smallest)s, greatest(0,
        extract(epoch FROM excluded.scored_at - known.scored_at)::float8 / %(half_life)s))),
    scored_at = greatest(known.scored_at, excluded.scored_at),
    reads = known.reads + excluded.reads,
    last_read_at = greatest(known.last_read_at, excluded.last_read_at)
"""
"""Rows are locked in the order of their digests, so that two flushes never wait for each other. Blobs that are gone
are left out."""


class _Counted:
    """What this process has read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_read: OrderedDict[str, float] = OrderedDict()
        self._unpublished: dict[str, int] = {}
        self.delivery: Delivery[dict[str, int]] = Delivery("reads", self._take, _write)

    def read(self, digest: str) -> bool:
        now = time.monotonic()
        with self._lock:
            before = self._last_read.pop(digest, None)
            self._last_read[digest] = now
            if len(self._last_read) > REMEMBERED:
                self._last_read.popitem(last=False)
            if digest in self._unpublished or len(self._unpublished) < MOST_UNPUBLISHED:
                self._unpublished[digest] = self._unpublished.get(digest, 0) + 1
        return before is not None and now - before <= config().half_life

    def _take(self) -> dict[str, int] | None:
        with self._lock:
            taken, self._unpublished = self._unpublished, {}
        return taken or None


_counted: _Counted


def read(digest: str) -> bool:
    """Count a read; whether this process had read the digest before within one half-life, so that L1 may keep it."""
    return _counted.read(digest)


def publish() -> bool:
    """Add what this process counted to what all did; whether Redis took it. If not, it is kept for the next time."""
    return _counted.delivery.send()


def flush() -> int:
    """Write what all processes published into BlobAccess; how many batches were written, those left over too.

    Raises:
        Unavailable: Redis does not answer. DatabaseError: nor PostgreSQL; either way nothing is lost.
    """
    AccessBatch.objects.filter(flushed_at__lt=timezone.now() - NAMES_KEPT).delete()
    try:
        redis = broker()
        _set_aside(redis)
        names = sorted(name.decode() for name in redis.smembers(BATCHES))
        return sum(_flush_batch(redis, name) for name in names)
    except (RedisError, OSError) as error:
        raise Unavailable(f"the counts of reads cannot be fetched now: {error}") from error


def score_now(rows: QuerySet[BlobAccess]) -> QuerySet[Any]:
    """The rows with ``score_now``: their reads, each halved in weight with every half-life until now."""
    age = Func(
        Now() - F("scored_at"), template="extract(epoch FROM %(expressions)s)::float8", output_field=FloatField()
    )
    half_lives = Least(Value(float(SMALLEST_WEIGHT)), Greatest(Value(0.0), age / Value(config().half_life)))
    score = F("score") * Power(Value(0.5), half_lives, output_field=FloatField())
    return rows.annotate(score_now=ExpressionWrapper(score, output_field=FloatField()))


def _set_aside(redis: Any) -> None:
    """Make what was published a batch. If somebody publishes at this very moment, the next flush does."""
    name = uuid4().hex
    with redis.pipeline() as pipeline:
        pipeline.watch(READS)
        if not pipeline.exists(READS):
            return
        pipeline.multi()
        pipeline.rename(READS, _batch_key(name))
        pipeline.sadd(BATCHES, name)
        try:
            pipeline.execute()
        except WatchError:
            return


def _flush_batch(redis: Any, name: str) -> bool:
    """Write one batch, then drop it; whether it had not been written before."""
    counts = {field.decode(): int(number) for field, number in redis.hgetall(_batch_key(name)).items()}
    with transaction.atomic(durable=True):
        # A flush beside this one, of the same batch, waits here until the first has committed.
        _, is_new = AccessBatch.objects.get_or_create(name=name)
        if is_new:
            _add({digest: number for digest, number in counts.items() if DIGEST.fullmatch(digest)})
    pipeline = redis.pipeline()
    pipeline.delete(_batch_key(name))
    pipeline.srem(BATCHES, name)
    pipeline.execute()
    return is_new


def _add(counts: dict[str, int]) -> None:
    values: dict[str, Any] = {
        "digests": list(counts),
        "reads": list(counts.values()),
        "now": timezone.now(),
        "smallest": float(SMALLEST_WEIGHT),
        "half_life": config().half_life,
    }
    with connection.cursor() as cursor:
        cursor.execute(_ADD, values)


def _write(pipeline: Any, counts: dict[str, int]) -> None:
    for digest, number in counts.items():
        pipeline.hincrby(READS, digest, number)


def _batch_key(name: str) -> str:
    return f"{READS}:{name}"


def forget() -> None:
    """Begin anew: in a forked child, which has read nothing, and where a thread that it lacks may hold the lock."""
    global _counted  # noqa: PLW0603
    _counted = _Counted()


forget()
os.register_at_fork(after_in_child=forget)
