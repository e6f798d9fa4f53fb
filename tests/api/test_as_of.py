"""`?as_of=`: an asset as it was, told by the trail."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from django.db.models import Model

from apps.accounts import services as accounts
from apps.accounts.roles import Role, Scope
from apps.audit import services as audit
from apps.audit.api import as_of
from apps.audit.models import AuditEvent
from apps.audit.watched import image
from apps.blueprints import services as blueprints
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.kernels import services as kernels
from apps.kernels.models import Kernel
from tests.api.conftest import Caller
from tests.support.factories import (
    BlueprintFactory,
    BlueprintVersionFactory,
    KernelFactory,
    RunFactory,
    SeedFactory,
    UserFactory,
    residual_spec,
)
from tests.support.problems import assert_problem

MOMENT = timedelta(microseconds=1)


def path_of(kernel: Kernel) -> str:
    return f"/api/v1/kernels/{kernel.pk}"


def at(path: str, moment: datetime) -> str:
    return f"{path}?as_of={quote(moment.isoformat())}"


def times_of(row: Model) -> list[datetime]:
    """When each event about the row was recorded, oldest first."""
    return list(AuditEvent.objects.filter(subject_id=str(row.pk)).order_by("id").values_list("at", flat=True))


def tell(type: str, row: Model) -> datetime:
    """Record a row of a factory as it is; returns when."""
    return audit.record(type=type, subject=row, actor=SYSTEM, after=image(row)).at


@pytest.fixture
def kernel(db: None) -> Kernel:
    """Registered, uploaded, quarantined, and something said about it that changed nothing."""
    kernel = kernels.register_kernel(version=BlueprintVersionFactory(), awaits_upload=True, actor=SYSTEM)
    kernel = kernels.upload_binary(kernel=kernel, data=b"bytes", actor=SYSTEM)
    kernel = kernels.quarantine_kernel(kernel=kernel, reason="not what its digest says", actor=SYSTEM)
    audit.record(type="kernel.field_report", subject=kernel, actor=SYSTEM, reason="a report")
    return kernel


# --- Through several changes


def test_the_state_at_each_time_is_what_the_events_up_to_then_say(admin: Caller, kernel: Kernel) -> None:
    registered, uploaded, quarantined, reported = times_of(kernel)
    moments = [registered, uploaded - MOMENT, uploaded, quarantined - MOMENT, quarantined, reported]

    states = [admin.get(at(path_of(kernel), moment)).json()["state"] for moment in moments]

    assert [state["state"] for state in states] == [
        "REGISTERED",
        "REGISTERED",
        "UPLOADED",
        "UPLOADED",
        *["QUARANTINED"] * 2,
    ]
    assert [state["size"] for state in states] == [None, None, 5, 5, 5, 5]


def test_the_answer_names_the_last_event_and_whether_it_is_sealed(admin: Caller, kernel: Kernel) -> None:
    _, _, quarantined, _ = times_of(kernel)
    event = AuditEvent.objects.get(at=quarantined)

    answer = admin.get(at(path_of(kernel), quarantined)).json()

    assert answer.pop("state")["name"] == kernel.name
    assert datetime.fromisoformat(answer["event"].pop("at")) == quarantined
    assert datetime.fromisoformat(answer.pop("as_of")) == quarantined
    assert answer == {
        "id": str(kernel.pk),
        "subject_type": "kernel",
        "exists": True,
        "event": {"id": str(event.pk), "type": "kernel.quarantined"},
        "sealed": False,
    }


def test_an_event_that_changed_nothing_is_the_last_one_all_the_same(admin: Caller, kernel: Kernel) -> None:
    answer = admin.get(at(path_of(kernel), times_of(kernel)[-1])).json()

    assert answer["event"]["type"] == "kernel.field_report"
    assert answer["state"]["state"] == "QUARANTINED"


def test_times_of_any_zone_are_the_same_times(admin: Caller, kernel: Kernel) -> None:
    uploaded = times_of(kernel)[1]
    elsewhere = uploaded.astimezone(timezone(timedelta(hours=5, minutes=45)))

    answer = admin.get(at(path_of(kernel), elsewhere)).json()

    assert answer["state"]["state"] == "UPLOADED"
    assert datetime.fromisoformat(answer["as_of"]) == uploaded


def test_before_its_first_event_there_is_nothing(admin: Caller, kernel: Kernel) -> None:
    assert_problem(admin.get(at(path_of(kernel), times_of(kernel)[0] - MOMENT)), 404, "not_found")


def test_what_was_never_there_is_not_found(admin: Caller, kernel: Kernel) -> None:
    assert_problem(admin.get(at(f"/api/v1/kernels/{new_id()}", times_of(kernel)[0])), 404, "not_found")


def test_an_id_of_another_kind_of_asset_is_not_found(admin: Caller, kernel: Kernel) -> None:
    assert_problem(admin.get(at(f"/api/v1/blueprints/{kernel.pk}", times_of(kernel)[0])), 404, "not_found")


def test_a_removed_asset_still_has_its_past(admin: Caller, kernel: Kernel) -> None:
    before, key = times_of(kernel)[-1], kernel.pk
    gone = audit.record(type="kernel.transition", subject=kernel, actor=SYSTEM, before=image(kernel), after={})
    kernel.delete()
    path = f"/api/v1/kernels/{key}"

    assert admin.get(path).status_code == 404
    assert admin.get(at(path, before)).json()["state"]["state"] == "QUARANTINED"
    answer = admin.get(at(path, gone.at)).json()
    assert (answer["exists"], answer["state"], answer["event"]["id"]) == (False, {}, str(gone.pk))


def test_the_past_is_not_sent_twice(admin: Caller, kernel: Kernel) -> None:
    path = at(path_of(kernel), times_of(kernel)[1])
    etag = admin.get(path)["ETag"]
    audit.record(type="kernel.field_report", subject=kernel, actor=SYSTEM, reason="later")

    again = admin.get(path, headers={"If-None-Match": etag})

    assert (again.status_code, again.content, again["ETag"]) == (304, b"", etag)
    assert admin.get(at(path_of(kernel), times_of(kernel)[2]), headers={"If-None-Match": etag}).status_code == 200


def test_the_present_is_shown_as_ever(admin: Caller, kernel: Kernel) -> None:
    answer = admin.get(path_of(kernel)).json()

    assert answer["state"] == "QUARANTINED"
    assert "subject_type" not in answer


def test_an_event_that_the_archive_may_hold_is_not_guessed(
    admin: Caller, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the owner's function makes an archive's row (test_audit_archive.py): its end is put in its place here."""
    old = KernelFactory(id=UUID("016f5e66-e800-7000-8000-000000000000"))
    moment = tell("kernel.registered", old)
    monkeypatch.setattr(as_of, "archived_until", lambda: datetime(2021, 1, 1, tzinfo=UTC))

    assert_problem(admin.get(at(path_of(old), moment)), 404, "archived")
    assert admin.get(at(path_of(kernel), times_of(kernel)[0])).status_code == 200


