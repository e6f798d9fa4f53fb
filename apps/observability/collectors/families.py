"""Families of samples made from the catalogue: name, kind, labels and help are written once."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from apps.observability.catalogue import COUNTER, METRICS

Values = Mapping[Any, float | None]
"""Values of the labels, a tuple in the catalogue's order -> value; None: there is nothing to tell."""


def family(name: str, values: Values | float | None) -> Metric:
    """The family of a gauge or a counter of the catalogue. A single number is of a metric without labels."""
    spec = METRICS[name]
    maker = CounterMetricFamily if spec.kind == COUNTER else GaugeMetricFamily
    made = maker(spec.family, spec.help, labels=list(spec.labels))
    told = values if isinstance(values, Mapping) else {(): values}
    for labels, value in told.items():
        if value is not None:
            made.add_metric(list(labels), value)
    return made


def families(table: Mapping[str, Values | float | None]) -> Iterable[Metric]:
    """One family an entry of the table."""
    return [family(name, values) for name, values in table.items()]
