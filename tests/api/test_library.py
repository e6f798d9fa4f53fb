"""Blueprints, versions, kernels and field reports."""

from typing import Any

import pytest
from django.db import connection
from django.test import TestCase

from apps.audit.models import AuditEvent
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.core.queue import enqueue
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from tests.api.conftest import Caller
from tests.support.factories import (
    BlueprintFactory,
    BlueprintVersionFactory,
    FieldReportFactory,
    KernelFactory,
    residual_spec,
)
from tests.support.problems import assert_problem


def test_a_blueprint_is_created_with_its_first_version(admin: Caller) -> None:
    response = admin.post(
        "/api/v1/blueprints", {"name": "mlp", "title": "An MLP", "tags": {"layer": "linear"}, "spec": residual_spec()}
    )

    assert response.status_code == 201
    blueprint = admin.get(response["Location"]).json()
    assert (blueprint["name"], blueprint["title"], blueprint["tags"]) == ("mlp", "An MLP", {"layer": "linear"})
    versions = admin.get(f"{response['Location']}/versions").json()["results"]
    assert [(row["number"], row["state"], row["operator"]) for row in versions] == [(1, "SUBMITTED", "residual")]
    event = AuditEvent.objects.get(type="blueprint.created")
    assert (event.subject_id, event.token_id) == (blueprint["id"], str(admin.token.id))


def test_of_a_blueprint_and_a_wrong_spec_neither_is_written(admin: Caller) -> None:
    response = admin.post("/api/v1/blueprints", {"name": "mlp", "spec": {"version": 1}})

    assert_problem(response, 400)
    assert not Blueprint.objects.exists()


def test_the_next_version_gets_the_next_number(admin: Caller) -> None:
    path = admin.post("/api/v1/blueprints", {"name": "mlp", "spec": residual_spec()})["Location"]

    response = admin.post(f"{path}/versions", {"spec": residual_spec(hidden=32)})

    assert response.status_code == 201
    assert response["Location"] == f"{path}/versions/2"
    assert admin.get(response["Location"]).json()["spec"]["symbols"]["H"] == 32


def test_the_same_spec_again_is_the_version_that_there_is_and_nothing_is_written(admin: Caller) -> None:
    path = admin.post("/api/v1/blueprints", {"name": "mlp", "spec": residual_spec()})["Location"]
    events = AuditEvent.objects.count()

    response = admin.post(f"{path}/versions", {"spec": residual_spec()})

    assert (response.status_code, response.json()["number"]) == (200, 1)
    assert response.json() == admin.get(f"{path}/versions/1").json()
    assert (BlueprintVersion.objects.count(), AuditEvent.objects.count()) == (1, events)
    assert admin.post(f"{path}/versions", {"spec": residual_spec(hidden=32)}).json()["number"] == 2


def test_a_taken_name_is_a_conflict(admin: Caller) -> None:
    BlueprintFactory(name="mlp")

    assert_problem(admin.post("/api/v1/blueprints", {"name": "mlp"}), 409, "duplicate", "/name")


def queued(callbacks: list[Any]) -> list[Any]:
    """Those of the callbacks at commit that queue a task."""
    return [call for call in callbacks if getattr(call, "func", None) is enqueue]


def test_a_kernel_is_registered_by_the_blueprints_name_and_queued_once_committed(admin: Caller) -> None:
    BlueprintVersionFactory(blueprint=BlueprintFactory(name="mlp"), number=1, spec=residual_spec())

    with TestCase.captureOnCommitCallbacks() as callbacks:
        response = admin.post("/api/v1/kernels", {"blueprint": "mlp", "bindings": {"D": 4}, "tags": {"a": [1, "b"]}})

    kernel = response.json()
    assert response.status_code == 201
    assert (kernel["state"], kernel["bindings"]) == ("REGISTERED", {"D": 4, "H": 16})
    assert kernel["compat"] == {"operator": "residual", "input": ["N", 4], "output": ["N", 4]}
    assert len(queued(callbacks)) == 1


