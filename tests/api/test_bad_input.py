"""A mistake of the client is told by field, and nothing is written."""

from collections.abc import Iterator
from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.core.models import IdempotencyKey
from apps.kernels.models import Kernel
from apps.training.models import TrainingRun
from tests.api.conftest import Caller
from tests.support.factories import residual_spec
from tests.support.problems import assert_problem

WRITTEN = (TrainingRun, Blueprint, BlueprintVersion, Kernel, AuditEvent, IdempotencyKey)


@pytest.fixture(autouse=True)
def _nothing_is_written(db: None) -> Iterator[None]:
    yield
    assert {model.__name__: model.objects.count() for model in WRITTEN} == {model.__name__: 0 for model in WRITTEN}


def spec(**changes: Any) -> dict[str, Any]:
    return {**residual_spec(), **changes}


def node(name: str, op: str, inputs: list[str], **params: Any) -> dict[str, Any]:
    return {"id": name, "op": op, "inputs": inputs, "params": params}


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"task": "imagenet"}, "/settings/task"),
        ({"task": "digits", "host": "vit"}, "/settings/host"),
        ({"task": "spirals", "host": "cnn"}, "/settings/host"),
        ({"task": "digits", "epochs": 0}, "/settings/epochs"),
        ({"task": "digits", "epochs": "many"}, "/settings/epochs"),
        ({"task": "digits", "epochs": True}, "/settings/epochs"),
        ({"task": "digits", "seed": -1}, "/settings/seed"),
        ({"task": "digits", "momentum": 0.9}, "/settings/momentum"),
        ({"task": "digits", "growth": {"max_seeds": 1e9}}, "/settings/growth/max_seeds"),
        ({"task": "digits", "growth": {"magic": 1}}, "/settings/growth/magic"),
        ({"task": "digits", "growth": {"forced_at": 0.9}}, "/settings/growth/forced_at"),
        ({"task": "digits", "growth": 3}, "/settings/growth"),
        ([], "/settings"),
        (None, "/settings"),
    ],
)
def test_a_wrong_setting_of_a_run_is_named(admin: Caller, settings: Any, pointer: str) -> None:
    body = assert_problem(admin.post("/api/v1/runs", {"settings": settings}), 400)

    assert body["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/settings"),
        ({"settings": {}, "setings": {}}, "/setings"),
        ({"settings": {}, "kind": "control"}, "/kind"),
        ({"settings": {}, "name": "x" * 121}, "/name"),
        ({"settings": {}, "name": ""}, "/name"),
        ({"settings": {}, "name": ["x"]}, "/name"),
        ({"settings": {}, "name": 7}, "/name"),
        ({"settings": {}, "wants_control": "true"}, "/wants_control"),
        ({"kind": "external", "settings": {"task": "a", "host": "b", "epochs": "3"}}, "/settings/epochs"),
        ({"settings": {}, "library_source": "secret"}, "/library_source"),
        ({"settings": {}, "wants_control": "perhaps"}, "/wants_control"),
        ({"kind": "external", "settings": {"task": "a", "host": "b"}}, "/settings/epochs"),
        ({"kind": "external", "settings": {"task": "a", "host": "b", "epochs": 0}}, "/settings/epochs"),
        ({"kind": "external", "settings": {"task": "a" * 65, "host": "b", "epochs": 1}}, "/settings/task"),
        (
            {"kind": "external", "settings": {"task": "a", "host": "b", "epochs": 1}, "wants_control": True},
            "/wants_control",
        ),
        ({"settings": {}, "name": "a\0b"}, "/name"),
    ],
)
def test_a_wrong_run_is_named(admin: Caller, body: Any, pointer: str) -> None:
    assert_problem(admin.post("/api/v1/runs", body), 400, "invalid", pointer)


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        (spec(version=2), "/spec/version"),
        (spec(operator="explode"), "/spec/operator"),
        (spec(surprise=1), "/spec/surprise"),
        (spec(output="nothing"), "/spec/output"),
        (spec(nodes=[]), "/spec/nodes"),
        (spec(nodes=[node("a", "linear", ["b"], out_features=8), node("b", "relu", ["a"])], output="b"), "/spec/nodes"),
        (spec(nodes=[node("a", "eval", ["input"])], output="a"), "/spec/nodes/0/op"),
        (
            spec(symbols={"D": 8}, nodes=[node("a", "linear", ["input"], out_features=9, init="zeros")], output="a"),
            "/spec/output",
        ),
        (
            spec(nodes=[node("a", "linear", ["input"], out_features="Z")], output="a"),
            "/spec/nodes/0/params/out_features",
        ),
        (spec(symbols={"D": -1, "H": 2}), "/spec/symbols/D"),
        ({}, "/spec"),
        ("text", "/spec"),
        (None, "/spec"),
    ],
)
def test_a_malformed_spec_is_named_where_it_is_wrong(admin: Caller, wrong: Any, pointer: str) -> None:
    body = assert_problem(admin.post("/api/v1/blueprints", {"name": "mlp", "spec": wrong}), 400)

    assert body["errors"][0]["pointer"].startswith(pointer), body


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "Upper Case"}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"title": "no name"}, "/name"),
        ({"name": "a", "tags": {"deep": {"er": 1}}}, "/tags/deep"),
        ({"name": "a", "tags": "text"}, "/tags"),
        ({"name": "a", "card": {str(number): 1 for number in range(33)}}, "/card"),
        ({"name": "a", "id": "mine"}, "/id"),
        ({"name": "a", "row_version": 7}, "/row_version"),
    ],
)
def test_a_wrong_blueprint_is_named(admin: Caller, body: Any, pointer: str) -> None:
    problem = assert_problem(admin.post("/api/v1/blueprints", body), 400)

    assert problem["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    ("path", "body", "pointer", "detail"),
    [
        (
            "kernels",
            {"blueprint": "mlp", "pipeline": "turbo"},
            "/pipeline",
            "must be one of fast, standard, aggressive",
        ),
        ("tag-keys", {"name": "arch", "type": "date"}, "/type", "must be one of text, number, boolean"),
        ("kernels", {"blueprint": "mlp", "tags": ["conv"]}, "/tags", "must be a JSON object"),
        ("kernels", ["mlp"], "", "must be a JSON object"),
    ],
)
def test_a_refusal_says_what_would_be_right(admin: Caller, path: str, body: Any, pointer: str, detail: str) -> None:
    (error,) = assert_problem(admin.post(f"/api/v1/{path}", body), 400)["errors"]

    assert (error["pointer"], error["detail"]) == (pointer, detail)