# --- Every kind of asset


@pytest.mark.parametrize(
    ("type", "make", "path"),
    [
        ("blueprint.created", BlueprintFactory, "blueprints/{row.pk}"),
        ("blueprint.version_submitted", BlueprintVersionFactory, "blueprints/{row.blueprint_id}/versions/{row.number}"),
        ("kernel.registered", KernelFactory, "kernels/{row.pk}"),
        ("run.created", RunFactory, "runs/{row.pk}"),
        ("seed.transition", SeedFactory, "seeds/{row.pk}"),
        ("access.user_created", UserFactory, "users/{row.pk}"),
    ],
)
def test_every_asset_that_has_a_page_of_its_own_has_a_past(
    admin: Caller, type: str, make: Callable[[], Any], path: str
) -> None:
    row = make()
    moment = tell(type, row)

    answer = admin.get(at(f"/api/v1/{path.format(row=row)}", moment)).json()

    assert (answer["id"], answer["event"]["type"]) == (str(row.pk), type)
    assert answer["state"]


def test_a_blueprint_and_its_version_are_told_by_their_services(admin: Caller) -> None:
    blueprint = blueprints.create_blueprint(name="mine", title="First", actor=SYSTEM)
    version = blueprints.submit_version(blueprint=blueprint, spec=residual_spec(), actor=SYSTEM)
    blueprints.update_blueprint(blueprint=blueprint, title="Second", actor=SYSTEM)
    path = f"/api/v1/blueprints/{blueprint.pk}"
    created, changed = times_of(blueprint)[0], times_of(blueprint)[-1]

    assert admin.get(at(path, created)).json()["state"]["title"] == "First"
    assert admin.get(at(path, changed)).json()["state"]["title"] == "Second"
    assert admin.get(at(f"{path}/versions/1", times_of(version)[0])).json()["state"]["spec"] == residual_spec()


