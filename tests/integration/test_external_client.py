"""The example client in docs/examples trains its own PyTorch loop against a real site, under lease and fencing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from apps.accounts.roles import Role
from apps.core.actors import SYSTEM
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, RunLease, TrainingRun
from apps.training.services import recover_orphans, stop_run
from tests.support.factories import TokenFactory, UserFactory
from tests.support.waiting import wait_until

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "external_run.py"
FOR_EVER = 1_000_000

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(committed_db: str, live_site: str) -> Iterator[Start]:
    """`start("--epochs", "3")` runs the example as an operator."""
    token = TokenFactory(user=UserFactory(role=Role.OPERATOR), scopes=["runs:write"])
    environment = {
        "PATH": os.environ["PATH"],
        "ESPER_URL": live_site,
        "ESPER_TOKEN": token.secret,
        "OMP_NUM_THREADS": "1",
    }
    clients: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **changes: str) -> subprocess.Popen[str]:
        client = subprocess.Popen(
            [sys.executable, str(EXAMPLE), *arguments],
            env=environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        clients.append(client)
        return client

    yield run
    for client in clients:
        client.kill()
        client.communicate()


def end_of(client: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = client.communicate(timeout=60)
    return client.returncode, output, errors


def wait_for_epochs(count: int) -> None:
    wait_until(lambda: EpochMetric.objects.count() >= count, seconds=60)


def test_the_example_trains_to_its_end_and_its_run_shows_it(start: Start) -> None:
    status, output, errors = end_of(start("--epochs", "12"))

    assert (status, errors) == (0, "")
    run = TrainingRun.objects.get(pk=json.loads(output)["run"])
    assert (run.state, run.last_sequence) == (RunState.COMPLETED, 12)
    accuracy = list(EpochMetric.objects.order_by("epoch").values_list("validation_accuracy", flat=True))
    assert len(accuracy) == 12
    assert accuracy[-1] > 0.85


def test_the_example_obeys_a_stop(start: Start) -> None:
    client = start("--epochs", str(FOR_EVER))
    wait_for_epochs(1)

    stop_run(run=TrainingRun.objects.get(), actor=SYSTEM, reason="enough")
    status, output, _ = end_of(client)

    assert (status, json.loads(output)["state"]) == (0, "CANCELLED")
    assert TrainingRun.objects.get().state == RunState.CANCELLED


def taken_for_dead() -> bool:
    """The lease runs out and the run is taken up; not if the client's next heartbeat comes in between."""
    RunLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    return bool(recover_orphans())


def test_a_client_that_was_taken_for_dead_stops_and_writes_nothing_more(start: Start) -> None:
    client = start("--epochs", str(FOR_EVER))
    wait_for_epochs(1)

    wait_until(taken_for_dead, seconds=30)
    written = TrainingRun.objects.get().last_sequence
    status, output, errors = end_of(client)

    assert (status, output) == (1, "")
    assert "409 lease_lost" in errors
    assert TrainingRun.objects.get().last_sequence == written
    assert TrainingRun.objects.get().state == RunState.RECOVERING
