"""A month that is over leaves the event store for the object storage: still proven, and never lost on the way."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import LazySettings
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from apps.audit import services, tasks
from apps.audit.models import AuditArchive, AuditEvent
from apps.audit.verification import verify
from apps.audit.verifier import event_leaf
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, NotFound, Unavailable
from tests.support.audit import backdated, own_home, record, sealed
from tests.support.stack import Servers
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db", "home")

home = own_home
MONTH = "audit_auditevent_2026_01"


@pytest.fixture
def january(servers: Servers, committed_db: str) -> list[AuditEvent]:
    """Three sealed events of January among later ones."""
    sealed(2)
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        events = backdated(owner, "2026-01", 3)
    services.seal()
    sealed(2)
    return events


def archive(partition: str = MONTH) -> AuditArchive:
    return services.archive_partition(partition=partition, actor=SYSTEM, reason="older than a year")


def test_the_events_lie_in_the_storage_and_no_longer_in_the_store(january: list[AuditEvent]) -> None:
    archived = archive()

    assert archived.events == 3
    assert not AuditEvent.objects.filter(pk__in=[event.pk for event in january]).exists()
    with storages["default"].open(archived.name) as file:
        lines = [json.loads(line) for line in gzip.decompress(file.read()).splitlines()]
    assert [line["id"] for line in lines] == [str(event.pk) for event in january]
    assert [line["index"] for line in lines] == [2, 3, 4]
    assert all(event_leaf(line).hex() == line["leaf"] for line in lines)


def test_the_archive_is_an_event_with_its_digest(january: list[AuditEvent]) -> None:
    archived = archive()

    event = AuditEvent.objects.get(type="audit.partition_archived")
    assert (event.subject_id, event.reason) == (MONTH, "older than a year")
    assert event.payload["sha256"] == archived.sha256


def test_the_whole_trail_verifies_with_its_archives(january: list[AuditEvent]) -> None:
    archive()
    services.seal()

    assert verify().findings == []


def test_an_altered_archive_is_named(january: list[AuditEvent]) -> None:
    archived = archive()
    storage = storages["default"]
    path = Path(storage.path(archived.name))
    packed = path.read_bytes()

    for altered in (packed + b"\0", packed[:-1], b"not an archive"):
        path.write_bytes(altered)
        assert ("archive", MONTH) in {(finding.kind, finding.id) for finding in verify().findings}
    path.unlink()
    assert ("archive", MONTH) in {(finding.kind, finding.id) for finding in verify().findings}


def test_one_changed_value_in_an_archive_names_its_event(january: list[AuditEvent]) -> None:
    archived = archive()
    path = Path(storages["default"].path(archived.name))
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    lines[1]["reason"] = "it was never me"
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))

    found = {(finding.kind, finding.id) for finding in verify().findings}
    assert ("event", str(january[1].pk)) in found


def test_the_detached_table_is_as_closed_as_it_was(
    january: list[AuditEvent], servers: Servers, committed_db: str
) -> None:
    archive()

    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        for statement in (f"UPDATE {MONTH} SET reason = ''", f"DELETE FROM {MONTH}", f"TRUNCATE {MONTH}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                owner.execute(statement.encode())
        owner.execute(f"DROP TABLE {MONTH}".encode())
    assert verify().is_right


class TestRefusals:
    def test_the_open_month_stays(self, january: list[AuditEvent]) -> None:
        with pytest.raises(Conflict, match="is not over yet"):
            archive(services.partitions.partitions()[1])

    def test_a_month_that_is_none_is_not_found(self) -> None:
        with pytest.raises(NotFound, match="is not a partition"):
            archive("audit_auditevent_1999_01; DROP TABLE x")

    def test_unsealed_events_stay(self, january: list[AuditEvent], servers: Servers, committed_db: str) -> None:
        with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
            backdated(owner, "2026-01", 1)

        with pytest.raises(Conflict, match=r"1 events of .* are not sealed"):
            archive()

    def test_a_storage_that_is_away_detaches_nothing(self, january: list[AuditEvent], home: Path) -> None:
        (home / "objects").rename(home / "moved")
        (home / "objects").write_text("a file where the folder should be")

        with pytest.raises(Unavailable, match="could not be stored"):
            archive()

        assert AuditEvent.objects.filter(pk=january[0].pk).exists()

    @pytest.mark.parametrize(
        ("is_told", "events", "refusal"),
        [(False, 3, "no event of this transaction says"), (True, 99, "is not archived")],
    )
    def test_the_application_role_cannot_detach_what_is_not_archived(
        self, january: list[AuditEvent], is_told: bool, events: int, refusal: str
    ) -> None:
        def detach() -> None:
            with transaction.atomic(), connection.cursor() as cursor:
                if is_told:
                    services.record(type="audit.partition_archived", subject=("partition", MONTH), actor=SYSTEM)
                cursor.execute("SELECT esper_audit_detach_partition(%s, 'x', 'y', %s, 1)", [MONTH, events])

        with pytest.raises(DatabaseError, match=refusal):
            detach()

    def test_an_event_that_commits_meanwhile_is_not_lost(
        self, january: list[AuditEvent], servers: Servers, committed_db: str
    ) -> None:
        """The archive waits for whoever still writes into the month, and then sees what they wrote."""
        columns = ", ".join((*services.LEAF_COLUMNS[1:], "leaf"))
        with psycopg.connect(servers.url("app", committed_db)) as late, ThreadPoolExecutor(1) as pool:
            late.execute(
                f"INSERT INTO audit_auditevent (id, {columns}) SELECT gen_random_uuid(), {columns} "
                "FROM audit_auditevent WHERE id = %s".encode(),
                [january[0].pk],
            )
            attempt = pool.submit(archive)
            wait_until(lambda: _is_waiting_for_lock(late), seconds=4)
            late.commit()

            with pytest.raises(Conflict, match="cannot be detached now"):
                attempt.result(timeout=30)
        assert AuditEvent.objects.filter(pk=january[0].pk).exists()

    def test_an_interrupted_attempt_is_begun_again(
        self, january: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as crash:
            crash.setattr(services, "record", _die)
            with pytest.raises(RuntimeError):
                archive()
        assert AuditEvent.objects.filter(pk=january[0].pk).exists()
        assert not AuditArchive.objects.exists()

        assert archive().events == 3


def _is_waiting_for_lock(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    ).fetchone()
    return row is not None and row[0] > 0


def _die(**event: Any) -> None:
    raise RuntimeError("killed")


def test_beat_archives_what_is_older_than_it_should_keep(january: list[AuditEvent], settings: LazySettings) -> None:
    tasks.archive()
    assert not AuditArchive.objects.exists(), "nothing is archived unless it is asked for"

    settings.AUDIT_KEEP_MONTHS = 1
    tasks.archive()
    assert not AuditArchive.objects.exists(), "the newest month that is over is kept"

    settings.AUDIT_KEEP_MONTHS = 0
    call_command("archive_audit", "2026_01")
    assert AuditArchive.objects.get().partition == MONTH


def test_the_command_lists_and_refuses_in_words(january: list[AuditEvent], capsys: pytest.CaptureFixture[str]) -> None:
    call_command("archive_audit", "--json")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"months": ["2026_01"]}

    with pytest.raises(CommandError, match="is not a partition"):
        call_command("archive_audit", "2025_01")


def test_the_key_command_rotates_and_says_what_to_keep(capsys: pytest.CaptureFixture[str]) -> None:
    sealed(1)
    call_command("rotate_audit_key", "--reason", "yearly", "--json")
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["size"] == 2
    assert answer["verifier"].startswith("esper-")

    call_command("rotate_audit_key", "--print-new")
    assert capsys.readouterr().out.startswith("PRIVATE+KEY+")
    with pytest.raises(CommandError, match="--reason"):
        call_command("rotate_audit_key")
    with pytest.raises(CommandError, match="is not lost"):
        call_command("rotate_audit_key", "--reason", "x", "--old-key-is-lost")
    record()
