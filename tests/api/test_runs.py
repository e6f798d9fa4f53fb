"""Runs: created, read and commanded; their seeds, decisions, metrics and checkpoints."""

from typing import Any

import pytest
from django.test import TestCase

from apps.audit.models import AuditEvent
from apps.training.models import TrainingRun
from tests.api.conftest import Caller
from tests.support.factories import (
    CheckpointFactory,
    DecisionFactory,
    EpochMetricFactory,
    RunFactory,
    SeedFactory,
    SeedTransitionFactory,
)
from tests.support.problems import assert_problem


def test_a_run_is_created_with_complete_settings_and_queued_once_committed(admin: Caller) -> None:
    with TestCase.captureOnCommitCallbacks() as callbacks:
        response = admin.post("/api/v1/runs", {"name": "mine", "settings": {"task": "spirals", "seed": 3, "epochs": 5}})

    run = admin.get(response["Location"]).json()
    assert response.status_code == 201
    assert (run["name"], run["state"], run["owner"]) == ("mine", "QUEUED", admin.user.username)
    assert (run["task"], run["host"], run["seed"], run["epochs"]) == ("spirals", "mlp", 3, 5)
    assert run["settings"]["growth"]["enabled"] is True
    assert callbacks
    event = AuditEvent.objects.get(type="run.created")
    assert (event.subject_id, event.request_id) == (run["id"], response["X-Request-Id"])


def test_a_run_without_growth_asks_for_no_control_and_no_kernels(admin: Caller) -> None:
    body = {"settings": {"task": "digits", "growth": {"enabled": False}}}

    run = admin.post("/api/v1/runs", body).json()

    assert run["wants_control"] is False
    assert not AuditEvent.objects.filter(type="kernel.registered").exists()


def test_a_run_shows_its_newest_figures(admin: Caller) -> None:
    run = RunFactory(state="RUNNING")
    EpochMetricFactory(run=run, epoch=1, parameters=100)
    EpochMetricFactory(run=run, epoch=2, parameters=150, validation_accuracy=0.75)

    (row,) = admin.get("/api/v1/runs").json()["results"]

    assert (row["last_epoch"], row["last_accuracy"]) == (2, 0.75)
    assert (row["first_parameters"], row["last_parameters"]) == (100, 150)


@pytest.mark.parametrize(
    ("state", "verb", "shown"),
    [("RUNNING", "pause", "PAUSE"), ("PAUSED", "resume", "CONTINUE"), ("RUNNING", "stop", "STOP")],
)
def test_a_command_is_accepted_and_kept_with_its_reason(admin: Caller, state: str, verb: str, shown: str) -> None:
    run = RunFactory(state=state, command="PAUSE" if verb == "resume" else "CONTINUE")

    response = admin.post(f"/api/v1/runs/{run.pk}/{verb}", {"reason": "the machine is needed"})

    assert response.status_code == 202
    assert response.json()["command"] == shown
    assert AuditEvent.objects.get(type="run.command").reason == "the machine is needed"


def test_a_run_that_nobody_trains_stops_at_once(admin: Caller) -> None:
    run = RunFactory(state="QUEUED")

    assert admin.post(f"/api/v1/runs/{run.pk}/stop").json()["state"] == "CANCELLED"


@pytest.mark.parametrize(
    ("state", "verb", "code"),
    [
        ("QUEUED", "pause", "not_running"),
        ("COMPLETED", "pause", "not_running"),
        ("RUNNING", "resume", "not_paused"),
        ("FAILED", "stop", "ended"),
    ],
)
def test_a_command_that_the_state_does_not_allow_is_a_conflict(admin: Caller, state: str, verb: str, code: str) -> None:
    run = RunFactory(state=state)

    assert_problem(admin.post(f"/api/v1/runs/{run.pk}/{verb}"), 409, code)
    assert TrainingRun.objects.get(pk=run.pk).state == state


def test_a_seed_tells_what_each_gate_measured(admin: Caller) -> None:
    seed = SeedFactory(state="TRAINING")
    SeedTransitionFactory(seed=seed)

    body = admin.get(f"/api/v1/seeds/{seed.pk}").json()

    assert body["state"] == "TRAINING"
    (transition,) = body["transitions"]
    assert (transition["gate"], transition["measured"]) == ("G0", {"max_output_difference": 0.0})


def test_a_seed_tells_the_slot_that_kernels_are_searched_for(admin: Caller) -> None:
    seed = SeedFactory()

    (row,) = admin.get(f"/api/v1/runs/{seed.run_id}/seeds").json()["results"]

    assert row["slot_id"] == str(seed.slot_id)


def test_what_belongs_to_a_run_is_listed_under_it(admin: Caller) -> None:
    run, other = RunFactory.create_batch(2)
    seed, decision = SeedFactory(run=run), DecisionFactory(run=run)
    checkpoint = CheckpointFactory(run_id=run.pk)
    SeedFactory(run=other), DecisionFactory(run=other), CheckpointFactory(run_id=other.pk)

    assert ids(admin, f"/api/v1/runs/{run.pk}/seeds") == ids(admin, f"/api/v1/seeds?run={run.pk}") == [str(seed.pk)]
    assert ids(admin, f"/api/v1/decisions?run={run.pk}") == [str(decision.pk)]
    assert ids(admin, f"/api/v1/runs/{run.pk}/checkpoints") == [str(checkpoint.pk)]


@pytest.mark.parametrize("part", ["metrics", "seeds", "checkpoints"])
def test_what_belongs_to_no_run_is_404(admin: Caller, part: str) -> None:
    assert_problem(admin.get(f"/api/v1/runs/00000000-0000-7000-8000-000000000000/{part}"), 404)


def test_the_catalogue_lists_tasks_hosts_and_every_setting_with_its_bounds(admin: Caller) -> None:
    body = admin.get("/api/v1/catalogue").json()

    assert {"digits", "spirals"} <= {task["name"] for task in body["tasks"]}
    assert {"mlp", "cnn"} <= {host["name"] for host in body["hosts"]}
    settings = {setting["name"]: setting for setting in body["settings"]}
    assert (settings["epochs"]["low"], settings["epochs"]["high"]) == (1, 10_000)
    assert "digits" in settings["task"]["choices"]
    assert {"residual", "widen"} == set(body["operators"])


def test_the_trail_is_filtered_and_names_its_actor(admin: Caller) -> None:
    run = RunFactory(state="QUEUED")
    admin.post(f"/api/v1/runs/{run.pk}/stop", {"reason": "enough"})

    rows = admin.get(f"/api/v1/audit/events?subject_type=run&subject_id={run.pk}&type=run.transition").json()["results"]

    (event,) = rows
    assert (event["actor_name"], event["actor_kind"], event["reason"]) == (admin.user.username, "token", "enough")
    assert {"op": "replace", "path": "/state", "value": "CANCELLED"} in event["diff"]
    assert len(event["leaf"]) == 64
    assert admin.get(f"/api/v1/audit/events/{event['id']}").json() == event


def ids(client: Caller, path: str) -> list[Any]:
    return [row["id"] for row in client.get(path).json()["results"]]
