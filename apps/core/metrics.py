"""Gauges that count rows: what the apps register in ``core.registry`` for `/metrics`."""

from collections.abc import Callable, Iterable

from django.db.models import Count, Model
from prometheus_client.core import GaugeMetricFamily, Metric


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
