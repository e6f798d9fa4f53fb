"""The event store refuses changes: to the application role by privilege, to the owner of the tables by trigger."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction
from psycopg import errors

from apps.audit import services
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from tests.support.stack import Servers


def current_partition() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'audit_auditevent_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM')")
        return str(cursor.fetchone()[0])


FORBIDDEN = {
    "update": "UPDATE {table} SET reason = 'never happened'",
    "update nothing": "UPDATE {table} SET reason = 'never happened' WHERE false",
    "delete": "DELETE FROM {table}",
    "delete through a CTE": "WITH gone AS (DELETE FROM {table} RETURNING *) SELECT count(*) FROM gone",
    "copy what a delete returns": "COPY (DELETE FROM {table} RETURNING *) TO STDOUT",
    "upsert": "INSERT INTO {table} SELECT * FROM {table} ON CONFLICT (id, at) DO UPDATE SET reason = ''",
    "merge": "MERGE INTO {table} AS t USING {table} AS s ON t.id = s.id WHEN MATCHED THEN DELETE",
    "lock for update": "SELECT * FROM {table} FOR UPDATE",
    "truncate": "TRUNCATE {table}",
    "truncate cascade": "TRUNCATE {table} CASCADE",
    "truncate only": "TRUNCATE ONLY {table}",
    "drop": "DROP TABLE {table}",
    "switch triggers off": "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "drop the trigger": "DROP TRIGGER audit_no_truncate ON {table}",
    "add a rule": "CREATE RULE quiet AS ON INSERT TO {table} DO INSTEAD NOTHING",
    "take the table": "ALTER TABLE {table} OWNER TO CURRENT_USER",
    "rename": "ALTER TABLE {table} RENAME TO audit_old",
}
FORBIDDEN_ANYWHERE = {
    "replica role": "SET session_replication_role = replica",
    "detach a partition": "ALTER TABLE audit_auditevent DETACH PARTITION {partition}",
    "write into a partition": "INSERT INTO {partition} SELECT * FROM audit_auditevent",
    "copy into a partition": "COPY {partition} FROM STDIN",
    "soften the refusal": "CREATE OR REPLACE FUNCTION esper_audit_refuse() RETURNS trigger LANGUAGE plpgsql "
    "AS 'BEGIN RETURN OLD; END'",
    "drop the refusal": "DROP FUNCTION esper_audit_refuse() CASCADE",
    "call the granting function": "SELECT esper_audit_restrict('audit_auditevent')",
    "shadow the table": "CREATE TABLE audit_shadow (LIKE audit_auditevent)",
}


@pytest.fixture
def event(db: None) -> AuditEvent:
    return services.record(type="kernel.registered", subject=("kernel", "k"), actor=SYSTEM, reason="as it was")


def assert_refused(statement: str) -> None:
    """The statement fails for want of privilege, and the rest of the transaction goes on."""
    with pytest.raises(DatabaseError) as refusal, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert isinstance(refusal.value.__cause__, errors.InsufficientPrivilege), refusal.value


@pytest.mark.parametrize("statement", FORBIDDEN.values(), ids=FORBIDDEN)
@pytest.mark.parametrize("target", ["the parent", "the partition"])
def test_the_application_role_cannot(event: AuditEvent, target: str, statement: str) -> None:
    table = "audit_auditevent" if target == "the parent" else current_partition()

    assert_refused(statement.format(table=table))

    assert AuditEvent.objects.get(pk=event.pk).reason == "as it was"


@pytest.mark.parametrize("statement", FORBIDDEN_ANYWHERE.values(), ids=FORBIDDEN_ANYWHERE)
def test_the_application_role_cannot_go_around_it(event: AuditEvent, statement: str) -> None:
    assert_refused(statement.format(partition=current_partition()))

    assert AuditEvent.objects.get(pk=event.pk).reason == "as it was"


def test_granting_itself_everything_gives_the_application_role_nothing(event: AuditEvent) -> None:
    """PostgreSQL answers with a warning, not with an error."""
    with connection.cursor() as cursor:
        for table in ("audit_auditevent", current_partition()):
            cursor.execute(f"GRANT ALL ON {table} TO CURRENT_USER")
            for privilege in ("UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES"):
                cursor.execute("SELECT has_table_privilege(%s, %s)", [table, privilege])
                assert cursor.fetchone() == (False,), (table, privilege)


def test_the_application_role_cannot_become_the_owner(event: AuditEvent, servers: Servers) -> None:
    owner = urlsplit(servers.url("owner", "any")).username

    assert_refused(f'SET ROLE "{owner}"')


def test_the_orm_cannot_change_or_delete_an_event(event: AuditEvent) -> None:
    def delete() -> None:
        with transaction.atomic():
            event.delete()

    def rewrite() -> None:
        with transaction.atomic():
            event.reason = "never happened"
            event.save()

    with pytest.raises(DatabaseError):
        delete()
    with pytest.raises(DatabaseError):
        rewrite()


def test_the_application_role_is_neither_owner_nor_superuser(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT rolsuper, rolcreaterole, rolbypassrls, rolreplication FROM pg_roles WHERE rolname = current_user"
        )
        assert cursor.fetchone() == (False, False, False, False)
        cursor.execute(
            "SELECT count(*) FROM pg_class WHERE relname LIKE 'audit%%' AND relowner = current_user::regrole"
        )
        assert cursor.fetchone() == (0,)


@pytest.fixture
def owner(committed_db: str, servers: Servers) -> Iterator[psycopg.Connection]:
    """A connection of the tables' owner to a database that holds one event."""
    with transaction.atomic():
        services.record(type="kernel.registered", subject=("kernel", "k"), actor=SYSTEM, reason="as it was")
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        yield owner


OWNER_IS_REFUSED = {
    "update": "UPDATE {table} SET reason = 'never happened'",
    "delete": "DELETE FROM {table}",
    "truncate": "TRUNCATE {table}",
    "truncate cascade": "TRUNCATE {table} CASCADE",
    "move to another month": "UPDATE {table} SET at = at + interval '1 month'",
}


def test_the_triggers_refuse_even_the_owner(owner: psycopg.Connection) -> None:
    for table in ("audit_auditevent", current_partition()):
        for statement in OWNER_IS_REFUSED.values():
            with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
                owner.execute(statement.format(table=table))

    assert AuditEvent.objects.get().reason == "as it was"


def test_pgtriggers_ignore_switch_does_not_reach_the_event_store(owner: psycopg.Connection) -> None:
    """Plain SQL can set this switch of pgtrigger; the triggers of the event store do not look at it."""
    with owner.transaction():
        owner.execute(
            "SELECT set_config('pgtrigger.ignore', '{audit_auditevent:audit_append_only,audit_append_only}', true)"
        )
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            owner.execute("DELETE FROM audit_auditevent")


def test_no_trigger_of_the_event_store_has_a_condition_or_a_switch(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), count(*) FILTER (WHERE tgenabled <> 'O' OR tgqual IS NOT NULL) FROM pg_trigger "
            "JOIN pg_class ON pg_class.oid = tgrelid WHERE relname LIKE 'audit_auditevent%%'"
        )
        triggers, conditional = cursor.fetchone()
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = 'esper_audit_refuse'")
        (body,) = cursor.fetchone()

    assert triggers >= 2
    assert conditional == 0
    assert "IF" not in body
