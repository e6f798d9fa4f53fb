"""Every table of the platform is watched, or exempt with a reason; and the net watches what the declarations say.

``apps/audit/watched.py`` declares; migrations make the triggers, and write the columns out. A new column, or another
declaration, fails here until a migration calls ``watch`` again.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.db import connection
from django.db.models import Model

from apps.audit.net import CHANGES, ROWS, TRUNCATE, unwatch, watch
from apps.audit.watched import Watched, columns, watched_models
from tests.support.stack import Servers

EXEMPT = {
    "core.IdempotencyKey": "stored answers, forgotten after a day",
    "audit.AuditEvent": "the trail itself: append-only, sealed",
    "audit.AuditPerson": "the trail's side table: what it holds is committed to by digests that verify_audit checks",
    "audit.AuditPersonalValue": "the trail's side table: what it holds is committed to by digests, and can be erased",
    "audit.AuditPending": "the trail's queue, written by a trigger and emptied by the sealer",
    "audit.AuditLeaf": "the tree: append-only, checked by verify_audit",
    "audit.AuditNode": "the tree: append-only, checked by verify_audit",
    "audit.AuditKey": "public keys of the tree: append-only, each change is an event about the key",
    "audit.AuditCheckpoint": "signed roots of the tree: append-only, copied outside",
    "audit.AuditCopy": "which roots were copied outside: append-only",
    "audit.AuditVerification": "what verifications found: append-only, each is an event",
    "audit.AuditArchive": "which months were archived: append-only, each is an event",
    "checkpoints.Pack": "repeats what the files of the storage say: manage.py rebuild_checkpoints makes it anew",
    "checkpoints.StoredObject": "named by the digest of its content, and repeated in the index of its pack",
    "checkpoints.ObjectReference": "repeats what the manifest of the checkpoint says",
    "kernels.AccessBatch": "names of written batches of counts",
    "kernels.BlobAccess": "counts of reads: measurements",
    "kernels.CacheOutbox": "a queue, written by services and a trigger and emptied by the relay",
    "kernels.KernelBlob": "named by the digest of its content: a changed byte is found at every read",
    "kernels.KernelChunk": "part of a blob, with its own digest",
    "kernels.KernelUse": "which run holds a kernel: a sign of life",
    "observability.Anomaly": "what a detector found in samples: computed",
    "observability.DeliveryAttempt": "tries to deliver a notification: their own log",
    "observability.DetectorState": "what a detector has learned: computed from samples",
    "observability.FiveMinuteRollup": "averages of samples",
    "observability.HourRollup": "averages of samples",
    "observability.Notification": "the outbox, and the log of what was sent; giving up and retrying are events",
    "observability.Sample": "measurements: their own record",
    "observability.SampleChunk": "measurements, packed",
    "observability.Series": "names of measurements: immutable but for the time of the newest",
    "training.RunLease": "who trains a run now: a sign of life",
    "training.EpochMetric": "measurements, thousands a run: the run's own record",
}
"""Model -> why no event tells of its rows."""


def undeclared(models: Iterable[type[Model]]) -> set[str]:
    own = (model for model in models if model.__module__.startswith("apps."))
    return {model._meta.label for model in own if not isinstance(getattr(model, "audit", None), Watched)}


def test_every_model_is_watched_or_says_why_not() -> None:
    assert undeclared(apps.get_models()) == set(EXEMPT)


def test_a_new_model_without_a_declaration_is_found() -> None:
    class Planted:
        __module__ = "apps.planted.models"
        _meta = type("Options", (), {"label": "planted.Planted"})

    assert undeclared([Planted]) == {"planted.Planted"}  # type: ignore[list-item]


@pytest.mark.parametrize("model", watched_models(), ids=lambda model: model._meta.label)
def test_a_declaration_names_columns_that_exist(model: type[Model]) -> None:
    watch = watched_models()[model]
    known = {column.attname for column in model._meta.concrete_fields}

    assert {*watch.outside, *watch.secret, *watch.personal, watch.of} <= known
    assert not set(watch.outside) & {*watch.secret, *watch.personal}


# --- The triggers in the database

TRIGGERS = """
    SELECT tgname, pg_get_triggerdef(pg_trigger.oid), encode(tgargs, 'escape'), tgdeferrable AND tginitdeferred,
        tgenabled = 'O', ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = tgrelid AND attnum = ANY(tgattr))
    FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname LIKE 'audit_net_%%' ORDER BY tgname
