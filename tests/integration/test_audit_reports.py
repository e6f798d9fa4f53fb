"""Compliance reports on a real trail: signed, stored, reproducible, and patient with what is away."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.files.storage import storages
from django.db import connection
from django.utils import timezone

from apps.accounts import services as accounts
from apps.accounts.roles import Role
from apps.audit import keys, proofs, pseudonyms, services, tasks
from apps.audit.lifecycle import ReportKind, ReportState
from apps.audit.models import AuditCheckpoint, AuditEvent, AuditReport
from apps.audit.services import reporting
from apps.audit.verifier import Verifier, Wrong, check_report
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.core.errors import Conflict, Invalid
from apps.core.ids import new_id
from tests.support.audit import record, sealed
from tests.support.factories import UserFactory

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: LazySettings) -> Path:
    """A data folder of the test's own: keys and reports."""
    settings.ESPER_HOME = tmp_path
    use_storage(settings, tmp_path / "objects")
    return tmp_path


def use_storage(settings: LazySettings, folder: Path) -> None:
    storage = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(folder)},
    }
    settings.STORAGES = {**settings.STORAGES, "default": storage}


@pytest.fixture
def storage_away(settings: LazySettings, home: Path) -> Callable[[bool], None]:
    """Turn the object storage off and on: off, its folder is a file."""
    (home / "file").write_text("")

    def away(is_away: bool) -> None:
        use_storage(settings, home / "file" if is_away else home / "objects")

    return away


def ask(kind: str = "change", actor: Actor = SYSTEM, as_of: datetime | None = None, **parameters: str) -> AuditReport:
    return services.request_report(kind=kind, parameters=parameters, as_of=as_of, actor=actor)


def written(kind: str = "change", **values: Any) -> AuditReport:
    return services.write_report(report=ask(kind, **values))


def content(report: AuditReport) -> bytes:
    with storages["default"].open(report.name) as file:
        return bytes(file.read())


def lines(report: AuditReport) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content(report).splitlines()]


def trusted() -> list[Verifier]:
    return [Verifier.parse(text) for text in proofs.verifiers()]


def types() -> list[str]:
    return list(AuditEvent.objects.filter(type__startswith="report.").order_by("id").values_list("type", flat=True))


class TestAsking:
    def test_a_request_waits_with_its_canonical_parameters_and_the_askers_pseudonym(self) -> None:
        user = UserFactory()
        actor = Actor(kind=ActorKind.USER, id=user.pk, name=user.username)

        report = ask("access", actor, since="2026-01-01T02:00:00+02:00")

        assert report.state == ReportState.QUEUED
        assert report.parameters == {"since": "2026-01-01T00:00:00+00:00"}
        assert report.requested_by == pseudonyms.pseudonym_of(user.pk).id
        assert types() == ["report.requested"]

    def test_the_future_cannot_be_reported(self) -> None:
        with pytest.raises(Invalid, match="future"):
            ask(as_of=timezone.now() + timedelta(minutes=1))

        assert not AuditReport.objects.exists()

    def test_a_kernel_that_nobody_ever_saw_is_refused(self) -> None:
        with pytest.raises(Invalid, match="knows no kernel"):
            ask("provenance", kernel=str(new_id()))


