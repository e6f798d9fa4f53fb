"""`manage.py grow`: what it prints, what it exits with, and what it says to a wrong argument."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.training.models import TrainingRun

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "run", "task", "host", "state", "seed", "epochs", "test_accuracy", "parameters_start", "parameters", "train_flops",
    "wall_s", "seeds", "decisions", "topology_digest", "weights_digest", "control",
}  # fmt: skip


def grow(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "manage.py", "grow", *arguments]
    inherited = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=inherited, capture_output=True, text=True, timeout=150, check=False)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"task": "chess"}, "task"), ({"host": "rnn"}, "host"), ({"epochs": 0}, "epochs"), ({"seed": -1}, "seed")],
)
def test_a_wrong_argument_is_named_and_nothing_is_queued(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(CommandError, match=f"^{field}: "):
        call_command("grow", **arguments)

    assert not TrainingRun.objects.exists()


def test_json_is_the_last_line_and_names_run_and_control(committed_db: str, worker: Callable[..., Any]) -> None:
    worker("compile")
    worker("train")

    finished = grow("--task", "spirals", "--epochs", "10", "--seed", "7", "--json")

    assert finished.returncode == 0, finished.stderr
    summary = json.loads(finished.stdout.splitlines()[-1])
    assert set(summary) == KEYS
    assert (summary["state"], summary["seed"], summary["epochs"]) == ("COMPLETED", 7, 10)
    assert set(summary["seeds"]) == {"germinated", "fossilized", "culled"}
    assert set(summary["control"]) == {"test_accuracy", "parameters", "train_flops"}
    assert summary["control"]["parameters"] == summary["parameters"]
    assert len(finished.stdout.splitlines()) == 1
    assert "test accuracy" in finished.stderr


def test_a_database_that_is_away_is_told_without_a_traceback() -> None:
    redis = "redis://127.0.0.1:9/0"

    finished = grow(DATABASE_URL="postgresql://a:b@127.0.0.1:9/x", REDIS_URL=redis, BROKER_URL=redis)

    assert finished.returncode == 1
    assert finished.stderr.startswith("The database does not answer: ")
    assert "Traceback" not in finished.stderr
