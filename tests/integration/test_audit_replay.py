"""Replay: what the events say against what the tables say, and every way in which the two can part."""

import json
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.db.models import Model
from django.utils import timezone

from apps.accounts.models import User
from apps.audit import pseudonyms, services
from apps.audit.models import AuditEvent, AuditPerson
from apps.audit.projections import state_of
from apps.audit.replay import Difference, replay
from apps.audit.watched import image
from apps.blueprints.models import Blueprint
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.training.models import Seed
from tests.support.audit import own_home
from tests.support.factories import (
    AuditEventFactory,
    BlueprintFactory,
    BlueprintVersionFactory,
    KernelFactory,
    SeedFactory,
    UserFactory,
)
from tests.support.stack import Servers

__all__ = ["own_home"]
pytestmark = pytest.mark.usefixtures("committed_db", "home")
Behind = Callable[..., None]


def tell(type: str, row: Model, *, before: dict[str, Any] | None = None, gone: bool = False) -> AuditEvent:
    """Record the row as it is now, after ``before``."""
    after = {} if gone else image(row)
    with transaction.atomic():
        return services.record(type=type, subject=row, actor=SYSTEM, before=before, after=after)


def told_kernel(**values: Any) -> Kernel:
    kernel: Kernel = KernelFactory(**values)
    tell("kernel.registered", kernel)
    return kernel


def told_user(**values: Any) -> User:
    user: User = UserFactory(**values)
    tell("access.user_created", user)
    return user


def differences(*kinds: str) -> list[Difference]:
    return replay(kinds=kinds).differences


@pytest.fixture
def behind(servers: Servers, committed_db: str) -> Behind:
    """Execute a statement as the owner of the tables, with their triggers off."""

    def execute(statement: str, *values: Any) -> None:
        tables = [model._meta.db_table for model in (Kernel, User, Blueprint)]
        table = next(name for name in (*tables, "audit_auditarchive") if name in statement)
        with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
            owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
            owner.execute(statement.encode(), values)

    return execute


# --- Equal


def test_rows_that_changed_as_their_events_say_are_equal() -> None:
    kernel = told_kernel()
    for state in (KernelState.COMPILED, KernelState.QUARANTINED):
        before = image(kernel)
        kernel.state, kernel.rejection = state, "why" if state == KernelState.QUARANTINED else ""
        kernel.metrics = {"latency": 0.1 + 0.2, "largest": 1e22, "shapes": [1, 2], "nothing": None, "zero": -0.0}
        kernel.save()
        tell("kernel.transition", kernel, before=before)
    removed = told_kernel()
    tell("kernel.transition", removed, before=image(removed), gone=True)
    removed.delete()

    found = replay(kinds=["kernel"])

    assert (found.differences, found.subjects) == ([], {"kernel": 2})
    assert found.events == 5
    assert found.is_equal


def test_what_is_outside_of_events_may_change_without_one() -> None:
    kernel = told_kernel()
    Kernel.objects.filter(pk=kernel.pk).update(usage_count=7, last_used_at=timezone.now())

    assert differences("kernel") == []


def test_the_tree_says_in_which_order_events_came_when_the_clock_stepped_back() -> None:
    seed: Seed = SeedFactory(alpha=0.25)
    tell("seed.transition", seed)
    services.seal()
    seed.alpha = 0.75
    seed.save()
    hour_ago = timezone.now() - timedelta(hours=1)
    AuditEventFactory(
        id="00000000-0000-7000-8000-000000000000",
        at=hour_ago,
        type="seed.transition",
        subject_type="seed",
        subject_id=str(seed.pk),
        diff=services.json_patch({"alpha": 0.25}, {"alpha": 0.75}),
    )

    unsealed = differences("seed")
    services.seal()

    assert unsealed == differences("seed") == []
    assert state_of("seed", str(seed.pk)).state["alpha"] == "0.75"  # type: ignore[union-attr]


def test_a_column_that_no_event_has_told_of_holds_its_default() -> None:
    older, changed = KernelFactory(), KernelFactory(legal_hold=True)
    for kernel in (older, changed):
        before_the_column = {name: value for name, value in image(kernel).items() if name != "legal_hold"}
        with transaction.atomic():
            services.record(type="kernel.registered", subject=kernel, actor=SYSTEM, after=before_the_column)

    assert differences("kernel") == [Difference("kernel", str(changed.pk), "column", "legal_hold", "", "true")]


