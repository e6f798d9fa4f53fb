"""Runs that a client trains in a loop of its own: lease, fencing and journal over HTTP."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.training.models import Decision, EpochMetric, RunLease, TrainingRun
from apps.training.services import recover_orphans
from tests.api.conftest import Caller
from tests.support.factories import RunFactory
from tests.support.problems import assert_problem


class Client:
    """What an external training loop does."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        body = {"kind": "external", "settings": {"task": "mine", "host": "resnet", "epochs": 20, "batch": 64}}
        self.path = caller.post("/api/v1/runs", body)["Location"]
        self.token: int | None = None

    def heartbeat(self, **body: Any) -> Any:
        response = self.caller.post(f"{self.path}/heartbeat", body)
        if response.status_code == 200:
            self.token = response.json()["fencing_token"]
        return response

    def send(self, *events: dict[str, Any], token: int | None = None) -> Any:
        body = {"fencing_token": self.token if token is None else token, "events": list(events)}
        return self.caller.post(f"{self.path}/events", body)

    def finish(self, state: str = "COMPLETED", **more: Any) -> Any:
        return self.caller.post(f"{self.path}/finish", {"fencing_token": self.token, "state": state, **more})


def epoch(sequence: int, **changes: Any) -> dict[str, Any]:
    return {
        "type": "epoch",
        "sequence": sequence,
        "epoch": sequence,
        "step": sequence * 10,
        "train_loss": 0.5,
        "validation_loss": 0.6,
        "validation_accuracy": 0.7,
        "parameters": 100,
        "train_flops": 1000,
        "learning_rate": 0.001,
        **changes,
    }


def decision(sequence: int, **changes: Any) -> dict[str, Any]:
    return {
        "type": "decision",
        "sequence": sequence,
        "epoch": 1,
        "step": 10,
        "action": "HOLD",
        "rule": "plateau",
        "reason": "nothing to do",
        **changes,
    }


@pytest.fixture
def client(admin: Caller) -> Client:
    return Client(admin)


def test_a_client_trains_a_run_to_its_end(client: Client, admin: Caller) -> None:
    lease = client.heartbeat(holder="laptop").json()
    stored = client.send(epoch(1), decision(2, refused=[refusal()]), epoch(3, epoch=2)).json()
    finished = client.finish(result={"test_accuracy": 0.9}).json()

    assert (lease["state"], lease["command"], lease["holder"]) == ("RUNNING", "CONTINUE", "laptop")
    assert stored == {"last_sequence": 3}
    assert (finished["state"], finished["result"], finished["last_epoch"]) == ("COMPLETED", {"test_accuracy": 0.9}, 2)
    assert Decision.objects.get().refused == [refusal()]
    assert admin.get(client.path).json()["settings"]["batch"] == 64


def refusal() -> dict[str, str]:
    return {"action": "GERMINATE", "site": "layer1", "kernel": "", "reason": "too early"}


def test_events_that_are_sent_again_are_stored_once(client: Client) -> None:
    client.heartbeat(holder="laptop")
    client.send(epoch(1), epoch(2))

    response = client.send(epoch(1), epoch(2), epoch(3))

    assert response.json() == {"last_sequence": 3}
    assert EpochMetric.objects.count() == 3


def test_a_command_reaches_the_client_with_its_next_heartbeat(client: Client, admin: Caller) -> None:
    client.heartbeat(holder="laptop")
    admin.post(f"{client.path}/pause")

    assert client.heartbeat(fencing_token=client.token).json()["command"] == "PAUSE"
    assert client.finish("PAUSED").json()["state"] == "PAUSED"
    admin.post(f"{client.path}/resume")
    assert client.heartbeat(holder="laptop").json()["state"] == "RUNNING"


def test_a_client_that_was_lost_finds_its_token_out_of_date(client: Client) -> None:
    client.heartbeat(holder="laptop")
    old = client.token
    RunLease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    recover_orphans()

    assert_problem(client.send(epoch(1), token=old), 409, "lease_lost")
    assert not EpochMetric.objects.exists()
    assert client.heartbeat(holder="laptop again").json()["fencing_token"] > (old or 0)
    assert_problem(client.send(epoch(1), token=old), 409, "lease_lost")
    assert client.send(epoch(1)).status_code == 200


def test_of_two_clients_one_gets_the_run(client: Client) -> None:
    client.heartbeat(holder="first")

    assert_problem(client.heartbeat(holder="second"), 409, "not_claimable")


def test_a_run_is_taken_only_by_somebody_with_a_name(client: Client) -> None:
    assert_problem(client.heartbeat(), 400, "invalid", "/holder")


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        ({"type": "gossip"}, "/events/1/type"),
        ("text", "/events/1/type"),
        (epoch(2, epoch="two"), "/events/1/epoch"),
        (epoch(2, validation_accuracy=7), "/events/1/validation_accuracy"),
        (epoch(2**63, epoch=1, step=1), "/events/1/sequence"),
        (epoch(2, surprise=1), "/events/1/surprise"),
        (decision(2, action="EXPLODE"), "/events/1/action"),
        (decision(2, refused=[{**refusal(), "action": "?"}]), "/events/1/refused/0/action"),
        (decision(2, observed=[1]), "/events/1/observed"),
    ],
)
def test_one_wrong_event_is_named_and_none_of_the_batch_is_stored(client: Client, event: Any, pointer: str) -> None:
    client.heartbeat(holder="laptop")

    assert_problem(client.send(epoch(1), event), 400, "invalid", pointer)
    assert not EpochMetric.objects.exists()
    assert TrainingRun.objects.get().last_sequence == 0


def test_a_loss_that_is_not_finite_is_told_as_null(client: Client) -> None:
    client.heartbeat(holder="laptop")

    assert client.send(epoch(1, train_loss=None)).status_code == 200


def test_a_batch_is_bounded(client: Client) -> None:
    client.heartbeat(holder="laptop")

    body = assert_problem(client.send(*(epoch(number) for number in range(1, 502))), 400)

    assert body["errors"][0]["pointer"] == "/events"


def test_a_run_of_our_workers_is_not_driven_by_clients(admin: Caller) -> None:
    path = f"/api/v1/runs/{RunFactory().pk}"

    assert_problem(admin.post(f"{path}/heartbeat", {"holder": "me"}), 409, "not_external")
    assert_problem(admin.post(f"{path}/events", {"fencing_token": 0, "events": [epoch(1)]}), 409, "not_external")
    assert_problem(admin.post(f"{path}/finish", {"fencing_token": 0, "state": "COMPLETED"}), 409, "not_external")


def test_a_run_that_ended_takes_nothing_more(client: Client) -> None:
    client.heartbeat(holder="laptop")
    client.finish()

    assert_problem(client.send(epoch(1)), 409, "ended")
