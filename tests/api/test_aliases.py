"""Aliases over HTTP: set, moved with the version that was seen, protected, taken away, and as they were."""

from typing import Any
from urllib.parse import quote

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.blueprints.models import Blueprint
from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import AliasPeriod, Kernel, KernelAlias
from tests.api.conftest import Caller
from tests.support.factories import BlueprintFactory, BlueprintVersionFactory, KernelFactory
from tests.support.problems import assert_problem


@pytest.fixture
def blueprint(db: None) -> Blueprint:
    blueprint: Blueprint = BlueprintFactory(name="mlp")
    return blueprint


def kernel_of(blueprint: Blueprint, state: str = KernelState.VALIDATED) -> Kernel:
    kernel: Kernel = KernelFactory(blueprint_version=BlueprintVersionFactory(blueprint=blueprint), state=state)
    return kernel


def path_of(blueprint: Blueprint, name: str = "candidate") -> str:
    return f"/api/v1/blueprints/{blueprint.pk}/aliases/{name}"


def put(client: Caller, kernel: Kernel, name: str = "candidate", reason: str = "", etag: str = "") -> Any:
    headers = {"If-Match": etag} if etag else {}
    body = {"reason": reason} if reason else {}
    return client.put(f"/api/v1/kernels/{kernel.pk}/aliases/{name}", body, headers=headers)


def test_the_first_set_needs_no_if_match_and_can_be_read_back(admin: Caller, blueprint: Blueprint) -> None:
    kernel = kernel_of(blueprint)

    response = put(admin, kernel)

    assert response.status_code == 201
    read = admin.get(response["Location"])
    assert (read.json(), read["ETag"]) == (response.json(), response["ETag"])
    assert (read.json()["blueprint"], read.json()["name"]) == ("mlp", "candidate")
    assert (read.json()["kernel_id"], read.json()["digest"]) == (str(kernel.pk), kernel.digest)
    assert [row["name"] for row in admin.get(f"/api/v1/blueprints/{blueprint.pk}/aliases").json()["results"]] == [
        "candidate"
    ]


def test_a_client_that_has_the_alias_gets_304(admin: Caller, blueprint: Blueprint) -> None:
    etag = put(admin, kernel_of(blueprint))["ETag"]

    assert admin.get(path_of(blueprint), headers={"If-None-Match": etag}).status_code == 304


def test_moving_an_alias_needs_the_version_that_was_seen(admin: Caller, blueprint: Blueprint) -> None:
    first, second, third = (kernel_of(blueprint) for _ in range(3))
    seen = put(admin, first)["ETag"]

    assert_problem(put(admin, second), 428, "if_match_required")
    assert put(admin, second, etag=seen).status_code == 200
    assert_problem(put(admin, third, etag=seen), 412, "if_match")
    assert admin.get(path_of(blueprint)).json()["kernel_id"] == str(second.pk)


def test_pointing_it_where_it_points_changes_nothing(admin: Caller, blueprint: Blueprint) -> None:
    kernel = kernel_of(blueprint)
    first = put(admin, kernel)
    events = AuditEvent.objects.count()

    again = put(admin, kernel)

    assert (again.status_code, again["ETag"]) == (200, first["ETag"])
    assert (AuditEvent.objects.count(), AliasPeriod.objects.count()) == (events, 1)


def test_if_match_never_holds_for_an_alias_that_points_at_nothing(admin: Caller, blueprint: Blueprint) -> None:
    assert_problem(put(admin, kernel_of(blueprint), etag="*"), 412, "if_match")
    assert not KernelAlias.objects.exists()


@pytest.mark.parametrize("name", ["Prod", "9lives", "-x", "a" * 33])
def test_a_malformed_name_is_named_and_nothing_is_written(admin: Caller, blueprint: Blueprint, name: str) -> None:
    problem = assert_problem(put(admin, kernel_of(blueprint), name), 400, "invalid")

    assert {error["pointer"] for error in problem["errors"]} == {"/name"}
    assert not KernelAlias.objects.exists()


