"""Gauges and histograms of rows: what the apps register in ``core.registry`` for `/metrics`, and how it is read."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Count, Model
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.utils import floatToGoString
from redis.exceptions import RedisError

from apps.core.errors import Unavailable
from apps.core.registry import registry

log = structlog.get_logger(__name__)

EXPECTED = (DatabaseError, InterfaceError, RedisError, OSError, Unavailable)
"""What a collector fails with when the server that it asks is away."""
QUERY_SECONDS = 3
"""No query of a collector may take longer."""


def read_collectors(*, without: Collection[str] = ()) -> Iterator[Metric]:
    """What the registered collectors say now, and of each whether it could be read and how long that took.

    One that fails is told of in ``esper_collector_up``, and the others go on.
    """
    up = GaugeMetricFamily("esper_collector_up", "1 if the collector could be read.", labels=["collector"])
    took = GaugeMetricFamily(
        "esper_collector_seconds", "Seconds that reading the collector took.", labels=["collector"]
    )
    with short_queries():
        for name, collect in registry.collectors.items():
            if name in without:
                continue
            begun = time.perf_counter()
            families = _read(name, collect)
            took.add_metric([name], time.perf_counter() - begun)
            up.add_metric([name], families is not None)
            yield from families or ()
    yield up
    yield took


def _read(name: str, collect: Callable[[], Iterable[Metric]]) -> list[Metric] | None:
    try:
        return list(collect())
    except EXPECTED as error:
        log.warning("collector_failed", collector=name, error=str(error))
    except Exception:
        log.exception("collector_failed", collector=name)  # a fault of ours must not blind the other collectors
    return None


@contextmanager
def short_queries() -> Iterator[None]:
    """Let the database end each query of this connection after QUERY_SECONDS."""
    is_set = _limit_queries(f"{QUERY_SECONDS}s")
    try:
        yield
    finally:
        if is_set:
            _limit_queries("DEFAULT")


def _limit_queries(limit: str) -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout TO {limit if limit == 'DEFAULT' else repr(limit)}")
    except (DatabaseError, InterfaceError):
        return False  # each collector will find out for itself
    return True


def rows_by(
    model: type[Model], *labels: str, name: str, help: str, known: Iterable[str] = ()
) -> Callable[[], Iterable[Metric]]:
    """A collector: how many rows of ``model`` there are for each value of ``labels``, in one query.

    ``known`` values of a single label are reported as 0 when no row has them, so that a series does not vanish.
    """

    def collect() -> Iterable[Metric]:
        gauge = GaugeMetricFamily(name, help, labels=list(labels))
        counts: dict[tuple[str, ...], int] = dict.fromkeys(((str(value),) for value in known), 0)
        for row in model._default_manager.values_list(*labels).annotate(rows=Count("pk")).order_by():
            counts[tuple(str(value) for value in row[:-1])] = row[-1]
        for values, count in sorted(counts.items()):
            gauge.add_metric(values, count)
        return [gauge]

    return collect


@dataclass(frozen=True, slots=True)
class Histogram:
    """Rows whose column is at most each bound, as a histogram family takes them; ``total`` is the sum of the column."""

    buckets: Sequence[tuple[str, float]]
    total: float


def histograms(model: type[Model], columns: Sequence[str], bounds: Sequence[float]) -> list[Histogram]:
    """One histogram a column, over the rows that have it, in one query."""
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    asked = ", ".join(_counts(quote(column), len(bounds)) for column in columns)
    with connection.cursor() as cursor:
        # Built by the ORM, these expressions take five times as long as the query.
        cursor.execute(f"SELECT {asked} FROM {table}", [*bounds] * len(columns))  # noqa: S608 - names of our models
        found = cursor.fetchone()
    size = len(bounds) + 2
    texts = [*map(floatToGoString, bounds), "+Inf"]
    return [
        Histogram(buckets=[*zip(texts, map(float, row[1:]), strict=True)], total=float(row[0]))
        for row in (found[place * size : (place + 1) * size] for place in range(len(columns)))
    ]


def _counts(column: str, bounds: int) -> str:
    up_to = f"count(*) FILTER (WHERE {column} <= %s), " * bounds
    return f"coalesce(sum({column}), 0), {up_to}count({column})"
