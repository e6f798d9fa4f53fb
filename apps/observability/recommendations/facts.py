"""What rules are told of: each thing is read once, however many rules ask for it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from urllib.parse import urlencode
from uuid import UUID

from apps.kernels.cache import reporting
from apps.kernels.cache.reporting import FLEET
from apps.kernels.cache.stats import Snapshot
from apps.observability import performance
from apps.observability.contracts import Latest, SeriesInfo
from apps.observability.performance import Adaptation, Plateau
from apps.observability.selectors.trends import MOST_SERIES, SeriesTrend, trends
from apps.observability.store import reading

METRICS = (
    "esper_host_disk_used_ratio",
    "esper_database_bytes",
    "esper_queue_oldest_age_seconds",
)
"""The series whose newest values rules look at."""
FRESH_SECONDS = 600
"""What is older does not tell how it is now."""


class Facts:
    """Of one moment. Reading may raise Unavailable: then the rule that asked can say nothing."""

    def __init__(self, now: datetime, workspace_id: UUID | None = None) -> None:
        self.now = now
        self.workspace_id = workspace_id
        self._trends: dict[tuple[str, float], Sequence[SeriesTrend]] = {}

    @cached_property
    def _latest(self) -> Mapping[str, list[Latest]]:
        found: dict[str, list[Latest]] = {name: [] for name in METRICS}
        for newest in reading.latest(names=METRICS, within_seconds=FRESH_SECONDS, workspace_id=self.workspace_id):
            found[newest.series.name].append(newest)
        return found

    def latest(self, name: str) -> Sequence[Latest]:
        """The newest value of each series of one of METRICS."""
        return self._latest[name]

    def trends(self, name: str, *, hours: float) -> Sequence[SeriesTrend]:
        """Of the series that ``latest`` tells of."""
        key = (name, hours)
        if key not in self._trends:
            ids = [newest.series.id for newest in self.latest(name)][:MOST_SERIES]
            self._trends[key] = (
                trends(ids=ids, hours=hours, now=self.now, workspace_id=self.workspace_id) if ids else []
            )
        return self._trends[key]

    @cached_property
    def cache(self) -> Snapshot:
        """Of all processes, the last day. Raises Unavailable."""
        return reporting.counted(FLEET, "24h")

    @cached_property
    def adaptation(self) -> Adaptation:
        """Of the last seven days."""
        return performance.source().adaptation(self.now - timedelta(days=7), self.now)

    @cached_property
    def plateaus(self) -> Sequence[Plateau]:
        return performance.source().plateaus()

    def query_link(self, series: SeriesInfo, *, hours: float) -> str:
        """Where the curve can be had."""
        since = self.now - timedelta(hours=hours)
        labels = [f'{name}="{value}"' for name, value in sorted(series.labels.items())]
        asked = {"name": series.name, "start": since.isoformat(), "end": self.now.isoformat(), "label": labels}
        return f"/api/v1/metrics/query?{urlencode(asked, doseq=True)}"


def named(series: SeriesInfo) -> str:
    """The labels of a series, for people: "disk /var of host a"."""
    return " of ".join(f"{name} {value}" for name, value in sorted(series.labels.items())) or series.name
