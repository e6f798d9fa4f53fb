"""The charts of a run: one table that the page, their table twins and the CSV files read."""

from dataclasses import dataclass, replace

from apps.dashboards.numbers import MISSING


@dataclass(frozen=True, slots=True)
class Column:
    """One measured series. ``unit`` is what its values are in; ``factor`` turns a stored value into that unit."""

    name: str
    title: str
    unit: str
    factor: float = 1.0
    digits: int = 4


@dataclass(frozen=True, slots=True)
class Chart:
    """``axis`` is the title of the value axis, with its unit. ``control`` also draws the static control's curve."""

    name: str
    title: str
    axis: str
    columns: tuple[Column, ...]
    has_log: bool = False
    control: bool = False


CHARTS: tuple[Chart, ...] = (
    Chart(
        name="accuracy",
        title="Accuracy",
        axis="accuracy, %",
        columns=(Column("validation_accuracy", "validation", "%", factor=100, digits=2),),
        control=True,
    ),
    Chart(
        name="loss",
        title="Loss",
        axis="loss, nats",
        columns=(Column("train_loss", "training", "nats"), Column("validation_loss", "validation", "nats")),
        has_log=True,
        control=True,
    ),
    Chart(
        name="parameters",
        title="Parameters",
        axis="parameters",
        columns=(Column("parameters", "parameters", "", digits=0),),
        control=True,
    ),
    Chart(
        name="flops",
        title="FLOPs",
        axis="GFLOP",
        columns=(Column("train_flops", "spent on training so far", "GFLOP", factor=1e-9, digits=3),),
        control=True,
    ),
)
CHART: dict[str, Chart] = {chart.name: chart for chart in CHARTS}

RECORDED: tuple[Chart, ...] = (
    Chart(
        name="throughput",
        title="Throughput",
        axis="samples/s",
        columns=(Column("esper_run_samples_per_second", "samples a second", "", digits=0),),
    ),
    Chart(
        name="gradient",
        title="Gradient",
        axis="norm",
        columns=(Column("esper_run_gradient_norm", "root mean square per parameter", "", digits=5),),
    ),
    Chart(
        name="overhead",
        title="Overhead",
        axis="% of training",
        columns=(Column("esper_run_overhead_ratio", "growing per pure training", "%", factor=100, digits=1),),
    ),
)
"""What workers record while they train (``apps.observability.catalogue``), one series a chart."""

HELD_OUT = {"loss": "Held-out loss"}
COMPARED: dict[str, Chart] = {
    chart.name: replace(chart, columns=chart.columns[-1:], title=HELD_OUT.get(chart.name, chart.title))
    for chart in CHARTS
}
"""The charts of compared runs: one column each, the held-out one, so that a line is a run."""


def in_units(column: Column, value: float | None) -> str:
    """A stored value as its column shows it."""
    return MISSING if value is None else f"{value * column.factor:,.{column.digits}f}"


MARKERS: tuple[str, ...] = (
    "M-4 0A4 4 0 1 1 4 0 4 4 0 1 1-4 0Z",
    "M-3.6-3.6H3.6V3.6H-3.6Z",
    "M0-4.8 4.6 3.6H-4.6Z",
    "M0-5 4.4 0 0 5-4.4 0Z",
    "M0 4.8-4.6-3.6H4.6Z",
    "M-1.4-4.6H1.4V-1.4H4.6V1.4H1.4V4.6H-1.4V1.4H-4.6V-1.4H-1.4Z",
    "M-4.2-2.4-2.4-4.2 0-1.8 2.4-4.2 4.2-2.4 1.8 0 4.2 2.4 2.4 4.2 0 1.8-2.4 4.2-4.2 2.4-1.8 0Z",
    "M-4.6 0-2.3-4H2.3L4.6 0 2.3 4H-2.3Z",
)
"""Shapes around (0, 0), SVG paths, that tell compared runs apart without their colours."""
