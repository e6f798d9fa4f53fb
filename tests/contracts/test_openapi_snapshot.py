"""docs/openapi.yaml is the API that runs: a change of the API shows in review."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator

from tests.contracts.planted_urls import PREFIX

SNAPSHOT = Path(__file__).parents[2] / "docs" / "openapi.yaml"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return SchemaGenerator().get_schema(request=None, public=True)


def test_the_snapshot_equals_the_running_api(tmp_path: Path) -> None:
    generated = tmp_path / "openapi.yaml"

    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(generated))

    assert generated.read_text() == SNAPSHOT.read_text(), "run `make openapi` and look at what has changed"


def test_another_address_would_change_it() -> None:
    planted = SchemaGenerator(urlconf="tests.contracts.planted_urls").get_schema(request=None, public=True)

    assert set(planted["paths"]) - set(yaml.safe_load(SNAPSHOT.read_text())["paths"]) == {
        f"/{PREFIX}each",
        f"/{PREFIX}open",
        f"/{PREFIX}without-scopes",
        f"/{PREFIX}wrong-scope",
    }


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")


def test_every_operation_says_what_it_does_what_it_needs_and_how_it_refuses(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            text, _, needs = operation["description"].rpartition("\n\n")
            assert text, f"{method} {path} has no description"
            assert needs.startswith("Needs "), f"{method} {path} names no scope"
            assert {"400", "401", "403", "429", "503"} <= set(operation["responses"]), f"{method} {path}"
            assert operation["security"] == [{"bearer": []}, {"session": []}]


def test_every_post_that_creates_or_starts_takes_an_idempotency_key(document: dict[str, Any]) -> None:
    posts = {path: operations["post"] for path, operations in document["paths"].items() if "post" in operations}

    without = {
        path
        for path, operation in posts.items()
        if "Idempotency-Key" not in {parameter["name"] for parameter in operation.get("parameters", [])}
    }

    # The answers of the ones hold a secret, which is not stored; the others read only.
    secrets = {"/api/v1/tokens", "/api/v1/alert-routes", "/api/v1/alert-routes/{id}/rotate-secret"}
    reading = {"/api/v1/kernels/search", "/api/v1/alert-rules/preview"}
    assert without == secrets | reading


def test_every_refusal_is_a_problem(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert response == {"$ref": f"#/components/responses/Problem{status}"}, f"{method} {path}"


def test_no_operation_id_is_used_twice(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]

    assert len(ids) == len(set(ids))
