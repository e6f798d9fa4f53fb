"""Gauges and histograms of rows: what the apps register in ``core.registry`` for `/metrics`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Aggregate, Count, Model, Q, Sum
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
    asked: dict[str, Aggregate] = {}
    for column in columns:
        asked[f"{column}_sum"] = Sum(column)
        asked[f"{column}_inf"] = Count(column)
        for place, bound in enumerate(bounds):
            asked[f"{column}_{place}"] = Count("pk", filter=Q(**{f"{column}__lte": bound}))
    found = model._default_manager.aggregate(**asked)
    return [
        Histogram(
            buckets=[
                *((floatToGoString(bound), float(found[f"{column}_{n}"])) for n, bound in enumerate(bounds)),
                ("+Inf", float(found[f"{column}_inf"])),
            ],
            total=float(found[f"{column}_sum"] or 0.0),
        )
        for column in columns
    ]