"""


def faults_of(model: type[Model]) -> Iterator[str]:
    """What the net on the model's table does not do as declared."""
    declared = watched_models()[model]
    wanted = {"id", *(column.column for column in columns(model))}
    with connection.cursor() as cursor:
        cursor.execute(TRIGGERS, [model._meta.db_table])
        found: dict[str, tuple[Any, ...]] = {name: rest for name, *rest in cursor.fetchall()}
    if set(found) != {ROWS, CHANGES, TRUNCATE}:
        yield f"its triggers are {sorted(found)}"
        return
    for name in (ROWS, CHANGES):
        definition, arguments, is_deferred, is_enabled, named = found[name]
        if arguments != f"{declared.subject}\\000{declared.of}\\000":
            yield f"{name} is about {arguments}"
        if not is_deferred or not is_enabled:
            yield f"{name} does not run at every commit"
    definition, *_, named = found[CHANGES]
    compared = set(re.findall(r'old\."?(\w+)"?\)?\S* IS DISTINCT FROM \(?new\."?\1\b', definition, re.IGNORECASE))
    for what, names in (("is called for", set(named)), ("compares", compared)):
        if names != wanted:
            yield f"{CHANGES} {what} {sorted(names ^ wanted)} too much or not"


@pytest.mark.django_db
@pytest.mark.parametrize("model", watched_models(), ids=lambda model: model._meta.label)
def test_the_net_watches_what_is_declared(model: type[Model]) -> None:
    assert list(faults_of(model)) == []


@pytest.mark.django_db
def test_the_net_watches_nothing_else() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT relname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
            "WHERE tgname LIKE 'audit_net_%%'"
        )
        tables = {name for (name,) in cursor.fetchall()}

    assert tables == {model._meta.db_table for model in watched_models()}


class TestPlantedOffenders:
    """Each fault in the net is found; ``watch`` mends it."""

    @pytest.fixture
    def kernel(self) -> type[Model]:
        return next(model for model in watched_models() if model._meta.label == "kernels.Kernel")

    def lay(self, servers: Servers, database: str, sql: Any) -> None:
        with psycopg.connect(servers.url("owner", database), autocommit=True) as owner:
            owner.execute(sql)

    def test_a_column_without_a_migration_is_found(
        self, committed_db: str, servers: Servers, kernel: type[Model]
    ) -> None:
        names = ["id", *(column.column for column in columns(kernel))]
        without_digest = watch("kernels_kernel", subject="kernel", columns=[n for n in names if n != "digest"])
        self.lay(servers, committed_db, without_digest.sql)
        assert list(faults_of(kernel)) == [
            "audit_net_changes is called for ['digest'] too much or not",
            "audit_net_changes compares ['digest'] too much or not",
        ]

        self.lay(servers, committed_db, watch("kernels_kernel", subject="kernel", columns=names).sql)
        assert list(faults_of(kernel)) == []

    def test_a_table_without_a_net_is_found(self, committed_db: str, servers: Servers, kernel: type[Model]) -> None:
        self.lay(servers, committed_db, unwatch("kernels_kernel").sql)

        assert list(faults_of(kernel)) == ["its triggers are []"]

    def test_a_net_about_another_subject_is_found(
        self, committed_db: str, servers: Servers, kernel: type[Model]
    ) -> None:
        names = ["id", *(column.column for column in columns(kernel))]
        self.lay(servers, committed_db, watch("kernels_kernel", subject="run", columns=names).sql)

        assert list(faults_of(kernel)) == [
            "audit_net_rows is about run\\000id\\000",
            "audit_net_changes is about run\\000id\\000",
        ]

    def test_a_trigger_that_was_switched_off_is_found(
        self, committed_db: str, servers: Servers, kernel: type[Model]
    ) -> None:
        self.lay(servers, committed_db, "ALTER TABLE kernels_kernel DISABLE TRIGGER audit_net_rows")

        assert list(faults_of(kernel)) == ["audit_net_rows does not run at every commit"]
