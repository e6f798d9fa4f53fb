"""Gauges and histograms of rows: what the apps register in ``core.registry`` for `/metrics`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import Count, Model
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.utils import floatToGoString


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
