"""What people decide about one kernel, over HTTP: tags, pin, legal hold, successor; deprecation and quarantine."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, TagKey, TagType
from tests.api.conftest import Caller
from tests.support.factories import FieldReportFactory, KernelFactory
from tests.support.problems import assert_problem

COMPAT = {"operator": "residual", "input": ["N", 8], "output": ["N", 8]}
NOWHERE = "01a20a62-0000-7000-8000-000000000000"


@pytest.fixture
def kernel(db: None) -> Kernel:
    kernel: Kernel = KernelFactory(state=KernelState.VALIDATED, compat=COMPAT)
    return kernel


def path_of(kernel: Kernel) -> str:
    return f"/api/v1/kernels/{kernel.pk}"


def patch(client: Caller, kernel: Kernel, body: Any, etag: str | None = None) -> Any:
    seen = client.get(path_of(kernel))["ETag"] if etag is None else etag
    return client.patch(path_of(kernel), body, headers={"If-Match": seen})


def soon(days: float = 30) -> str:
    return (timezone.now() + timedelta(days=days)).isoformat()


def test_what_is_given_changes_and_the_rest_stays(admin: Caller, kernel: Kernel) -> None:
    until = soon()
    patch(admin, kernel, {"tags": {"arch": "mlp"}, "pinned_until": until})

    response = patch(admin, kernel, {"legal_hold": True, "reason": "audit of 2026"})

    assert response.status_code == 200
    shown = admin.get(path_of(kernel))
    assert (shown.json(), shown["ETag"]) == (response.json(), response["ETag"])
    assert (shown.json()["tags"], shown.json()["legal_hold"]) == ({"arch": "mlp"}, True)
    assert shown.json()["pinned_until"] == until.replace("+00:00", "Z")
    event = AuditEvent.objects.filter(type="kernel.modified").order_by("id").last()
    assert (event.subject_id, event.reason) == (str(kernel.pk), "audit of 2026")


@pytest.mark.parametrize("said", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_an_empty_body_that_is_said_to_be_a_form_changes_nothing(admin: Caller, kernel: Kernel, said: str) -> None:
    changed = patch(admin, kernel, {"tags": {"arch": "mlp"}, "legal_hold": True})

    response = admin.generic("PATCH", path_of(kernel), b"", content_type=said, headers={"If-Match": changed["ETag"]})

    assert (response.status_code, response.json()) == (200, changed.json())


def test_of_two_who_saw_the_same_version_the_second_is_refused(admin: Caller, kernel: Kernel) -> None:
    seen = admin.get(path_of(kernel))["ETag"]

    assert_problem(admin.patch(path_of(kernel), {"tags": {}}), 428, "if_match_required")
    assert patch(admin, kernel, {"tags": {"by": "ada"}}, seen).status_code == 200
    assert_problem(patch(admin, kernel, {"tags": {"by": "bob"}}, seen), 412, "if_match")
    assert Kernel.objects.get(pk=kernel.pk).tags == {"by": "ada"}


def test_the_same_values_again_change_nothing(admin: Caller, kernel: Kernel) -> None:
    first = patch(admin, kernel, {"tags": {"arch": "mlp"}})
    events = AuditEvent.objects.count()

    again = patch(admin, kernel, {"tags": {"arch": "mlp"}})

    assert (again.status_code, again["ETag"], AuditEvent.objects.count()) == (200, first["ETag"], events)


def test_true_in_the_place_of_one_is_a_change(admin: Caller, kernel: Kernel) -> None:
    patch(admin, kernel, {"tags": {"wide": 1}})
    events = AuditEvent.objects.count()

    assert patch(admin, kernel, {"tags": {"wide": True}}).json()["tags"] == {"wide": True}
    assert AuditEvent.objects.count() == events + 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"tags": {"a": {"b": 1}}}, "/tags/a"),
        ({"tags": ["a"]}, "/tags"),
        ({"tags": None}, "/tags"),
        ({"pinned_until": "tomorrow"}, "/pinned_until"),
        ({"pinned_until": 7}, "/pinned_until"),
        ({"pinned_until": "2031-01-01T00:00:00"}, "/pinned_until"),
        ({"pinned_until": "2031-13-01T00:00:00Z"}, "/pinned_until"),
        ({"pinned_until": "0001-01-01T00:00:00+23:59"}, "/pinned_until"),
        ({"pinned_until": soon(-1)}, "/pinned_until"),
        ({"pinned_until": soon(6 * 366)}, "/pinned_until"),
        ({"pinned_until": "9999-12-31T23:59:59-23:59"}, "/pinned_until"),
        ({"legal_hold": "yes"}, "/legal_hold"),
        ({"legal_hold": None}, "/legal_hold"),
        ({"successor": "x"}, "/successor"),
        ({"successor": 7}, "/successor"),
        ({"successor": NOWHERE}, "/successor"),
        ({"reason": 7}, "/reason"),
        ({"state": "VALIDATED"}, "/state"),
    ],
)
def test_a_wrong_value_names_its_field_and_writes_nothing(
    admin: Caller, kernel: Kernel, body: dict[str, Any], pointer: str
) -> None:
    assert_problem(patch(admin, kernel, body), 400, "", pointer)
    assert Kernel.objects.get(pk=kernel.pk).row_version == kernel.row_version


def test_a_tag_is_as_it_was_declared(admin: Caller, kernel: Kernel) -> None:
    TagKey.objects.create(name="arch", type=TagType.TEXT, choices=["mlp", "conv"])

    assert_problem(patch(admin, kernel, {"tags": {"arch": 7}}), 400, "type", "/tags/arch")
    assert_problem(patch(admin, kernel, {"tags": {"arch": "gru"}}), 400, "choice", "/tags/arch")
    assert patch(admin, kernel, {"tags": {"arch": "conv", "free": 7}}).status_code == 200


def test_a_pin_is_lifted_by_null(admin: Caller, kernel: Kernel) -> None:
    patch(admin, kernel, {"pinned_until": soon()})

    assert patch(admin, kernel, {"pinned_until": None}).json()["pinned_until"] is None


def test_a_pin_that_ran_out_does_not_stand_in_the_way_of_other_changes(admin: Caller, kernel: Kernel) -> None:
    past = timezone.now() - timedelta(days=1)
    Kernel.objects.filter(pk=kernel.pk).update(pinned_until=past)

    assert patch(admin, kernel, {"pinned_until": past.isoformat(), "tags": {"a": 1}}).status_code == 200


def test_a_legal_hold_is_lifted_with_a_reason_only(admin: Caller, kernel: Kernel) -> None:
    patch(admin, kernel, {"legal_hold": True})

    assert_problem(patch(admin, kernel, {"legal_hold": False}), 400, "required", "/reason")
    assert_problem(patch(admin, kernel, {"legal_hold": False, "reason": "  "}), 400, "", "/reason")
    assert patch(admin, kernel, {"legal_hold": False, "reason": "case closed"}).json()["legal_hold"] is False


# --- Successors


def successor(**values: Any) -> Kernel:
    kernel: Kernel = KernelFactory(**{"state": KernelState.VALIDATED, "compat": COMPAT, **values})
    return kernel


def test_a_successor_is_named_and_taken_away_again(admin: Caller, kernel: Kernel) -> None:
    better = successor()

    named = patch(admin, kernel, {"successor": str(better.pk)})
    removed = patch(admin, kernel, {"successor": None})

    assert (named.json()["successor_id"], removed.json()["successor_id"]) == (str(better.pk), None)


def test_a_successor_has_the_same_contract(admin: Caller, kernel: Kernel) -> None:
    other = successor(compat={**COMPAT, "input": ["N", 16]})

    assert_problem(patch(admin, kernel, {"successor": str(other.pk)}), 400, "contract", "/successor")


@pytest.mark.parametrize("state", [KernelState.REGISTERED, KernelState.DEPRECATED, KernelState.QUARANTINED])
def test_a_successor_is_validated(admin: Caller, kernel: Kernel, state: str) -> None:
    assert_problem(patch(admin, kernel, {"successor": str(successor(state=state).pk)}), 409, "not_validated")


def test_no_kernel_replaces_itself_in_one_step_or_in_three(admin: Caller, kernel: Kernel) -> None:
    second, third = successor(), successor()
    patch(admin, kernel, {"successor": str(second.pk)})
    patch(admin, second, {"successor": str(third.pk)})

    assert_problem(patch(admin, kernel, {"successor": str(kernel.pk)}), 400, "cycle", "/successor")
    assert_problem(patch(admin, third, {"successor": str(kernel.pk)}), 400, "cycle", "/successor")


# --- Whose, and when


def test_a_purged_kernel_does_not_change_any_more(admin: Caller) -> None:
    gone = KernelFactory(state=KernelState.PURGED)

    assert_problem(patch(admin, gone, {"tags": {"a": 1}}), 409, "purged")


def test_a_viewer_changes_nothing_and_an_unknown_kernel_is_404(caller: Any, admin: Caller, kernel: Kernel) -> None:
    assert_problem(patch(caller("viewer"), kernel, {"tags": {}}), 403)
    assert_problem(admin.patch(path_of(Kernel()), {"tags": {}}, headers={"If-Match": "*"}), 404)


@pytest.mark.parametrize(
    ("verb", "state"), [("deprecate", KernelState.DEPRECATED), ("quarantine", KernelState.QUARANTINED)]
)
def test_a_kernel_is_taken_out_of_use_for_a_reason(admin: Caller, kernel: Kernel, verb: str, state: str) -> None:
    assert_problem(admin.post(f"{path_of(kernel)}/{verb}", {}), 400, "", "/reason")

    response = admin.post(f"{path_of(kernel)}/{verb}", {"reason": "it is old"})

    assert (response.status_code, response.json()["state"]) == (200, state)
    assert_problem(admin.post(f"{path_of(kernel)}/{verb}", {"reason": "again"}), 409, "invalid_transition")


# --- What it did


def test_the_detail_tells_what_its_grafts_came_to(admin: Caller, kernel: Kernel) -> None:
    FieldReportFactory(kernel=kernel, contribution=0.05, contribution_low=0.02, contribution_high=0.09)
    FieldReportFactory(verdict="CULLED")

    assert admin.get(path_of(kernel)).json()["outcomes"] == {
        "grafts": 1,
        "kept": 1,
        "gain_mean": 0.05,
        "gain_low": 0.02,
        "gain_high": 0.09,
    }


def test_over_several_grafts_the_interval_is_symmetric_about_the_mean(admin: Caller, kernel: Kernel) -> None:
    Kernel.objects.filter(pk=kernel.pk).update(metrics={"gain_low": 0.01})
    FieldReportFactory(kernel=kernel, contribution=0.05)
    FieldReportFactory(kernel=kernel, contribution=0.03, verdict="CULLED")

    outcomes = admin.get(path_of(kernel)).json()["outcomes"]

    assert (outcomes["grafts"], outcomes["kept"], outcomes["gain_low"]) == (2, 1, 0.01)
    assert outcomes["gain_mean"] == pytest.approx(0.04)
    assert outcomes["gain_high"] == pytest.approx(0.07)


def test_a_kernel_that_no_run_used_has_no_gain(admin: Caller, kernel: Kernel) -> None:
    assert admin.get(path_of(kernel)).json()["outcomes"] == {
        "grafts": 0,
        "kept": 0,
        "gain_mean": None,
        "gain_low": None,
        "gain_high": None,
    }
