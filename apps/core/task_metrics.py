"""What workers count of the tasks that they run, and when a message was put into its queue."""

import time
from typing import Any

from celery.signals import before_task_publish, task_postrun, task_prerun
from prometheus_client import Counter, Histogram

TASKS = Counter("esper_tasks", "Tasks that workers ended, by how.", ["task", "outcome"])
SECONDS = Histogram(
    "esper_task_seconds",
    "Seconds that a task ran.",
    ["task"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
)
SENT_AT = "esper_sent_at"
"""Header of a message: seconds since 1970. Celery's own messages do not tell."""

_begun: dict[str, float] = {}
"""Task id -> when it began, of those that run in this process."""


@before_task_publish.connect(weak=False)
def note_sending(headers: dict[str, Any], **kwargs: Any) -> None:
    headers.setdefault(SENT_AT, time.time())


@task_prerun.connect(weak=False)
def note_begin(task_id: str, **kwargs: Any) -> None:
    _begun[task_id] = time.perf_counter()


@task_postrun.connect(weak=False)
def count(task_id: str, task: Any, state: str | None = None, **kwargs: Any) -> None:
    begun = _begun.pop(task_id, None)
    TASKS.labels(task.name, (state or "unknown").lower()).inc()
    if begun is not None:
        SECONDS.labels(task.name).observe(time.perf_counter() - begun)