def test_a_kernel_that_awaits_its_bytes_is_not_queued(admin: Caller) -> None:
    version = BlueprintVersionFactory()

    with TestCase.captureOnCommitCallbacks() as callbacks:
        body = {"blueprint": str(version.blueprint_id), "version": version.number, "awaits_upload": True}
        assert admin.post("/api/v1/kernels", body).json()["awaits_upload"] is True

    assert queued(callbacks) == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"blueprint": "nothing"}, "/blueprint"),
        ({"version": 99}, "/version"),
        ({"bindings": {"D": 0}}, "/bindings/D"),
        ({"bindings": {"Z": 4}}, "/bindings/Z"),
        ({"bindings": {"D": "wide"}}, "/bindings/D"),
        ({"bindings": [1]}, "/bindings"),
        ({"tags": {"a": {"b": 1}}}, "/tags/a"),
        ({"state": "VALIDATED"}, "/state"),
    ],
)
def test_a_wrong_kernel_names_its_field_and_writes_nothing(
    admin: Caller, change: dict[str, object], pointer: str
) -> None:
    BlueprintVersionFactory(blueprint=BlueprintFactory(name="mlp"), number=1, spec=residual_spec())

    assert_problem(admin.post("/api/v1/kernels", {"blueprint": "mlp", **change}), 400, "", pointer)
    assert not Kernel.objects.exists()


def test_a_contract_that_has_a_live_kernel_is_answered_with_it_and_nothing_is_written(admin: Caller) -> None:
    BlueprintVersionFactory(blueprint=BlueprintFactory(name="mlp"), number=1)
    first = admin.post("/api/v1/kernels", {"blueprint": "mlp"})
    events = AuditEvent.objects.count()

    again = admin.post("/api/v1/kernels", {"blueprint": "mlp", "tags": {"other": True}})

    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json(), again["ETag"], again["Location"]) == (first.json(), first["ETag"], first["Location"])
    assert AuditEvent.objects.count() == events


def test_a_rejected_kernel_leaves_its_contract_free(admin: Caller) -> None:
    version = BlueprintVersionFactory(blueprint=BlueprintFactory(name="mlp"), number=1)
    KernelFactory(blueprint_version=version, state=KernelState.REJECTED)

    assert admin.post("/api/v1/kernels", {"blueprint": "mlp"}).status_code == 201


def test_kernels_are_filtered_by_state_operator_and_blueprint(admin: Caller) -> None:
    blueprint = BlueprintFactory(name="mlp")
    wanted = KernelFactory(blueprint_version=BlueprintVersionFactory(blueprint=blueprint), state=KernelState.VALIDATED)
    KernelFactory(blueprint_version=BlueprintVersionFactory(blueprint=blueprint))
    KernelFactory(state=KernelState.VALIDATED)

    for reference in ("mlp", str(blueprint.pk)):
        rows = admin.get(f"/api/v1/kernels?state=VALIDATED&operator=residual&blueprint={reference}").json()["results"]
        assert [row["id"] for row in rows] == [str(wanted.pk)]


def test_a_kernels_report_is_in_its_detail_only(admin: Caller) -> None:
    kernel = KernelFactory(state=KernelState.VALIDATED, report={"compile": {"seconds": 0.1}})

    assert admin.get(f"/api/v1/kernels/{kernel.pk}").json()["report"] == {"compile": {"seconds": 0.1}}
    assert "report" not in admin.get("/api/v1/kernels").json()["results"][0]


def test_field_reports_are_filtered_by_kernel(admin: Caller) -> None:
    wanted, _ = FieldReportFactory(), FieldReportFactory()

    rows = admin.get(f"/api/v1/field-reports?kernel={wanted.kernel_id}").json()["results"]

    assert [row["id"] for row in rows] == [str(wanted.pk)]


def test_the_database_refuses_a_move_that_the_table_lacks_whoever_asks(admin: Caller) -> None:
    kernel = KernelFactory(state=KernelState.VALIDATED)

    with pytest.raises(Exception, match="Invalid transition"), connection.cursor() as cursor:
        cursor.execute("UPDATE kernels_kernel SET state = 'REGISTERED' WHERE id = %s", [kernel.pk])
