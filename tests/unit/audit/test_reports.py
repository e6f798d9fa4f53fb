"""What each report says, from a list of events: no database."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from apps.audit.lifecycle import ReportKind
from apps.audit.reading import Event, Row, Wanted, is_wanted, patched
from apps.audit.reports import QUESTIONS, answer, question_of
from apps.core.errors import Invalid
from apps.core.ids import new_id

START = datetime(2026, 3, 1, tzinfo=UTC)
ADA, GRACE = str(new_id()), str(new_id())
ACCOUNT = str(new_id())

Trail = list[Event]


@pytest.fixture
def trail() -> Trail:
    return []


@pytest.fixture
def say(trail: Trail) -> Callable[..., Event]:
    """Append an event, a minute after the last one."""

    def add(type: str, subject: tuple[str, str], after: Row | None = None, **values: Any) -> Event:
        diff = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in (after or {}).items()]
        event = {
            "index": len(trail),
            "id": str(new_id()),
            "at": (START + timedelta(minutes=len(trail))).isoformat(),
            "type": type,
            "subject_type": subject[0],
            "subject_id": subject[1],
            "actor_id": ADA,
            "actor_kind": "user",
            "token_id": "",
            "outcome": "success",
            "reason": "",
            "diff": diff,
            "payload": {},
            **values,
        }
        trail.append(event)
        return event

    return add


def asked(trail: Trail, kind: str, *, as_of: datetime = START + timedelta(days=1), **given: str) -> list[Row]:
    def read(wanted: Wanted) -> Iterator[Event]:
        return (event for event in trail if is_wanted(event, wanted))

    return list(answer(read, kind=kind, parameters=question_of(kind).checked(given), as_of=as_of))


def indexes(rows: list[Row]) -> list[int]:
    return [row["index"] for row in rows if "index" in row]


# --- Parameters


@pytest.mark.parametrize(
    ("kind", "given", "pointer"),
    [
        ("access", {"sinc": "2026-01-01T00:00:00Z"}, "/parameters/sinc"),
        ("access", {"since": "yesterday"}, "/parameters/since"),
        ("access", {"since": "2026-01-01T00:00:00"}, "/parameters/since"),
        ("access", {"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "/parameters/until"),
        ("access", {"person": "ada"}, "/parameters/person"),
        ("access", {"person": 7}, "/parameters/person"),
        ("change", {"subject_id": ""}, "/parameters/subject_id"),
        ("change", {"subject_id": "x" * 65}, "/parameters/subject_id"),
        ("change", {"subject_type": "a\0b"}, "/parameters/subject_type"),
        ("provenance", {}, "/parameters/kernel"),
        ("weather", {}, "/kind"),
    ],
)
def test_a_wrong_parameter_is_named(kind: str, given: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        question_of(kind).checked(given)

    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_parameters_have_one_form() -> None:
    given = {"since": "2026-01-01T02:00:00+02:00", "person": ADA.upper()}

    assert question_of("access").checked(given) == {"since": "2026-01-01T00:00:00+00:00", "person": ADA}


def test_there_is_a_question_for_every_kind() -> None:
    assert set(QUESTIONS) == set(ReportKind)


@pytest.mark.parametrize("kind", [kind for kind in ReportKind if kind != ReportKind.PROVENANCE])
def test_an_empty_trail_gives_a_summary_alone(kind: str) -> None:
    (line,) = asked([], kind)

    assert list(line) == ["summary"]


# --- access


def test_access_tells_who_came_in_and_who_was_refused(trail: Trail, say: Callable[..., Event]) -> None:
    say("access.login", ("user", ACCOUNT))
    say("access.login_refused", ("user", ACCOUNT), outcome="refused", reason="wrong password")
    say("kernel.registered", ("kernel", "k"))
    say("access.role_changed", ("user", ACCOUNT), {"role": "admin"})

    *rows, last = asked(trail, "access")

    assert indexes(rows) == [0, 1, 3]
    assert rows[2]["diff"][0]["value"] == "admin"
    assert last["summary"]["events"]["access.login_refused refused"] == 1
    assert last["summary"]["people"] == 1


def test_access_of_a_person_is_what_they_did_and_what_was_done_to_their_account(
    trail: Trail, say: Callable[..., Event]
) -> None:
    say("access.login", ("user", ACCOUNT), actor_id=GRACE)
    say("access.login", ("user", "another"))
    say("access.role_changed", ("user", ACCOUNT), {"role": "admin"})
    say("access.token_issued", ("token", "t"), {"user_id": ACCOUNT})

    assert indexes(asked(trail, "access", person=GRACE)) == [0]
    assert indexes(asked(trail, "access", person=GRACE, account=ACCOUNT)) == [0, 2, 3]


def test_a_range_takes_its_beginning_and_leaves_its_end(trail: Trail, say: Callable[..., Event]) -> None:
    for _ in range(4):
        say("access.login", ("user", ACCOUNT))

    since, until = ((START + timedelta(minutes=minute)).isoformat() for minute in (1, 3))

    assert indexes(asked(trail, "access", since=since, until=until)) == [1, 2]


# --- change


def test_changes_are_events_with_a_difference(trail: Trail, say: Callable[..., Event]) -> None:
    say("kernel.registered", ("kernel", "k"), {"state": "REGISTERED"})
    say("kernel.field_report", ("kernel", "k"))
    say("run.transition", ("run", "r"), {"state": "RUNNING"}, actor_id=GRACE)

    assert indexes(asked(trail, "change")) == [0, 2]
    assert indexes(asked(trail, "change", subject_type="kernel")) == [0]
    assert indexes(asked(trail, "change", subject_id="r")) == [2]
    assert indexes(asked(trail, "change", person=GRACE)) == [2]
    assert asked(trail, "change")[-1] == {"summary": {"changes": {"kernel": 1, "run": 1}}}


# --- retention


def test_retention_tells_what_was_let_go_and_not_what_moved_otherwise(trail: Trail, say: Callable[..., Event]) -> None:
    say("checkpoint.transition", ("checkpoint", "c"), {"state": "COMMITTED"})
    say("checkpoint.transition", ("checkpoint", "c"), {"state": "EXPIRED"})
    say("kernel.transition", ("kernel", "k"), {"state": "RETIRED"})
    say("run.transition", ("run", "r"), {"state": "EXPIRED"})
    say("audit.partition_archived", ("partition", "p"), payload={"events": 7})
    say("access.person_erased", ("person", ADA))

    *rows, last = asked(trail, "retention")

    assert indexes(rows) == [1, 2, 4, 5]
    assert rows[2]["payload"] == {"events": 7}
    assert last["summary"]["let_go"] == {
        "checkpoint EXPIRED": 1,
        "kernel RETIRED": 1,
        "partition partition_archived": 1,
        "person person_erased": 1,
    }


# --- privileges


def user(**values: Any) -> Row:
    return {"role": "viewer", "is_active": True, "is_staff": False, "username": "hmac:ab", **values}


def test_privileges_are_the_fold_of_the_events_of_access(trail: Trail, say: Callable[..., Event]) -> None:
    say("access.user_created", ("user", ACCOUNT), user())
    say("access.user_created", ("user", "gone"), user(role="admin"))
    say("access.token_issued", ("token", "t"), {"user_id": ACCOUNT, "scopes": ["runs:read"], "expiry": None})
    say("access.role_changed", ("user", ACCOUNT), {"role": "curator", "is_staff": True})
    say("access.account_closed", ("user", "gone"), {"is_active": False})

    token, one, other, last = asked(trail, "privileges")

    assert (one["user"], one["role"], one["is_staff"], one["index"]) == (ACCOUNT, "curator", True, 3)
    assert "username" not in one
    assert (other["user"], other["is_active"]) == ("gone", False)
    assert (token["token"], token["user"], token["scopes"], token["index"]) == ("t", ACCOUNT, ["runs:read"], 2)
    assert last == {"summary": {"active_users": {"curator": 1}, "live_tokens": 1}}


def test_tokens_that_were_revoked_or_had_expired_give_nothing(trail: Trail, say: Callable[..., Event]) -> None:
    day = START + timedelta(days=1)
    say("access.user_created", ("user", ACCOUNT), user())
    for name, expiry in (("old", day), ("live", day + timedelta(seconds=1)), ("revoked", None)):
        told = {"user_id": ACCOUNT, "scopes": [], "expiry": expiry.isoformat() if expiry else None}
        say("access.token_issued", ("token", name), told)
    say("access.token_revoked", ("token", "revoked"), diff=[{"op": "remove", "path": "/scopes"}])

    held = [row["token"] for row in asked(trail, "privileges", as_of=day) if "token" in row]

    assert held == ["live"]


def test_a_token_of_an_inactive_account_says_so(trail: Trail, say: Callable[..., Event]) -> None:
    say("access.user_created", ("user", ACCOUNT), user(is_active=False))
    say("access.token_issued", ("token", "t"), {"user_id": ACCOUNT, "scopes": [], "expiry": None})

    (token,) = [row for row in asked(trail, "privileges") if "token" in row]

    assert token["owner_is_active"] is False


# --- provenance


def test_provenance_joins_the_kernel_its_design_its_checks_and_its_runs(
    trail: Trail, say: Callable[..., Event]
) -> None:
    kernel, run = str(new_id()), str(new_id())
    say("blueprint.created", ("blueprint", "b"), {"name": "wide", "title": "Wide"})
    say("blueprint.version_submitted", ("blueprint_version", "v"), {"blueprint_id": "b", "digest": "d1", "number": 1})
    say("blueprint.created", ("blueprint", "unrelated"), {"name": "other"})
    say("kernel.registered", ("kernel", kernel), {"blueprint_version_id": "v", "name": "wide-v1"})
    compiled = {"report": {"compile": {"seconds": "0.1"}}}
    say("kernel.compiled", ("kernel", kernel), {"state": "COMPILED", "digest": "abc"}, payload=compiled)
    both = {"report": {**compiled["report"], "validation": {"valid": True}}}
    say("kernel.validated", ("kernel", kernel), {"state": "VALIDATED"}, payload=both)
    say("kernel.field_report", ("kernel", kernel), payload={"run": run, "seed": 3, "verdict": "FOSSILIZED"})

    *rows, last = asked(trail, "provenance", kernel=kernel)
    said = last["summary"]

    assert indexes(rows) == [0, 1, 3, 4, 5, 6]
    assert said["kernel"] == {"id": kernel, "index": 3, "name": "wide-v1", "state": "VALIDATED"}
    assert said["blueprint_version"] == {"id": "v", "index": 1, "number": 1, "digest": "d1"}
    assert said["blueprint"] == {"id": "b", "index": 0, "name": "wide", "title": "Wide"}
    assert said["artefact"] == {"sha256": "abc", "how": "compiled", "index": 4}
    assert set(said["reports"]) == {"compile", "validation"}
    assert said["reports"]["compile"]["sha256"] == rows[3]["facts"]["compile_report_sha256"]
    assert said["runs"] == [{"index": 6, "run": run, "seed": 3, "verdict": "FOSSILIZED"}]


def test_provenance_of_a_kernel_that_the_events_do_not_know_is_empty() -> None:
    (last,) = asked([], "provenance", kernel=str(new_id()))

    assert last["summary"]["blueprint"] == {"id": ""}
    assert last["summary"]["runs"] == []


# --- Diffs


def test_a_diff_is_applied_member_by_member() -> None:
    diff = [
        {"op": "remove", "path": "/gone"},
        {"op": "add", "path": "/a~1b", "value": 1},
        {"op": "replace", "path": "/c~0d", "value": [2]},
    ]

    assert patched({"gone": 0, "c~d": 1, "kept": 3}, diff) == {"a/b": 1, "c~d": [2], "kept": 3}