def test_an_unknown_member_and_an_unknown_kernel_are_refused(admin: Caller, blueprint: Blueprint) -> None:
    kernel = kernel_of(blueprint)

    wrong = admin.put(f"/api/v1/kernels/{kernel.pk}/aliases/candidate", {"kernel": "x"})

    assert_problem(wrong, 400, "", "/kernel")
    assert_problem(put(admin, Kernel()), 404)


@pytest.mark.parametrize("name", ["candidate", "prod"])
@pytest.mark.parametrize(
    "state", [KernelState.REJECTED, KernelState.QUARANTINED, KernelState.RETIRED, KernelState.PURGED]
)
def test_no_alias_points_at_what_must_not_be_used(admin: Caller, blueprint: Blueprint, name: str, state: str) -> None:
    assert_problem(put(admin, kernel_of(blueprint, state), name), 409, "not_a_target")


def test_a_protected_alias_points_at_validated_kernels_only(admin: Caller, blueprint: Blueprint) -> None:
    unproven = kernel_of(blueprint, KernelState.COMPILED)

    assert_problem(put(admin, unproven, "prod"), 409, "not_validated")
    assert put(admin, unproven, "candidate").status_code == 201


def test_what_a_protected_alias_points_at_is_not_deprecated(admin: Caller, blueprint: Blueprint) -> None:
    kernel = kernel_of(blueprint)
    services.set_alias(kernel=kernel, name="prod", actor=SYSTEM)
    path = f"/api/v1/kernels/{kernel.pk}/deprecate"

    assert_problem(admin.post(path, {"reason": "slow"}, format="json"), 409, "protected")
    services.unprotect_alias(alias=KernelAlias.objects.get(), reason="slow", actor=SYSTEM)
    assert admin.post(path, {"reason": "slow"}, format="json").status_code == 200


def test_prod_is_protected_from_its_birth_and_moves_with_a_reason_only(admin: Caller, blueprint: Blueprint) -> None:
    first = put(admin, kernel_of(blueprint), "prod")
    second = kernel_of(blueprint)

    assert first.json()["is_protected"] is True
    assert_problem(put(admin, second, "prod", etag=first["ETag"]), 400, "required", "/reason")
    assert put(admin, second, "prod", "faster by a third", first["ETag"]).status_code == 200
    assert AuditEvent.objects.filter(type="alias.set").order_by("id").last().reason == "faster by a third"


def test_protection_is_given_freely_and_lifted_with_a_reason(admin: Caller, blueprint: Blueprint) -> None:
    etag = put(admin, kernel_of(blueprint))["ETag"]

    given = admin.patch(path_of(blueprint), {"is_protected": True}, headers={"If-Match": etag})
    assert (given.status_code, given.json()["is_protected"]) == (200, True)
    refused = admin.patch(path_of(blueprint), {"is_protected": False}, headers={"If-Match": given["ETag"]})
    assert_problem(refused, 400, "required", "/reason")
    lifted = admin.patch(
        path_of(blueprint), {"is_protected": False, "reason": "over"}, headers={"If-Match": given["ETag"]}
    )

    assert lifted.json()["is_protected"] is False
    assert AuditEvent.objects.filter(type="alias.protection_changed").count() == 2


def test_what_points_at_an_unproven_kernel_cannot_be_protected(admin: Caller, blueprint: Blueprint) -> None:
    etag = put(admin, kernel_of(blueprint, KernelState.COMPILED))["ETag"]

    response = admin.patch(path_of(blueprint), {"is_protected": True}, headers={"If-Match": etag})

    assert_problem(response, 409, "not_validated")


def test_changing_the_protection_needs_the_version_that_was_seen(admin: Caller, blueprint: Blueprint) -> None:
    put(admin, kernel_of(blueprint))

    assert_problem(admin.patch(path_of(blueprint), {"is_protected": True}), 428)
    assert_problem(admin.patch(path_of(blueprint), {"is_protected": True}, headers={"If-Match": '"v9"'}), 412)


