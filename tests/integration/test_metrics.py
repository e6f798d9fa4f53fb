"""`/metrics`: every state of every life cycle has a series, and Prometheus' own linter has nothing to say."""

import subprocess

import pytest
from django.test import Client

from apps.core.actors import SYSTEM
from apps.training import services
from apps.training.lifecycle import RunState

pytestmark = pytest.mark.django_db


def test_runs_are_counted_by_state_and_an_empty_state_is_zero(client: Client) -> None:
    services.create_run(settings={"growth": {"enabled": False}}, actor=SYSTEM)

    body = client.get("/metrics").content.decode()

    assert 'esper_runs{state="QUEUED"} 1.0' in body
    assert all(f'esper_runs{{state="{state}"}}' in body for state in RunState)


@pytest.mark.promtool
def test_promtool_has_nothing_to_say_about_our_metrics(client: Client) -> None:
    body = client.get("/metrics").content

    checked = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=30, check=False)

    assert checked.returncode in {0, 3}, checked.stderr.decode()  # 3: it has remarks, on a library's metrics only
    assert [line for line in checked.stdout.decode().splitlines() if line.startswith("esper_")] == []
