"""The net: a watched row that changes without an event about it becomes two events at the commit."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import Model
from django.utils import timezone
from psycopg.types.json import Jsonb

from apps.accounts import services as accounts
from apps.accounts.models import ApiToken, User, Workspace
from apps.accounts.roles import Role
from apps.audit import services as audit
from apps.audit.canonical import leaf_digest
from apps.audit.models import AuditEvent, AuditReport
from apps.audit.watched import Watched, watched_models
from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.checkpoints.models import Checkpoint, CheckpointJob, CheckpointPolicy
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.core.lineage import LineageKind
from apps.kernels.models import (
    AliasPeriod,
    CachePlan,
    CachePlanKind,
    FieldReport,
    Kernel,
    KernelAlias,
    KernelLineage,
    KernelVariant,
    RetentionItem,
    RetentionPlan,
    RetentionPolicy,
    TagKey,
    TagType,
)
from apps.observability.models import Alert, AlertRoute, AlertRule, Silence
from apps.training.models import Decision, RecoveryEvent, RunLease, Seed, SeedSlot, SeedTransition, TrainingRun
from tests.contracts.audit_cases import CASES
from tests.support import factories
from tests.support.stack import Servers

UNATTRIBUTED = ["audit.unattributed", "alert.unattributed"]


@pytest.fixture
def owner(committed_db: str, servers: Servers) -> Iterator[psycopg.Connection[Any]]:
    """The owner of the tables, with a connection of its own."""
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        yield owner


def seen() -> set[Any]:
    return set(AuditEvent.objects.values_list("pk", flat=True))


def caught(before: set[Any]) -> list[AuditEvent]:
    """What the net recorded since, each with a leaf that fits."""
    events = list(AuditEvent.objects.filter(type__in=UNATTRIBUTED).exclude(pk__in=before).order_by("-type"))
    for event in events:
        assert bytes(event.leaf) == leaf_digest({name: getattr(event, name) for name in audit.LEAF_COLUMNS}), event
        assert event.pk.version == 7
    return events


def run_sql(statement: str, *values: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def make_report() -> AuditReport:
    return audit.request_report(kind="change", parameters={}, actor=SYSTEM)


def make_variant() -> KernelVariant:
    kernel = factories.KernelFactory()
    return KernelVariant.objects.create(
        kernel=kernel, memory_format="contiguous", dtype="bfloat16", digest="0" * 64, size=1
    )


def make_alias() -> KernelAlias:
    return KernelAlias.objects.create(blueprint=factories.BlueprintFactory(), name="candidate")


def make_period() -> AliasPeriod:
    now = timezone.now()
    return AliasPeriod.objects.create(
        alias=make_alias(), kernel=factories.KernelFactory(), started_at=now, ended_at=now + timedelta(days=1)
    )


def make_policy() -> RetentionPolicy:
    return RetentionPolicy.objects.create(name="old", older_than_days=1, workspace=factories.workspace())


def make_plan() -> RetentionPlan:
    return RetentionPlan.objects.create(
        policy=make_policy(), expires_at=timezone.now() + timedelta(days=1), workspace=factories.workspace()
    )


def make_item() -> RetentionItem:
    kernel = factories.KernelFactory()
    return RetentionItem.objects.create(plan=make_plan(), kernel=kernel, row_version=1, reason="old", bytes=1)


def make_cache_plan() -> CachePlan:
    return CachePlan.objects.create(
        kind=CachePlanKind.WARM, expires_at=timezone.now() + timedelta(days=1), workspace=factories.workspace()
    )


MAKERS: dict[type[Model], Callable[[], Any]] = {
    User: factories.UserFactory,
    ApiToken: factories.TokenFactory,
    Workspace: lambda: Workspace.objects.create(name="another"),
    Blueprint: factories.BlueprintFactory,
    BlueprintVersion: factories.BlueprintVersionFactory,
    Kernel: factories.KernelFactory,
    FieldReport: factories.FieldReportFactory,
    KernelVariant: make_variant,
    KernelAlias: make_alias,
    AliasPeriod: make_period,
    TagKey: lambda: TagKey.objects.create(name="arch", type=TagType.TEXT, workspace=factories.workspace()),
    RetentionPolicy: make_policy,
    RetentionPlan: make_plan,
    CachePlan: make_cache_plan,
    RetentionItem: make_item,
    Checkpoint: factories.CheckpointFactory,
    CheckpointPolicy: factories.CheckpointPolicyFactory,
    CheckpointJob: factories.CheckpointJobFactory,
    Alert: factories.AlertFactory,
    AlertRoute: factories.AlertRouteFactory,
    AlertRule: factories.AlertRuleFactory,
    Silence: factories.SilenceFactory,
    TrainingRun: factories.RunFactory,
    RecoveryEvent: factories.RecoveryEventFactory,
    SeedSlot: factories.SlotFactory,
    Seed: factories.SeedFactory,
    SeedTransition: factories.SeedTransitionFactory,
    Decision: factories.DecisionFactory,
    AuditReport: make_report,
}
CHANGES: dict[type[Model], tuple[str, str]] = {
    User: ("email", "'mallory@example.org'"),
    ApiToken: ("scopes", "'{}'"),
    Workspace: ("name", "'renamed'"),
    Blueprint: ("tags", """'{"a": 1}'"""),
    BlueprintVersion: ("spec", "'{}'"),
    Kernel: ("legal_hold", "NOT legal_hold"),
    FieldReport: ("rent", "rent + 1"),
    KernelVariant: ("report", """'{"a": 1}'"""),
    KernelAlias: ("is_protected", "NOT is_protected"),
    AliasPeriod: ("ended_at", "ended_at + interval '1 day'"),
    TagKey: ("type", "'number'"),
    RetentionPolicy: ("max_share", "1"),
    RetentionPlan: ("byte_count", "byte_count + 1"),
    CachePlan: ("problem", "'forged'"),
    RetentionItem: ("outcome", "'retired'"),
    Checkpoint: ("pinned", "NOT pinned"),
    CheckpointPolicy: ("keep_last", "keep_last + 1"),
    CheckpointJob: ("problem", "'forged'"),
    Alert: ("note", "'forged'"),
    AlertRule: ("enabled", "NOT enabled"),
    Silence: ("ends_at", "ends_at + interval '1 day'"),
    AlertRoute: ("target", "'https://evil.example.org/'"),
    TrainingRun: ("name", "'renamed'"),
    RecoveryEvent: ("problem", "'forged'"),
    SeedSlot: ("locked", "NOT locked"),
    Seed: ("alpha", "alpha + 0.5"),
    SeedTransition: ("reason", "'another'"),
    Decision: ("reason", "'another'"),
    AuditReport: ("note", "'forged'"),
}
"""Model -> a watched column and an SQL expression that changes it."""


def make_kernel_edge() -> KernelLineage:
    child, parent = factories.KernelFactory(), factories.KernelFactory()
    return KernelLineage.objects.create(child=child, parent=parent, kind=LineageKind.MERGED)


def make_version_edge() -> VersionLineage:
    child, parent = factories.BlueprintVersionFactory(), factories.BlueprintVersionFactory()
    return VersionLineage.objects.create(child=child, parent=parent, kind=LineageKind.DERIVED)


EDGES: dict[type[Model], Callable[[], Any]] = {KernelLineage: make_kernel_edge, VersionLineage: make_version_edge}
"""Tables whose rows the database never lets change or go: they can only come."""


def test_every_watched_table_is_tried() -> None:
    assert set(MAKERS) == set(CHANGES) == set(watched_models()) - set(EDGES)


@pytest.mark.parametrize("model", EDGES, ids=lambda model: model._meta.label_lower)
def test_an_edge_of_lineage_that_comes_behind_the_services_becomes_two_events(
    committed_db: str, model: type[Model]
) -> None:
    row = EDGES[model]()

    table = model._meta.db_table
    events = AuditEvent.objects.filter(type__in=UNATTRIBUTED, payload__table=table).order_by("-type")
    assert [event.type for event in events] == UNATTRIBUTED
    assert {(event.subject_type, event.subject_id) for event in events} == {subject_of(row)}
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET weight = 0.5"):
        with pytest.raises(DatabaseError, match="pgtrigger"):
            run_sql(statement)


def subject_of(row: Any) -> tuple[str, str]:
    watch: Watched = row.audit
    return watch.subject, str(getattr(row, watch.of))


def as_application(statement: str, owner: psycopg.Connection[Any]) -> None:
    run_sql(statement)


def as_owner(statement: str, owner: psycopg.Connection[Any]) -> None:
    owner.execute(statement.encode())


@pytest.mark.parametrize("execute", [as_application, as_owner], ids=["application role", "owner"])
@pytest.mark.parametrize("model", MAKERS, ids=lambda model: model._meta.label_lower)
def test_a_row_changed_behind_the_services_becomes_two_events(
    owner: psycopg.Connection[Any], model: type[Model], execute: Callable[[str, psycopg.Connection[Any]], None]
) -> None:
    row = MAKERS[model]()
    table, (column, value) = model._meta.db_table, CHANGES[model]
    before = seen()

    execute(f"UPDATE {table} SET {column} = {value} WHERE id = '{row.id}'", owner)

    events = caught(before)
    assert [event.type for event in events] == UNATTRIBUTED
    for event in events:
        assert (event.subject_type, event.subject_id) == subject_of(row)
        assert (event.outcome, event.actor_kind, event.diff) == ("failure", "system", [])
        assert (event.payload["table"], event.payload["operation"]) == (table, "UPDATE")
        assert event.payload["columns"] == [column]
        assert event.payload["role"] == owner_or_application(execute, owner)


def owner_or_application(execute: Callable[..., None], owner: psycopg.Connection[Any]) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_user")
        application = cursor.fetchone()[0]
    return owner.info.user if execute is as_owner else str(application)


@pytest.mark.parametrize("model", MAKERS, ids=lambda model: model._meta.label_lower)
def test_a_row_that_comes_or_goes_behind_the_services_becomes_two_events(
    owner: psycopg.Connection[Any], model: type[Model]
) -> None:
    row = MAKERS[model]()
    table = model._meta.db_table
    RunLease.objects.all().delete()
    (copy,) = owner.execute(f"SELECT to_jsonb(t) FROM {table} AS t WHERE id = '{row.id}'".encode()).fetchone() or ({},)
    before = seen()

    run_sql(f"DELETE FROM {table} WHERE id = '{row.id}'")
    gone = caught(before)
    before = seen()
    initial = copy | ({"state": str(model._meta.get_field("state").get_default())} if "state" in copy else {})
    run_sql(f"INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, %s)", Jsonb(initial))
    come = caught(before)

    assert [event.type for event in gone] == [event.type for event in come] == UNATTRIBUTED
    assert {(event.subject_type, event.subject_id) for event in gone + come} == {subject_of(row)}
    assert [event.payload["operation"] for event in gone + come] == ["DELETE", "DELETE", "INSERT", "INSERT"]


@pytest.mark.parametrize("name", CASES)
def test_no_service_is_caught(committed_db: str, name: str) -> None:
    user = factories.UserFactory(username="ada", role=Role.ADMIN)
    actor = Actor(kind=ActorKind.USER, id=user.pk, name="ada", address="192.0.2.7")
    call, _ = CASES[name].arrange(actor)
    before = seen()

    call()

    assert caught(before) == []
    assert seen() - before


class TestWhatCounts:
    """The transaction's own events, whatever else was set, and nothing else."""

    @pytest.fixture
    def user(self, committed_db: str) -> User:
        return factories.UserFactory()

    def rename(self, user: User) -> None:
        User.objects.filter(pk=user.pk).update(email="mallory@example.org")

    def test_a_change_that_is_rolled_back_leaves_nothing(self, user: User) -> None:
        before = seen()
        with transaction.atomic():
            self.rename(user)
            transaction.set_rollback(True)

        assert seen() == before

    def test_the_services_events_in_savepoints_count(self, user: User) -> None:
        before = seen()
        with transaction.atomic():
            with transaction.atomic():
                accounts.set_role(user=user, role=Role.CURATOR, reason="promoted", actor=SYSTEM)
            with transaction.atomic():
                accounts.set_role(user=user, role=Role.OPERATOR, reason="promoted again", actor=SYSTEM)

        assert caught(before) == []

    def test_an_event_in_a_savepoint_that_was_rolled_back_does_not_count(self, user: User) -> None:
        before = seen()
        with transaction.atomic():
            with transaction.atomic():
                accounts.set_role(user=user, role=Role.CURATOR, reason="promoted", actor=SYSTEM)
                transaction.set_rollback(True)
            self.rename(user)

        assert [event.type for event in caught(before)] == UNATTRIBUTED

    def test_an_event_of_another_transaction_does_not_count(self, user: User) -> None:
        accounts.set_role(user=user, role=Role.CURATOR, reason="promoted", actor=SYSTEM)
        before = seen()
        self.rename(user)

        assert [event.type for event in caught(before)] == UNATTRIBUTED

    def test_an_event_about_something_else_does_not_count(self, user: User) -> None:
        before = seen()
        with transaction.atomic():
            accounts.set_role(user=factories.UserFactory(), role=Role.CURATOR, reason="promoted", actor=SYSTEM)
            self.rename(user)

        assert {event.subject_id for event in caught(before)} == {str(user.pk)}

    def test_the_second_change_of_a_subject_is_covered_by_the_events_of_the_first(self, user: User) -> None:
        before = seen()
        with transaction.atomic():
            self.rename(user)
            User.objects.filter(pk=user.pk).update(is_active=False)

        assert [event.type for event in caught(before)] == UNATTRIBUTED

    def test_a_hundred_rows_of_one_statement_are_a_hundred_subjects(self, user: User) -> None:
        people = {str(factories.UserFactory().pk) for _ in range(100)}
        before = seen()
        User.objects.filter(pk__in=people).update(role=Role.ADMIN)

        events = caught(before)
        assert len(events) == 200
        assert {event.subject_id for event in events} == people

    def test_another_id_is_told_of_the_old_and_of_the_new_one(self, committed_db: str) -> None:
        workspace, another = Workspace.objects.create(name="another"), "01890000-0000-7000-8000-000000000000"
        before = seen()
        run_sql("UPDATE accounts_workspace SET id = %s WHERE id = %s", another, workspace.pk)

        assert {event.subject_id for event in caught(before)} == {str(workspace.pk), another}

    def test_counters_and_signs_of_life_leave_nothing(self, user: User) -> None:
        token, kernel, run = factories.TokenFactory(user=user), factories.KernelFactory(), factories.RunFactory()
        blueprint = kernel.blueprint_version.blueprint
        before = seen()
        ApiToken.objects.filter(pk=token.pk).update(last_used_at="2026-01-01T00:00:00Z")
        User.objects.filter(pk=user.pk).update(last_login="2026-01-01T00:00:00Z")
        Kernel.objects.filter(pk=kernel.pk).update(usage_count=7, last_used_at="2026-01-01T00:00:00Z")
        Blueprint.objects.filter(pk=blueprint.pk).update(next_number=9)
        TrainingRun.objects.filter(pk=run.pk).update(last_sequence=9, environment={"torch": "2"})

        assert seen() == before

    def test_a_save_that_changes_nothing_leaves_nothing(self, user: User) -> None:
        before = seen()
        user.save()

        assert seen() == before

    def test_the_event_says_who_was_connected(self, user: User) -> None:
        before = seen()
        with transaction.atomic():
            run_sql("SET LOCAL application_name = '\"quoted\" \\ and more'")
            self.rename(user)

        assert {event.payload["application"] for event in caught(before)} == {'"quoted" \\ and more'}

    def test_truncate_is_refused_even_to_the_owner(self, owner: psycopg.Connection[Any]) -> None:
        for model in watched_models():
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="the audit trail watches"):
                owner.execute(f"TRUNCATE {model._meta.db_table} CASCADE".encode())


