"""`/metrics`: every state of every life cycle has a series, and Prometheus' own linter has nothing to say."""

import subprocess
from typing import Any

import pytest
from django.test import Client

from apps.checkpoints.lifecycle import CheckpointState
from apps.core.actors import SYSTEM
from apps.training import services
from apps.training.lifecycle import RunState
from tests.support import factories
from tests.support.checkpoint_rows import make_checkpoints, make_recovery

pytestmark = pytest.mark.django_db


def test_runs_are_counted_by_state_and_an_empty_state_is_zero(client: Client) -> None:
    services.create_run(settings={"growth": {"enabled": False}}, actor=SYSTEM)

    body = client.get("/metrics").content.decode()

    assert 'esper_runs{state="QUEUED"} 1.0' in body
    assert all(f'esper_runs{{state="{state}"}}' in body for state in RunState)


def test_saves_are_counted_by_why_and_how_they_ended_and_their_seconds_are_distributed(client: Client) -> None:
    factories.CheckpointFactory(reason="interval", stall_seconds=0.002, save_seconds=0.2)
    factories.CheckpointFactory(reason="interval", stall_seconds=0.2, state=CheckpointState.EXPIRED)
    factories.CheckpointFactory(reason="demand", state=CheckpointState.ABANDONED)

    body = client.get("/metrics").content.decode()

    assert 'esper_checkpoint_saves_total{reason="interval"} 2.0' in body
    assert 'esper_checkpoint_save_failures_total{reason="demand"} 1.0' in body
    assert 'esper_checkpoint_stall_seconds_bucket{le="0.01"} 1.0' in body
    assert 'esper_checkpoint_stall_seconds_bucket{le="+Inf"} 2.0' in body
    assert "esper_checkpoint_save_seconds_sum 0.2" in body


def test_bytes_of_checkpoints_are_told_whole_and_as_they_are_stored(client: Client) -> None:
    run: Any = factories.RunFactory()
    make_checkpoints(run, count=2, kept_alike=3)  # 9 objects, of which each checkpoint needs 6

    body = client.get("/metrics").content.decode()

    assert 'esper_checkpoint_bytes{kind="raw"} 1.2e+07' in body
    assert 'esper_checkpoint_bytes{kind="stored"} 7.38e+06' in body


def test_recoveries_are_counted_by_outcome_and_cause_and_timed_by_stage(client: Client) -> None:
    run: Any = factories.RunFactory()
    make_recovery(run, seconds=(11.2, 0.31, None, 0.05, 0.4))

    body = client.get("/metrics").content.decode()

    assert 'esper_recoveries{cause="lease",state="RESUMED"} 1.0' in body
    assert 'esper_recoveries{cause="restore",state="FAILED"} 0.0' in body
    assert 'esper_recovery_stage_seconds_bucket{le="30.0",stage="detect"} 1.0' in body
    assert 'esper_recovery_stage_seconds_count{stage="restore"} 0.0' in body


@pytest.mark.promtool
def test_promtool_has_nothing_to_say_about_our_metrics(client: Client) -> None:
    body = client.get("/metrics").content

    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=30, check=False)

    assert checked.returncode in {0, 3}, checked.stderr.decode()  # 3: it has remarks, on a library's metrics only
    assert [line for line in checked.stdout.decode().splitlines() if line.startswith("esper_")] == []