def test_an_alias_is_taken_away_once_and_again_is_a_success(admin: Caller, blueprint: Blueprint) -> None:
    etag = put(admin, kernel_of(blueprint))["ETag"]

    assert_problem(admin.delete(path_of(blueprint)), 428)
    assert admin.delete(path_of(blueprint), headers={"If-Match": etag}).status_code == 204
    assert admin.delete(path_of(blueprint), headers={"If-Match": etag}).status_code == 204
    assert_problem(admin.get(path_of(blueprint)), 404)
    assert admin.get(f"/api/v1/blueprints/{blueprint.pk}/aliases").json()["results"] == []
    assert AuditEvent.objects.filter(type="alias.removed").count() == 1


def test_a_protected_alias_is_taken_away_with_a_reason_only(admin: Caller, blueprint: Blueprint) -> None:
    headers = {"If-Match": put(admin, kernel_of(blueprint), "prod")["ETag"]}
    path = path_of(blueprint, "prod")

    assert_problem(admin.delete(path, headers=headers), 400, "required", "/reason")
    assert_problem(admin.delete(f"{path}?because=x", headers=headers), 400, "", "/because")
    assert admin.delete(f"{path}?reason=withdrawn", headers=headers).status_code == 204


def test_a_name_that_was_taken_away_is_set_again_as_the_first_time(admin: Caller, blueprint: Blueprint) -> None:
    etag = put(admin, kernel_of(blueprint))["ETag"]
    admin.delete(path_of(blueprint), headers={"If-Match": etag})
    kernel = kernel_of(blueprint)

    assert put(admin, kernel).status_code == 201
    assert admin.get(path_of(blueprint)).json()["kernel_id"] == str(kernel.pk)


def test_the_history_is_a_row_of_periods_that_meet(admin: Caller, blueprint: Blueprint) -> None:
    first, second = kernel_of(blueprint), kernel_of(blueprint)
    etag = put(admin, first)["ETag"]
    put(admin, second, etag=etag)

    newest, oldest = admin.get(f"{path_of(blueprint)}/history").json()["results"]

    assert (oldest["kernel_id"], newest["kernel_id"]) == (str(first.pk), str(second.pk))
    assert (oldest["ended_at"], newest["ended_at"]) == (newest["started_at"], None)


def test_an_alias_is_shown_as_it_was_also_after_it_was_taken_away(admin: Caller, blueprint: Blueprint) -> None:
    first, second = kernel_of(blueprint), kernel_of(blueprint)
    etag = put(admin, first)["ETag"]
    then = timezone.now()
    etag = put(admin, second, etag=etag)["ETag"]
    admin.delete(path_of(blueprint), headers={"If-Match": etag})

    past = admin.get(f"{path_of(blueprint)}?as_of={quote(then.isoformat())}").json()
    now = admin.get(f"{path_of(blueprint)}?as_of={quote(timezone.now().isoformat())}").json()

    assert (past["subject_type"], past["state"]["kernel_id"]) == ("alias", str(first.pk))
    assert now["state"]["kernel_id"] is None


@pytest.mark.parametrize("suffix", ["", "/history", "?as_of=2026-01-01T00:00:00Z"])
def test_an_alias_that_never_was_is_404(admin: Caller, blueprint: Blueprint, suffix: str) -> None:
    assert_problem(admin.get(f"{path_of(blueprint, 'nothing')}{suffix}"), 404)
    assert_problem(admin.get(f"{path_of(Blueprint(), 'nothing')}{suffix}"), 404)


def test_what_never_was_cannot_be_changed_or_taken_away(admin: Caller, blueprint: Blueprint) -> None:
    assert_problem(admin.delete(path_of(blueprint, "nothing")), 404)
    assert_problem(admin.patch(path_of(blueprint, "nothing"), {"is_protected": True}), 404)
    assert_problem(admin.get(f"/api/v1/blueprints/{Blueprint().pk}/aliases"), 404)


def test_a_viewer_reads_aliases_and_changes_none(caller: Any, admin: Caller, blueprint: Blueprint) -> None:
    kernel = kernel_of(blueprint)
    etag = put(admin, kernel)["ETag"]
    viewer = caller("viewer")

    assert viewer.get(path_of(blueprint)).status_code == 200
    assert_problem(put(viewer, kernel), 403)
    assert_problem(viewer.delete(path_of(blueprint), headers={"If-Match": etag}), 403)
