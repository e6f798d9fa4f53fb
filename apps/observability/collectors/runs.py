"""The newest readings of the runs that train now, from the store into which their workers record."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from apps.observability.catalogue import RECORDED
from apps.observability.collectors.families import families
from apps.observability.store import reading

NAME = "runs_now"
FRESH_SECONDS = 300
MOST = 500
"""Series; a run has about ten."""


def told() -> Iterable[Metric]:
    """A run that ended has no readings any more."""
    values: dict[str, dict[tuple[str, ...], float | None]] = {name: {} for name in RECORDED}
    newest = reading.latest(names=RECORDED, within_seconds=FRESH_SECONDS)
    for latest in sorted(newest, key=lambda latest: latest.at, reverse=True)[:MOST]:
        values[latest.series.name][(latest.series.labels.get("run", ""),)] = latest.value
    return families(values)
