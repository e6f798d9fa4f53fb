"""Sealing as it runs: a real worker takes beat's task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from apps.audit.models import AuditCheckpoint, AuditCopy
from apps.core.queue import enqueue
from esper_site.celery import app
from tests.support.audit import record
from tests.support.waiting import wait_until


def test_a_real_worker_seals_what_beat_asks_it_to(
    committed_db: str, worker: Callable[..., Any], tmp_path: Path
) -> None:
    schedule = app.conf.beat_schedule
    record()
    worker("default", ESPER_HOME=str(tmp_path))

    enqueue(schedule["seal-audit"]["task"])
    wait_until(AuditCheckpoint.objects.exists, seconds=30)
    wait_until(AuditCopy.objects.exists, seconds=30)

    assert (tmp_path / "audit" / "signing.key").stat().st_mode & 0o777 == 0o600


def test_every_task_that_beat_asks_for_exists() -> None:
    app.loader.import_default_modules()

    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
