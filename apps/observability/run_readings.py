"""What a run's worker reads of the run while it trains, on its way into the store: ``catalogue.RECORDED``.

with RunReadings(run_id, workspace_id) as readings:
    readings.record("train_loss", 0.31)      # esper_run_train_loss{run="..."}
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from uuid import UUID

import structlog
from django.db import connection
from prometheus_client import Counter

from apps.core.errors import Invalid
from apps.observability.catalogue import METRICS, RECORDED
from apps.observability.contracts import Reading
from apps.observability.recorder import Handle, Recorded, Recorder
from apps.observability.store import writing

log = structlog.get_logger(__name__)

PREFIX = "esper_run_"
BATCH = 2_000
DROPPED = Counter("esper_recorder_dropped", METRICS["esper_recorder_dropped_total"].help)


class RunReadings:
    """The recorder of one run in the process that trains it."""

    def __init__(self, run_id: UUID, workspace_id: UUID | None) -> None:
        self._run_id = run_id
        self._workspace_id = workspace_id
        self._recorder = Recorder(self._store, on_dropped=DROPPED.inc)
        self._handles: dict[str, Handle] = {}

    def __enter__(self) -> "RunReadings":
        run = str(self._run_id)
        self._handles = {name.removeprefix(PREFIX): self._recorder.series(name, run=run) for name in RECORDED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._recorder.close()

    def record(self, name: str, value: float) -> None:
        """Raises KeyError: there is no such reading."""
        self._handles[name].record(value)

    def _store(self, batch: Sequence[Recorded]) -> None:
        """In the recorder's thread: it keeps no connection between two batches."""
        left = iter(batch)
        try:
            while part := list(islice(left, BATCH)):
                self._write(part)
        finally:
            connection.close()

    def _write(self, part: Sequence[Recorded]) -> None:
        readings = [
            Reading(
                name=recorded.name,
                value=recorded.value,
                at=datetime.fromtimestamp(recorded.at, UTC),
                labels=recorded.labels,
                unit=METRICS[recorded.name].unit,
                run_id=self._run_id,
            )
            for recorded in part
        ]
        try:
            writing.record(readings, source="run", workspace_id=self._workspace_id)
        except Invalid as error:  # too many series, or too old after a long silence: it will not be taken later either
            log.warning("run_readings_refused", run=str(self._run_id), problem=error.detail)
            DROPPED.inc(len(part))