def test_one_snapshot_is_compared_whatever_others_write_meanwhile(behind: Behind) -> None:
    kernel = told_kernel()

    found = replay(
        kinds=["kernel"],
        progress=lambda done, total: behind("UPDATE kernels_kernel SET state = 'QUARANTINED' WHERE id = %s", kernel.pk),
    )

    assert found.differences == []
    assert [difference.column for difference in differences("kernel")] == ["state"]


# --- Different


def test_a_column_changed_behind_the_services_is_named(behind: Behind) -> None:
    told_kernel()
    kernel = told_kernel()

    behind("UPDATE kernels_kernel SET state = 'VALIDATED', digest = repeat('0', 64) WHERE id = %s", kernel.pk)

    assert differences("kernel") == [
        Difference("kernel", str(kernel.pk), "column", "digest", "null", f'"{"0" * 64}"'),
        Difference("kernel", str(kernel.pk), "column", "state", '"REGISTERED"', '"VALIDATED"'),
    ]


def test_a_document_changed_behind_the_services_is_named(behind: Behind) -> None:
    blueprint: Blueprint = BlueprintFactory(tags={"use": [0]})
    tell("blueprint.created", blueprint)

    behind("""UPDATE blueprints_blueprint SET tags = '{"use": [false]}'""")

    (difference,) = differences("blueprint")
    assert (difference.column, difference.events, difference.table) == ("tags", '{"use":[0]}', '{"use":[false]}')


def test_a_deleted_row_is_named(behind: Behind) -> None:
    kernel = told_kernel()

    behind("DELETE FROM kernels_kernel WHERE id = %s", kernel.pk)

    assert differences("kernel") == [Difference("kernel", str(kernel.pk), "missing")]


def test_an_inserted_row_is_named() -> None:
    kernel = KernelFactory()
    AuditEventFactory(type="kernel.field_report", subject_type="kernel", subject_id=str(kernel.pk))

    found = replay(kinds=["kernel"])

    assert found.differences == [Difference("kernel", str(kernel.pk), "unrecorded")]
    assert str(found.differences[0]) == f"kernel {kernel.pk}: nobody recorded it"


def test_a_row_that_its_events_removed_is_named() -> None:
    kernel = told_kernel()
    tell("kernel.transition", kernel, before=image(kernel), gone=True)

    assert differences("kernel") == [Difference("kernel", str(kernel.pk), "undead")]


@pytest.mark.parametrize("diff", [[{"op": "add"}], ["state"]])
def test_events_that_cannot_be_applied_are_named(diff: Any) -> None:
    kernel = KernelFactory()
    AuditEventFactory(type="kernel.registered", subject_type="kernel", subject_id=str(kernel.pk), diff=diff)

    assert differences("kernel") == [Difference("kernel", str(kernel.pk), "unreadable")]


def test_events_about_something_that_has_no_id_of_ours_are_named_too() -> None:
    AuditEventFactory(subject_type="kernel", subject_id="k", diff=services.json_patch({}, {"state": "VALIDATED"}))

    assert differences("kernel") == [Difference("kernel", "k", "missing")]


# --- Names and secrets


def test_a_changed_name_is_found_by_its_hmac_and_not_shown(behind: Behind) -> None:
    user = told_user(username="ada", email="ada@example.org")
    assert differences("user") == []

    behind("UPDATE accounts_user SET username = 'eve', password = 'known' WHERE id = %s", user.pk)

    found = differences("user")
    assert [difference.column for difference in found] == ["password", "username"]
    assert not {"ada", "eve", "known"} & set("".join(map(str, found)).replace('"', " ").split())


def test_names_of_erased_people_are_counted_and_all_else_is_compared(behind: Behind) -> None:
    user, other = told_user(), told_user()
    AuditPerson.objects.filter(user_id=user.pk).update(salt=None, erased_at=timezone.now())
    pseudonyms.forget()
    behind("UPDATE accounts_user SET username = 'erased', role = 'admin' WHERE id = %s", user.pk)
    behind("UPDATE accounts_user SET username = 'renamed' WHERE id = %s", other.pk)

    found = replay(kinds=["user"])

    assert found.erased == 1
    assert [(difference.id, difference.column) for difference in found.differences] == [
        (str(user.pk), "role"),
        (str(other.pk), "username"),
    ]


