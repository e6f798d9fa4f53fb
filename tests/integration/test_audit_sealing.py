"""Sealing: every committed event gets one place in the tree, for good, whatever happens around the sealer."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from apps.audit import keys, proofs, services
from apps.audit.keys import KeyFault, SigningKey
from apps.audit.models import (
    AuditCheckpoint,
    AuditCopy,
    AuditEvent,
    AuditKey,
    AuditLeaf,
    AuditNode,
    AuditPending,
)
from apps.audit.services import sealing
from apps.audit.verifier import Frontier, Verifier, check_consistency, open_checkpoint, open_note
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from tests.support.alterations import open_store
from tests.support.audit import own_home, record, sealed
from tests.support.stack import Servers

pytestmark = pytest.mark.usefixtures("committed_db", "home")


home = own_home


def order() -> list[Any]:
    return list(AuditLeaf.objects.order_by("index").values_list("event_id", flat=True))


def root_of_leaves() -> bytes:
    frontier = Frontier()
    for digest in AuditLeaf.objects.order_by("index").values_list("digest", flat=True):
        frontier.append(bytes(digest))
    return frontier.root()


def trusted() -> list[Verifier]:
    return [Verifier.parse(text) for text in proofs.verifiers()]


@contextmanager
def another_writer(servers: Servers, database: str) -> Iterator[psycopg.Connection[Any]]:
    """A second connection whose transaction is open while the test goes on."""
    with psycopg.connect(servers.url("app", database)) as other:
        other.execute("SELECT pg_current_xact_id()")
        yield other


def write_through(other: psycopg.Connection[Any], event: AuditEvent) -> str:
    """Copy an event's row under a new id, in the open transaction of ``other``; returns the id."""
    columns = [name for name in services.LEAF_COLUMNS if name != "id"]
    row = other.execute(
        f"INSERT INTO audit_auditevent (id, {', '.join(columns)}, leaf) "
        f"SELECT gen_random_uuid(), {', '.join(columns)}, leaf FROM audit_auditevent WHERE id = %s RETURNING id",
        [event.pk],
    ).fetchone()
    assert row is not None
    return str(row[0])


class TestBatch:
    def test_events_become_leaves_without_gaps_in_the_order_of_their_recording(self) -> None:
        events = sealed(5)

        assert order() == [event.pk for event in events]
        assert list(AuditLeaf.objects.order_by("index").values_list("index", flat=True)) == list(range(5))
        assert not AuditPending.objects.exists()

    def test_the_checkpoint_is_the_signed_root_of_all_leaves(self) -> None:
        sealed(300)
        sealed(5)

        newest = AuditCheckpoint.objects.order_by("-size")[0]
        checkpoint = open_checkpoint(newest.note, trusted())
        assert (checkpoint.size, checkpoint.root) == (305, root_of_leaves())
        assert bytes(newest.root) == checkpoint.root

    def test_nothing_new_makes_no_checkpoint(self) -> None:
        sealed(1)

        assert services.seal().count == 0
        assert AuditCheckpoint.objects.count() == 1

    def test_full_tiles_are_stored_once(self) -> None:
        sealed(600)
        sealed(200)

        assert list(AuditNode.objects.order_by("index").values_list("group", "index")) == [(1, 0), (1, 1), (1, 2)]

    def test_a_backlog_is_sealed_batch_by_batch(self) -> None:
        for number in range(7):
            record(number)

        assert services.seal(most=3).count == 7
        assert list(AuditCheckpoint.objects.order_by("size").values_list("size", flat=True)) == [3, 6, 7]

    def test_a_later_checkpoint_is_consistent_with_an_earlier_one(self) -> None:
        sealed(3)
        sealed(400)

        proof = proofs.consistency(first=3)
        check_consistency(
            first=3,
            second=403,
            path=proof.path,
            first_root=bytes(proof.first.root),
            second_root=bytes(proof.second.root),
        )

    def test_a_rolled_back_event_is_never_sealed(self) -> None:
        with transaction.atomic():
            services.record(type="kernel.registered", subject=("kernel", "k"), actor=SYSTEM)
            transaction.set_rollback(True)

        assert services.seal().count == 0