class TestWriting:
    @pytest.mark.parametrize("kind", ReportKind)
    def test_every_kind_is_written_and_signed(self, kind: str) -> None:
        kernel = record(after={"state": "REGISTERED"}).subject_id
        report = written(kind, **({"kernel": kernel} if kind == "provenance" else {}))

        first, *_, last = lines(report)
        assert report.state == ReportState.READY, report.failure
        assert first == {
            "kind": kind,
            "parameters": report.parameters,
            "as_of": report.as_of.isoformat(),
            "size": report.size,
            "root": bytes(report.root or b"").hex(),
        }
        assert "summary" in last
        assert report.rows == len(lines(report)) - 2
        assert check_report(content(report), report.note, trusted()).endswith(f"over {report.size} events")

    def test_the_note_says_what_the_report_says(self) -> None:
        report = written()

        name, word, statement = report.note.partition("\n\n")[0].splitlines()
        assert (name, word) == (trusted()[0].name, "report")
        assert json.loads(statement) == {**lines(report)[0], "rows": report.rows, "sha256": report.sha256}
        assert report.sha256 == sha256(content(report)).hexdigest()

    def test_it_is_answered_from_a_signed_tree(self) -> None:
        report = written()

        checkpoint = AuditCheckpoint.objects.get(size=report.size)
        assert bytes(report.root or b"") == bytes(checkpoint.root)

    def test_events_after_its_time_are_left_out(self) -> None:
        record(1, after={"state": "REGISTERED"})
        moment = timezone.now()
        record(2, after={"state": "REGISTERED"})

        assert written(as_of=moment).rows == 1
        assert written().rows >= 2

    def test_rows_are_in_the_order_of_the_tree(self) -> None:
        for number in range(5):
            record(number, after={"state": "REGISTERED"})

        places = [row["index"] for row in lines(written())[1:-1]]

        assert places == sorted(places)
        assert len(set(places)) == len(places)

    def test_what_changed_can_be_asked_of_one_subject(self) -> None:
        event = record(after={"state": "REGISTERED"})
        record(after={"state": "REGISTERED"})

        report = written(subject_type="kernel", subject_id=event.subject_id)

        assert [row["id"] for row in lines(report)[1:-1]] == [str(event.pk)]

    def test_privileges_are_those_of_real_accounts(self) -> None:
        user, _ = accounts.create_user(username="grace", actor=SYSTEM)
        accounts.set_role(user=user, role=Role.CURATOR, reason="library", actor=SYSTEM)
        token, _ = accounts.issue_token(user=user, name="ci", scopes=["runs:read"], actor=SYSTEM)
        before = timezone.now()
        accounts.set_role(user=user, role=Role.ADMIN, reason="more", actor=SYSTEM)
        accounts.revoke_token(token=token, actor=SYSTEM)

        then, now = lines(written("privileges", as_of=before))[1:-1], lines(written("privileges"))[1:-1]

        assert [(row.get("role"), row.get("scopes")) for row in then] == [("curator", None), (None, ["runs:read"])]
        assert [row.get("role") for row in now] == ["admin"]

    def test_no_name_and_no_address_stands_in_it(self) -> None:
        user, _ = accounts.create_user(username="lovelace", email="ada@example.org", actor=SYSTEM)
        actor = Actor(kind=ActorKind.USER, id=user.pk, name="lovelace", address="192.0.2.44")
        accounts.record_login(user=user, actor=actor)

        for kind in ("access", "change", "privileges"):
            data = content(written(kind, actor=actor))
            assert not [word for word in (b"lovelace", b"example.org", b"192.0.2.44") if word in data]


class TestAgain:
    def test_the_same_report_is_computed_from_the_grown_trail(self) -> None:
        record(after={"state": "REGISTERED"})
        report = written()
        sealed(300, after={"state": "REGISTERED"})

        found = services.reproduce_report(report=report, actor=SYSTEM)

        assert found.is_same
        assert types()[-1] == "report.reproduced"

    def test_a_stored_file_that_was_changed_is_found(self, home: Path) -> None:
        report = written()
        (home / "objects" / report.name).write_bytes(content(report).replace(b"change", b"chance", 1))

        found = services.reproduce_report(report=report, actor=SYSTEM)

        assert (found.is_same, found.sha256 == report.sha256, found.stored == report.sha256) == (False, True, False)
        assert AuditEvent.objects.get(type="report.reproduced").outcome == "failure"
        with pytest.raises(Wrong, match="was signed"):
            check_report(content(report), report.note, trusted())

    def test_a_stored_file_that_is_gone_is_told(self, home: Path) -> None:
        report = written()
        (home / "objects" / report.name).unlink()

        assert services.reproduce_report(report=report, actor=SYSTEM).stored == ""

    def test_an_event_that_the_owner_changed_is_found(self, owner: Callable[[str], None]) -> None:
        event = record(after={"state": "REGISTERED"})
        report = written()
        owner("ALTER TABLE audit_auditevent DISABLE TRIGGER USER")
        owner(f"UPDATE audit_auditevent SET outcome = 'refused' WHERE id = '{event.pk}'")

        assert not services.reproduce_report(report=report, actor=SYSTEM).is_same

    def test_only_a_written_report_can_be_reproduced(self) -> None:
        with pytest.raises(Conflict, match="QUEUED"):
            services.reproduce_report(report=ask(), actor=SYSTEM)

    def test_writing_again_changes_nothing(self) -> None:
        report = written()

        again = services.write_report(report=report)

        assert (again.sha256, again.row_version) == (report.sha256, report.row_version)
        assert types().count("report.written") == 1

    def test_a_writer_that_was_killed_in_the_middle_is_repeated_with_the_same_answer(self, home: Path) -> None:
        """It had chosen its tree and left half a file; the trail has grown since."""
        report = reporting._fix_checkpoint(ask())
        path = home / "objects" / reporting.NAME.format(id=report.pk)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"{half")
        sealed(3)

        done = services.write_report(report=report)

        assert (done.state, done.size) == (ReportState.READY, report.size)
        assert check_report(content(done), done.note, trusted())


