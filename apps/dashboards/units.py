"""Values of metrics as people read them, by the unit that the metric's series has."""

import math
from collections.abc import Callable, Mapping

from apps.dashboards import numbers
from apps.observability.catalogue import known, spec_of
from apps.observability.contracts import SeriesInfo

READINGS: Mapping[str, Callable[[object], str]] = {
    "ratio": numbers.percent,
    "bytes": numbers.size,
    "seconds": lambda value: numbers.seconds(value) if value else "0\u00a0s",
    "celsius": lambda value: f"{numbers.plain(value)}\u00a0\u00b0C",
    "watts": lambda value: f"{numbers.plain(value)}\u00a0W",
}
AXES: Mapping[str, str] = {"ratio": "%", "bytes": "bytes", "seconds": "s", "celsius": "\u00b0C", "watts": "W"}


def unit_of(metric: str) -> str:
    """The unit of a metric of the platform; empty: a plain number, or a metric of a client."""
    return spec_of(metric).unit if known(metric) else ""


def told(value: object, unit: str) -> str:
    """``value`` with its unit: .93 of a ratio -> '93.0 %'. What is no finite number is said, never a dash."""
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number" if math.isnan(value) else "+\u221e" if value > 0 else "\u2212\u221e"
    return READINGS.get(unit, numbers.plain)(value)


def axis_of(series: SeriesInfo) -> str:
    """The unit of what a curve of the series shows: of a counter its growth a second."""
    unit = AXES.get(series.unit, series.unit)
    return f"{unit}/s".lstrip() if series.kind == "counter" else unit


def axis_title(metric: str) -> str:
    """What a chart's title says of its axis: nothing where the ticks have their unit."""
    return "%" if unit_of(metric) == "ratio" else ""