class TestLongTransactions:
    def test_an_event_of_an_open_transaction_is_sealed_once_it_has_committed(
        self, servers: Servers, committed_db: str
    ) -> None:
        (first,) = sealed(1)
        with another_writer(servers, committed_db) as other:
            late = write_through(other, first)
            overtaking = record(1)
            services.seal()
            assert order() == [first.pk], "the overtaking event is above the horizon of the open transaction"
            other.commit()

        services.seal()
        assert {str(key) for key in order()} == {str(first.pk), late, str(overtaking.pk)}
        services.seal()
        assert len(order()) == 3

    def test_an_old_transaction_without_events_of_its_own_delays_and_loses_nothing(
        self, servers: Servers, committed_db: str
    ) -> None:
        with another_writer(servers, committed_db) as other:
            events = [record(number) for number in range(4)]
            assert services.seal().count == 0
            other.rollback()

        assert services.seal().count == 4
        assert order() == [event.pk for event in events]

    def test_interleaved_writers_and_sealers_lose_nothing_and_seal_nothing_twice(self) -> None:
        written: list[Any] = []
        stop = threading.Event()

        def write(writer: int) -> None:
            for number in range(40):
                with transaction.atomic():
                    inside = [
                        services.record(
                            type="kernel.registered", subject=("kernel", f"{writer}-{number}"), actor=SYSTEM
                        )
                        for _ in range(1 + number % 3)
                    ]
                    kept = (number + writer) % 5 != 0
                    transaction.set_rollback(not kept)
                written.extend(event.pk for event in inside if kept)
            connection.close()

        def keep_sealing() -> None:
            while not stop.is_set():
                services.seal(most=7)
            connection.close()

        writers = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        sealers = [threading.Thread(target=keep_sealing) for _ in range(2)]
        for thread in [*writers, *sealers]:
            thread.start()
        for thread in writers:
            thread.join(60)
        stop.set()
        for thread in sealers:
            thread.join(60)
        before = order()
        services.seal()

        assert order()[: len(before)] == before, "what was sealed keeps its place"
        assert sorted(order()) == sorted(written)
        newest = AuditCheckpoint.objects.order_by("-size")[0]
        assert bytes(newest.root) == root_of_leaves()

    def test_only_one_seals_at_a_time(self, servers: Servers, committed_db: str) -> None:
        record()
        with psycopg.connect(servers.url("app", committed_db)) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [sealing.LOCK])
            assert services.seal() is None

        assert services.seal().count == 1


class TestOrderUnderAClockThatStepsBack:
    def test_what_is_sealed_keeps_its_place_and_the_rest_follows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (first,) = sealed(1)
        earlier = first.at.replace(year=first.at.year, microsecond=0)
        monkeypatch.setattr("django.utils.timezone.now", lambda: earlier)

        (second,) = sealed(1)

        assert second.at < first.at
        assert order() == [first.pk, second.pk]