def test_every_mistake_is_told_at_once(admin: Caller) -> None:
    body = assert_problem(admin.post("/api/v1/blueprints", {"nome": "x", "title": 3 * ["x"], "tags": 1}), 400)

    assert {error["pointer"] for error in body["errors"]} == {"/nome", "/name", "/title", "/tags"}


@pytest.mark.parametrize(
    "raw", [b"{", b"", b"\xff", b"[1]", b'"text"', b"null", b"17", b"[" * 5000, b'{"name": NaN}', b'{"a":1,"a":2}']
)
def test_what_is_no_json_object_is_refused(admin: Caller, raw: bytes) -> None:
    assert_problem(admin.generic("POST", "/api/v1/blueprints", raw, content_type="application/json"), 400)


def test_a_body_over_the_limit_is_refused(admin: Caller, settings: Any) -> None:
    settings.MAX_JSON_BODY = 1000

    response = admin.post("/api/v1/blueprints", {"name": "a", "title": "x" * 1000})

    assert_problem(response, 413, "payload_too_large")


def test_a_wrong_token_writes_nothing(nobody: Caller) -> None:
    nobody.credentials(HTTP_AUTHORIZATION="Bearer esper_" + "0" * 64)

    assert_problem(nobody.post("/api/v1/runs", {"settings": {"task": "digits"}}), 401, "authentication_failed")


@pytest.mark.parametrize(
    "query", ["?name=%00", "?subject_id=%00", "?state=RUNNING&state=%00", "?owner=%00", "?cursor=%00"]
)
def test_a_nul_in_a_query_is_refused(admin: Caller, query: str) -> None:
    path = "/api/v1/audit/events" if "subject" in query else "/api/v1/runs"

    assert_problem(admin.get(path + query), 400)
