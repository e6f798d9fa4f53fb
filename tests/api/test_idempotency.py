"""Idempotency-Key: the same request twice is one thing and one answer."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from apps.blueprints.models import Blueprint
from apps.core.idempotency import lock_number
from apps.core.models import IdempotencyKey
from apps.training.models import TrainingRun
from tests.api.conftest import Caller
from tests.support.factories import RunFactory
from tests.support.problems import assert_problem

BODY = {"name": "wide"}
PATH = "/api/v1/blueprints"


def post(client: Caller, body: Any = BODY, key: str = "key-1", path: str = PATH) -> Any:
    return client.post(path, body, headers={"Idempotency-Key": key})


def test_the_same_key_and_body_get_the_same_bytes_and_one_thing(admin: Caller) -> None:
    first, second = post(admin), post(admin)

    assert first.status_code == second.status_code == 201
    assert first.content == second.content
    assert (first["Location"], first["ETag"]) == (second["Location"], second["ETag"])
    assert second["Idempotency-Replayed"] == "true"
    assert Blueprint.objects.count() == 1


def test_the_order_of_members_does_not_matter(admin: Caller) -> None:
    post(admin, {"name": "wide", "title": "t"})

    assert post(admin, {"title": "t", "name": "wide"})["Idempotency-Replayed"] == "true"


def test_the_same_key_with_another_body_or_path_is_refused(admin: Caller) -> None:
    post(admin)

    assert_problem(post(admin, {"name": "other"}), 422, "idempotency_key_reused")
    assert_problem(post(admin, path="/api/v1/kernels"), 422, "idempotency_key_reused")
    assert Blueprint.objects.count() == 1


def test_keys_belong_to_their_user(caller: Callable[..., Caller]) -> None:
    post(caller("admin"))

    assert_problem(post(caller("admin")), 409, "duplicate", "/name")


def test_a_refused_request_leaves_its_key_free(admin: Caller) -> None:
    assert_problem(post(admin, {"name": "NOT A NAME"}), 400)

    assert post(admin).status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\u00fc"])
def test_a_malformed_key_is_refused(admin: Caller, key: str) -> None:
    assert_problem(post(admin, key=key), 400, "idempotency_key")
    assert Blueprint.objects.count() == 0


def test_after_a_day_the_key_is_new_again(admin: Caller) -> None:
    post(admin)
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))

    assert_problem(post(admin), 409, "duplicate", "/name")  # done again: the name is taken


def test_while_the_first_is_being_worked_on_the_second_is_told(admin: Caller) -> None:
    parameters = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    with psycopg.connect(**{name: parameters[name] for name in names}) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [lock_number(admin.user.pk, "key-1")])

        response = post(admin)

    assert_problem(response, 409, "idempotency_in_progress")
    assert Blueprint.objects.count() == 0


def test_commands_are_replayed_too(admin: Caller) -> None:
    run = RunFactory(state="QUEUED")
    path = f"/api/v1/runs/{run.pk}/stop"

    first, second = post(admin, {}, path=path), post(admin, {}, path=path)

    assert first.status_code == second.status_code == 202
    assert first.json()["state"] == second.json()["state"] == "CANCELLED"


def test_a_run_started_twice_with_one_key_is_one_run(admin: Caller) -> None:
    body = {"kind": "external", "settings": {"task": "mine", "host": "mine", "epochs": 1}}

    ids = {post(admin, body, path="/api/v1/runs").json()["id"] for _ in range(3)}

    assert len(ids) == TrainingRun.objects.count() == 1


def test_a_tokens_secret_is_never_stored(admin: Caller) -> None:
    body = {"name": "ci", "scopes": ["runs:read"]}

    first, second = post(admin, body, path="/api/v1/tokens"), post(admin, body, path="/api/v1/tokens")

    assert first.json()["token"] != second.json()["token"]
    assert not IdempotencyKey.objects.exists()