SWITCHES = {
    "pgtrigger's ignore switch": "SELECT set_config('pgtrigger.ignore', '{accounts_user:audit_net_changes}', true)",
    "a setting that looks like ours": "SELECT set_config('esper.audited', 'on', true)",
    "an earlier check": "SET CONSTRAINTS ALL IMMEDIATE",
    "another search path": "SET LOCAL search_path = pg_temp",
    "plans": "SET LOCAL enable_indexscan = off",
    "another role's name": "SET LOCAL application_name = 'esper'",
    "row security": "SET LOCAL row_security = off",
    "a table in front": "CREATE TEMPORARY TABLE audit_auditpending AS SELECT pg_current_xact_id() AS xid",
}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)
def test_no_setting_silences_it(committed_db: str, switch: str) -> None:
    user = factories.UserFactory()
    before = seen()

    with transaction.atomic():
        run_sql(switch)
        run_sql("UPDATE public.accounts_user SET role = 'admin' WHERE id = %s", user.pk)

    assert [event.type for event in caught(before)] == UNATTRIBUTED


@pytest.mark.parametrize(
    "statement",
    [
        "SET session_replication_role = replica",
        "ALTER TABLE accounts_user DISABLE TRIGGER audit_net_changes",
        "DROP TRIGGER audit_net_changes ON accounts_user",
        "CREATE OR REPLACE FUNCTION esper_audit_net() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "SELECT esper_audit_append('audit.verified', 'trail', 'audit', '', '{}')",
        "TRUNCATE accounts_user CASCADE",
    ],
)
def test_the_application_role_cannot_switch_it_off(committed_db: str, statement: str) -> None:
    with pytest.raises(DatabaseError) as refusal:
        run_sql(statement)

    assert isinstance(refusal.value.__cause__, psycopg.errors.InsufficientPrivilege)


class TestPlan:
    """The look-up costs the same whatever the trail's length and whatever waits for its seal."""

    def test_it_finds_the_transactions_events_by_index(self, owner: psycopg.Connection[Any]) -> None:
        (source,) = owner.execute("SELECT prosrc FROM pg_proc WHERE proname = 'esper_audit_net'").fetchone() or ("",)
        query = re.search(r"PERFORM (FROM .*?LIMIT 1);", source, re.DOTALL)
        assert query is not None
        statement = query[1].replace("TG_ARGV[0]", "'user'").replace("= subject ", "= 'x' ")
        (settings,) = owner.execute("SELECT proconfig FROM pg_proc WHERE proname = 'esper_audit_net'").fetchone() or (
            [],
        )
        with owner.transaction():
            for setting in settings:
                owner.execute(f"SET LOCAL {setting}".encode())
            plan = "\n".join(row[0] for row in owner.execute(f"EXPLAIN SELECT {statement}".encode()))

        assert "using audit_pending_xid" in plan
        assert re.search(r"using audit_auditevent_\d{4}_\d{2}_pkey", plan)
        assert "Seq Scan" not in plan