# --- Archived months


def test_subjects_that_began_in_an_archived_month_are_counted_apart(behind: Behind) -> None:
    version = BlueprintVersionFactory()
    of_2020 = "016f5e66-e800-7000-8000-{:012d}"  # 2020-01-01T00:00:00Z
    silent, changed = (
        KernelFactory(id=of_2020.format(n), blueprint_version=version, bindings={"n": n}) for n in (1, 2)
    )
    AuditEventFactory(
        subject_type="kernel",
        subject_id=str(changed.pk),
        diff=services.json_patch({"legal_hold": False}, {"legal_hold": True}),
    )
    behind("INSERT INTO audit_auditarchive VALUES ('audit_auditevent_2020_12', 'a', '0', 1, 1, now())")
    recent = KernelFactory()

    found = replay(kinds=["kernel"])

    assert found.archived == {"kernel": 2}
    assert found.differences == [
        Difference("kernel", str(changed.pk), "column", "legal_hold", "true", "false"),
        Difference("kernel", str(recent.pk), "unrecorded"),
    ]
    assert str(silent.pk) not in {difference.id for difference in found.differences}


# --- Memory


def test_a_long_history_is_read_in_small_pieces(servers: Servers, committed_db: str) -> None:
    """20,000 events of 2 kB: forty megabytes, of which a chunk is held."""
    kernel = told_kernel()
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        owner.execute(
            """INSERT INTO audit_auditevent SELECT gen_random_uuid(), now(), 'kernel.transition', NULL, 'kernel', %s,
            NULL, 'system', '', '', '', '', '', '', 'success',
            jsonb_build_array(jsonb_build_object('op', 'replace', 'path', '/rejection', 'value', repeat('x', 2000))),
            '{}', sha256('') FROM generate_series(1, 20000)""",
            [str(kernel.pk)],
        )
    progress: list[tuple[int, int]] = []

    tracemalloc.start()
    found = replay(kinds=["kernel"], progress=lambda done, total: progress.append((done, total)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 10_000_000
    assert found.events == 20_001
    assert progress[-1] == (20_001, 20_001)
    assert len(progress) > 10
    assert [difference.column for difference in found.differences] == ["rejection"]


# --- The command


def run(*arguments: str) -> tuple[int, str]:
    output = StringIO()
    try:
        call_command("replay_audit", *arguments, stdout=output)
    except SystemExit as end:
        return int(str(end.code)), output.getvalue()
    return 0, output.getvalue()


def test_the_command_says_what_is_equal() -> None:
    told_kernel()

    code, output = run("--type", "kernel")

    assert code == 0
    assert "kernel: 1 compared" in output
    assert "equal: 1 events replayed" in output


def test_the_command_ends_with_1_and_names_what_differs(behind: Behind) -> None:
    kernels = [told_kernel() for _ in range(3)]
    behind("UPDATE kernels_kernel SET state = 'QUARANTINED'")

    code, output = run("--type", "kernel", "--limit", "2")

    assert code == 1
    assert f'kernel {kernels[0].pk}: state: events say "REGISTERED", the table says "QUARANTINED"' in output
    assert output.count("DIFFERENT") == 2
    assert "... and 1 more" in output
    assert "3 DIFFERENCES" in output


def test_the_command_answers_in_json(behind: Behind) -> None:
    kernel = told_kernel()
    behind("UPDATE kernels_kernel SET legal_hold = true")

    code, output = run("--type", "kernel", "--type", "user", "--json")

    answer = json.loads(output.splitlines()[-1])
    assert code == 1
    assert answer["subjects"] == {"kernel": 1}
    assert answer["differences_count"] == 1
    assert (answer["events"], answer["equal"]) == (1, False)
    assert answer["differences"] == [
        {
            "subject_type": "kernel",
            "id": str(kernel.pk),
            "kind": "column",
            "column": "legal_hold",
            "events": "false",
            "table": "true",
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--type", "dragon"], "--type"), (["--limit", "-1"], "--limit"), (["--limit", "x"], "--limit")],
)
def test_the_command_names_what_it_cannot_take(arguments: list[str], named: str) -> None:
    with pytest.raises(CommandError, match=named):
        call_command("replay_audit", *arguments)


def test_an_id_that_nobody_recorded_has_no_past() -> None:
    assert state_of("kernel", str(new_id())) is None