class TestPatience:
    def test_a_report_waits_for_a_storage_that_is_away(self, storage_away: Callable[[bool], None]) -> None:
        report = ask()
        storage_away(True)
        waiting = services.write_report(report=report)
        storage_away(False)

        assert waiting.state == ReportState.QUEUED
        assert types() == ["report.requested", "report.begun", "report.postponed"]
        assert "object storage" in waiting.failure
        assert services.write_report(report=waiting).failure == ""

    def test_it_fails_when_the_storage_stays_away(self, storage_away: Callable[[bool], None]) -> None:
        report = ask()
        AuditReport.objects.update(created_at=timezone.now() - reporting.PATIENCE)
        storage_away(True)

        failed = services.write_report(report=report)

        assert failed.state == ReportState.FAILED
        assert AuditEvent.objects.get(type="report.failed").reason == failed.failure

    def test_a_report_waits_for_its_key(self, home: Path) -> None:
        sealed(1)
        report = ask()
        services.seal()
        (home / "audit" / keys.CURRENT).rename(home / "audit" / "away")
        waiting = services.write_report(report=report)
        (home / "audit" / "away").rename(home / "audit" / keys.CURRENT)

        assert waiting.state == ReportState.QUEUED
        assert "key" in waiting.failure
        assert services.write_report(report=waiting).state == ReportState.READY

    def test_a_report_waits_for_the_sealer(self, servers: Any, committed_db: str) -> None:
        import psycopg

        from apps.audit.services.sealing import LOCK

        record()
        report = ask()
        with psycopg.connect(servers.url("app", committed_db)) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
            waiting = services.write_report(report=report)

        assert (waiting.state, waiting.size) == (ReportState.QUEUED, None)
        assert "sealed" in waiting.failure
        assert services.write_report(report=waiting).state == ReportState.READY

    def test_beat_queues_again_what_waits_too_long(self, servers: Any) -> None:
        report, fresh = ask(), ask()
        AuditReport.objects.filter(pk=report.pk).update(updated_at=timezone.now() - tasks.WAITING)
        servers.empty_redis()

        tasks.write_waiting_reports()

        assert queued() == [str(report.pk)]
        assert fresh.state == ReportState.QUEUED

    def test_the_task_writes_and_passes_over_a_row_that_is_gone(self) -> None:
        report = ask()

        tasks.write_report(str(report.pk))
        tasks.write_report(str(new_id()))

        report.refresh_from_db()
        assert report.state == ReportState.READY


def queued() -> list[str]:
    """The first argument of each message in the default queue."""
    from celery import current_app

    with current_app.connection_for_read() as broker:
        queue = broker.SimpleQueue("default")
        found = []
        for _ in range(queue.qsize()):
            message = queue.get(block=False)
            found.append(message.payload[0][0])
            message.ack()
    return found


@pytest.fixture
def owner(servers: Any, committed_db: str) -> Callable[[str], None]:
    """Run a statement as the owner of the tables."""
    import psycopg

    def run(statement: str) -> None:
        with psycopg.connect(servers.url("owner", committed_db)) as other:
            other.execute(statement)

    return run


def test_a_report_reads_months_that_were_archived(
    owner: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The month of January 2026, archived after the report was written: the same bytes come out."""
    month = "audit_auditevent_2026_01"
    owner(f"CREATE TABLE {month} PARTITION OF audit_auditevent FOR VALUES FROM ('2026-01-01+00') TO ('2026-02-01+00')")
    with monkeypatch.context() as january:
        january.setattr("apps.audit.services.recording.timezone.now", lambda: datetime(2026, 1, 9, tzinfo=UTC))
        old = record(1, after={"state": "REGISTERED"})
    record(2, after={"state": "REGISTERED"})
    report = written()

    services.seal()
    services.archive_partition(partition=month, actor=SYSTEM, reason="old")

    assert not AuditEvent.objects.filter(pk=old.pk).exists()
    assert str(old.pk) in [row.get("id") for row in lines(report)]
    assert services.reproduce_report(report=report, actor=SYSTEM).is_same
    narrow = written(subject_id=old.subject_id)
    assert [row["id"] for row in lines(narrow)[1:-1]] == [str(old.pk)]
    assert connection.in_atomic_block is False