class TestKeys:
    def test_the_first_sealing_makes_a_key_that_only_its_owner_reads(self, home: Path) -> None:
        sealed(1)

        path = home / "audit" / "signing.key"
        assert path.stat().st_mode & 0o777 == 0o600
        assert (home / "audit").stat().st_mode & 0o777 == 0o700
        key = SigningKey.parse(path.read_text(), source="file")
        assert AuditKey.objects.get().verifier == str(key.verifier)

    def test_the_secret_stands_in_no_log_and_no_repr(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        sealed(1)

        # PRIVATE+KEY+name+hash+key: the key is base64, in which a "+" may stand.
        secret = (home / "audit" / "signing.key").read_text().strip().split("+", 4)[4]
        assert secret not in caplog.text
        assert secret not in repr(keys.load())

    def test_a_key_from_the_environment_is_used_and_no_file_is_made(self, settings: LazySettings, home: Path) -> None:
        key = SigningKey.make("elsewhere")
        settings.AUDIT_KEY = key.text

        sealed(1)

        assert AuditKey.objects.get().verifier == str(key.verifier)
        assert not (home / "audit" / "signing.key").exists()

    @pytest.mark.parametrize("text", ["", "PRIVATE+KEY+", "PRIVATE+KEY+a+00000000+AAAA", "secret", "PRIVATE+KEY+a+b"])
    def test_a_malformed_key_is_told_without_showing_it(self, settings: LazySettings, text: str) -> None:
        settings.AUDIT_KEY = text or " "
        record()

        with pytest.raises(KeyFault, match="ESPER_AUDIT_KEY does not hold a signing key"):
            services.seal()

        assert AuditPending.objects.count() == 1

    def test_a_key_that_went_missing_is_not_replaced_silently(self, home: Path) -> None:
        sealed(1)
        (home / "audit" / "signing.key").unlink()
        record()

        with pytest.raises(KeyFault, match=r"is gone: put it back .*--old-key-is-lost"):
            services.seal()
        record()

        assert AuditPending.objects.count() == 2
        assert not (home / "audit" / "signing.key").exists()

    def test_an_unknown_key_that_nobody_vouches_for_signs_nothing(self, settings: LazySettings) -> None:
        sealed(1)
        settings.AUDIT_KEY = SigningKey.make("impostor").text
        record()

        with pytest.raises(KeyFault, match="no known key vouches for it"):
            services.seal()

    def test_a_new_key_in_the_environment_is_vouched_for_by_the_previous_one(self, settings: LazySettings) -> None:
        old, new = SigningKey.make("log"), SigningKey.make("log")
        settings.AUDIT_KEY = old.text
        sealed(1)
        settings.AUDIT_KEY, settings.AUDIT_KEY_PREVIOUS = new.text, old.text

        sealed(1)
        sealed(1)

        notes = list(AuditCheckpoint.objects.order_by("size").values_list("note", flat=True))
        both = [old.verifier, new.verifier]
        assert [len(open_note(note, both)[1]) for note in notes] == [1, 2, 1]
        assert AuditKey.objects.get(pk=new.id).admitted_by == old.id


class TestRotation:
    def test_the_old_key_vouches_for_the_new_one_and_is_forgotten(self, home: Path) -> None:
        sealed(1)
        old = keys.load().current

        verifier = services.rotate_key(actor=SYSTEM, reason="yearly")
        services.seal()

        event = AuditEvent.objects.get(type="audit.key_rotated")
        assert (event.reason, event.payload["verifier"]) == ("yearly", verifier)
        newest = AuditCheckpoint.objects.order_by("-size")[0]
        _, signers = open_note(newest.note, [old.verifier, Verifier.parse(verifier)])
        assert len(signers) == 2
        assert open_checkpoint(newest.note, [old.verifier]).size == newest.size
        assert not (home / "audit" / "previous.key").exists()

    def test_a_rotation_that_was_interrupted_goes_on_where_it_stopped(self) -> None:
        sealed(1)
        keys.turn()

        verifier = services.rotate_key(actor=SYSTEM, reason="again")

        assert str(keys.load().current.verifier) == verifier
        assert services.seal().count == 1
        assert AuditKey.objects.count() == 2

    def test_a_lost_key_is_replaced_on_request_and_nobody_vouches(self, home: Path) -> None:
        sealed(1)
        (home / "audit" / "signing.key").unlink()
        with pytest.raises(Conflict, match="--old-key-is-lost"):
            services.rotate_key(actor=SYSTEM, reason="disk died")

        services.rotate_key(actor=SYSTEM, reason="disk died", old_key_is_lost=True)

        assert services.seal().count == 1
        assert AuditEvent.objects.filter(type="audit.key_replaced", reason="disk died").count() == 1
        assert AuditKey.objects.order_by("-admitted_at")[0].admitted_by == ""

    def test_a_key_that_is_there_cannot_be_called_lost(self) -> None:
        sealed(1)

        with pytest.raises(Conflict, match="is not lost"):
            services.rotate_key(actor=SYSTEM, reason="shortcut", old_key_is_lost=True)


class TestCopies:
    def test_each_checkpoint_lies_in_the_object_storage(self) -> None:
        sealed(1)
        sealed(1)

        for checkpoint in AuditCheckpoint.objects.all():
            with storages["default"].open(checkpoint.copy.name) as file:
                assert file.read().decode() == checkpoint.note

    def test_each_checkpoint_stands_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        sealed(1)

        (line,) = [record for record in caplog.records if "audit_checkpoint" in str(record.msg)]
        assert line.msg["note"] == AuditCheckpoint.objects.get().note, "whole, so that its signature can be checked"

    def test_sealing_goes_on_while_the_storage_is_away_and_copies_catch_up(self, home: Path) -> None:
        (home / "objects").write_text("a file where the folder should be")

        sealed(1)
        sealed(1)
        assert AuditCheckpoint.objects.count() == 2
        assert not AuditCopy.objects.exists()

        (home / "objects").unlink()
        services.seal()
        assert AuditCopy.objects.count() == 2

    def test_a_copy_whose_row_was_lost_in_a_crash_is_taken_as_it_is(self) -> None:
        record()
        with pytest.MonkeyPatch.context() as crash:
            crash.setattr(AuditCopy.objects, "get_or_create", lambda **kwargs: None)
            services.seal()
        assert not AuditCopy.objects.exists()
        assert storages["default"].exists(sealing.copy_name(1))

        assert services.copy_checkpoints() == 1
        assert AuditCopy.objects.get().checkpoint_id == 1


def test_a_note_of_a_trail_that_was_given_up_stays_and_holds_up_no_later_copy() -> None:
    storages["default"].save(sealing.copy_name(1), ContentFile(b"the note of another trail"))
    sealed(1)
    sealed(1)

    assert list(AuditCopy.objects.values_list("checkpoint_id", flat=True)) == [2]
    with storages["default"].open(sealing.copy_name(1)) as file:
        assert file.read() == b"the note of another trail"


class TestWhatWasSignedLast:
    """Beside the key, out of reach of the database's owner, lies the note that was signed last."""

    def rewrite_the_tail(self, servers: Servers, database: str) -> None:
        """As an owner could: the newest seal is taken back, one of its events changed, and all queued again."""
        with open_store(servers.url("owner", database)) as owner:
            owner.execute("DELETE FROM audit_auditcopy WHERE size > 3")
            owner.execute("DELETE FROM audit_auditcheckpoint WHERE size > 3")
            owner.execute(
                "INSERT INTO audit_auditpending (event_id, at, leaf) "
                "SELECT event_id, at, sha256(digest) FROM audit_auditleaf WHERE index >= 3"
            )
            owner.execute("DELETE FROM audit_auditleaf WHERE index >= 3")

    def test_a_rewritten_tail_is_not_signed(self, servers: Servers, committed_db: str) -> None:
        sealed(3)
        sealed(2)
        self.rewrite_the_tail(servers, committed_db)

        with pytest.raises(KeyFault, match="are not the continuation of the 5 that were signed last"):
            services.seal()

        assert AuditCheckpoint.objects.latest("size").size == 3

    def test_a_backup_that_was_restored_is_accepted_on_request_and_says_so(
        self, servers: Servers, committed_db: str
    ) -> None:
        sealed(3)
        sealed(2)
        self.rewrite_the_tail(servers, committed_db)
        with pytest.raises(CommandError, match="--reason"):
            call_command("seal_audit", "--trail-was-restored")

        call_command("seal_audit", "--trail-was-restored", "--reason", "the disk died")

        event = AuditEvent.objects.get(type="audit.restored")
        assert (event.reason, event.payload["given_up"].splitlines()[1]) == ("the disk died", "5")
        assert services.seal().count == 0

    def test_nothing_is_given_up_while_the_trail_goes_on(self) -> None:
        sealed(3)

        with pytest.raises(Conflict, match="nothing to accept"):
            services.accept_restored_trail(actor=SYSTEM, reason="to be sure")


class TestTheApplicationRole:
    """What our own database role could try, as code that was taken over would."""

    def run(self, statement: str) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)

    def test_leaves_that_it_placed_without_a_checkpoint_get_one(self) -> None:
        for number in range(300):
            record(number)
        self.run("SELECT esper_audit_seal(299)")
        assert not AuditCheckpoint.objects.exists()

        services.seal()

        newest = AuditCheckpoint.objects.latest("size")
        assert (newest.size, bytes(newest.root)) == (300, root_of_leaves())

    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO audit_auditnode VALUES (1, 0, '\\x00')",
            "INSERT INTO audit_auditcheckpoint VALUES (4, now(), '\\x00', 'note', 'key')",
            "INSERT INTO audit_auditleaf VALUES (4, gen_random_uuid(), now(), '\\x00')",
            "INSERT INTO audit_auditpending VALUES (gen_random_uuid(), now(), '\\x00')",
            "INSERT INTO audit_auditarchive VALUES ('audit_auditevent_2026_01', 'x', 'x', 1, 1, now())",
            "DELETE FROM audit_auditpending",
            "SELECT esper_audit_add_checkpoint(99, now(), '\\x00', 'note', 'key')",
            "SELECT esper_audit_add_nodes()",
        ],
    )
    def test_it_writes_nothing_into_the_tree(self, statement: str) -> None:
        record()

        with pytest.raises(DatabaseError):
            self.run(statement)
        assert services.seal().count == 1

    def test_a_planted_key_does_not_stop_the_first_sealing(self) -> None:
        AuditKey.objects.create(pk="00000000", verifier="nobody", admitted_at=timezone.now())

        assert len(sealed(1)) == AuditCheckpoint.objects.latest("size").size

    @pytest.mark.parametrize("change", ["at = at + interval '40 days'", "reason = 'twin'"])
    def test_a_second_event_with_the_id_of_a_sealed_one_is_refused(self, change: str) -> None:
        sealed(1)
        name, _, value = change.partition(" = ")
        columns = [column for column in (*services.LEAF_COLUMNS, "leaf") if column != name]
        listed = ", ".join(columns)

        with pytest.raises(DatabaseError):
            self.run(f"INSERT INTO audit_auditevent ({listed}, {name}) SELECT {listed}, {value} FROM audit_auditevent")

    @pytest.mark.parametrize("change", ["leaf = '\\x00'", "diff = '7'", "payload = '[]'"])
    def test_an_event_out_of_shape_is_refused(self, change: str) -> None:
        sealed(1)
        name, _, value = change.partition(" = ")
        columns = ", ".join(column for column in (*services.LEAF_COLUMNS[1:], "leaf") if column != name)

        with pytest.raises(DatabaseError, match="audit_event_has_its_shape"):
            self.run(
                f"INSERT INTO audit_auditevent (id, {columns}, {name}) "
                f"SELECT gen_random_uuid(), {columns}, {value} FROM audit_auditevent"
            )

    def test_months_begin_in_utc_whatever_its_time_zone_is(self) -> None:
        self.run("SET LOCAL timezone = 'America/New_York'; SELECT esper_audit_make_partitions(8)")

        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname LIKE 'audit_auditevent\\_2%%' "
                "AND relispartition AND relkind = 'r'"
            )
            bounds = [bound for (bound,) in cursor.fetchall()]
        assert len(bounds) == 9
        assert all(bound.count("-01 00:00:00+00") == 2 for bound in bounds), bounds


def test_the_note_is_text_that_other_tools_read() -> None:
    """C2SP tlog-checkpoint: origin, decimal size, base64 root, then the extension lines, then the signatures."""
    sealed(2)

    note = AuditCheckpoint.objects.get().note
    assert re.fullmatch(
        r"(esper-[0-9a-f]{8})\n2\n[A-Za-z0-9+/]{43}=\ntime \S+\n\n\u2014 \1 [A-Za-z0-9+/]+=*\n", note
    ), json.dumps(note)