def test_a_user_is_shown_without_names_and_secrets(admin: Caller) -> None:
    user, _ = accounts.create_user(username="ada", email="ada@example.org", actor=SYSTEM)
    accounts.set_role(user=user, role=Role.CURATOR, reason="promoted", actor=SYSTEM)
    created, promoted = times_of(user)
    path = f"/api/v1/users/{user.pk}"

    answers = [admin.get(at(path, moment)) for moment in (created, promoted)]

    assert [answer.json()["state"]["role"] for answer in answers] == ["viewer", "curator"]
    hidden = {"password", "username", "email", "first_name", "last_name"}
    assert not hidden & answers[0].json()["state"].keys()
    assert not [word for word in ("hmac:", "sha256:", "example.org") if word in answers[0].content.decode()]


# --- Who may ask


@pytest.mark.parametrize(
    ("kind", "scope"), [("kernels", Scope.LIBRARY_READ), ("runs", Scope.RUNS_READ), ("users", Scope.ACCOUNTS_MANAGE)]
)
def test_the_scope_of_the_asset_is_enough_and_needed(
    caller: Callable[..., Caller], kernel: Kernel, kind: str, scope: str
) -> None:
    path = at(f"/api/v1/{kind}/{kernel.pk}", times_of(kernel)[0])
    others = [str(other) for other in Scope if other != scope]

    assert caller(scopes=[scope]).get(path).status_code == (200 if kind == "kernels" else 404)
    assert_problem(caller(scopes=others).get(path), 403)


def test_nobody_is_refused(nobody: Caller, kernel: Kernel) -> None:
    assert_problem(nobody.get(at(path_of(kernel), times_of(kernel)[0])), 401)


# --- What is no time of the past


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("yesterday", "malformed"),
        ("2026-01-01", "malformed"),
        ("2026-01-01T12:00:00Z; DROP TABLE", "malformed"),
        ("2026-13-01T12:00:00Z", "malformed"),
        ("2026-01-01T12:00:60Z", "malformed"),
        ("2026-W01-1T12:00:00Z", "malformed"),
        ("20260101T120000Z", "malformed"),
        ("٢٠٢٦-01-01T12:00:00Z", "malformed"),
        ("0001-01-01T00:00:00+14:00", "malformed"),
        ("2026-01-01T12:00:00 01:00", "malformed"),
        ("2026-01-01T12:00:00", "zone"),
        ("9999-12-31T23:59:59Z", "future"),
        ("", "empty"),
    ],
)
def test_what_is_no_time_of_the_past_is_named(admin: Caller, kernel: Kernel, given: str, code: str) -> None:
    body = assert_problem(admin.get(f"{path_of(kernel)}?as_of={quote(given)}"), 400, "", "/as_of")

    assert body["errors"][0]["code"] == code


def test_a_time_given_twice_is_named(admin: Caller, kernel: Kernel) -> None:
    path = f"{path_of(kernel)}?as_of=2026-01-01T12:00:00Z&as_of=2026-01-02T12:00:00Z"

    assert_problem(admin.get(path), 400, "repeated", "/as_of")


def test_small_letters_and_long_fractions_are_times_too(admin: Caller, kernel: Kernel) -> None:
    moment = times_of(kernel)[0].strftime("%Y-%m-%dt%H:%M:%S.%f") + "999z"

    assert admin.get(f"{path_of(kernel)}?as_of={moment}").json()["state"]["state"] == "REGISTERED"


@pytest.mark.parametrize("path", ["/api/v1/kernels", "/api/v1/runs", "/api/v1/tokens", "/api/v1/audit/events"])
def test_lists_have_no_past(admin: Caller, path: str) -> None:
    assert_problem(admin.get(f"{path}?as_of=2026-01-01T12:00:00Z"), 400, "invalid", "/as_of")


def test_a_change_has_no_past(admin: Caller) -> None:
    path = f"/api/v1/blueprints/{BlueprintFactory().pk}?as_of=2026-01-01T12:00:00Z"

    assert_problem(admin.patch(path, {"title": "x"}, headers={"If-Match": '"v1"'}), 400, "", "/as_of")
