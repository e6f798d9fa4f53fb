"""`verify_audit`: a trail that is as it was signed passes, and whatever was altered behind it is found and named."""

import json
import random
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import LazySettings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import connections

from apps.audit import keys, proofs, services
from apps.audit.canonical import leaf_digest
from apps.audit.keys import SigningKey
from apps.audit.merkle import TILE, perfect_root
from apps.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf, AuditPersonalValue, AuditVerification
from apps.audit.state import trail_state
from apps.audit.verification import Outcome, verify
from apps.audit.verifier import Verifier, open_note
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.core.ids import new_id
from tests.support import alterations
from tests.support.audit import backdated, own_home, record, sealed
from tests.support.stack import Servers

pytestmark = pytest.mark.usefixtures("committed_db", "home")

home = own_home
SEED = 20_261_126


@pytest.fixture
def trail() -> list[AuditEvent]:
    """300 sealed events of people under two checkpoints, one full tile, and two events that wait for their seal."""
    ada = Actor(kind=ActorKind.USER, id=new_id(), name="ada", address="192.0.2.7")
    events = sealed(TILE + 10, actor=ada, reason="as it was", before={"state": "A"}, after={"state": "B"})
    events += sealed(34, subject=("kernel", "k"), payload={"\u00fcber": ["\u20ac", 2**60]})
    record()
    record()
    return events


@pytest.fixture
def owner(servers: Servers, committed_db: str, trail: list[AuditEvent]) -> Any:
    with alterations.open_store(servers.url("owner", committed_db)) as owner:
        yield owner


def found(outcome: Outcome) -> set[tuple[str, str]]:
    return {(finding.kind, finding.id) for finding in outcome.findings}


class TestAnUnalteredTrail:
    def test_it_is_right_from_the_first_event_to_those_that_wait(self, trail: list[AuditEvent]) -> None:
        outcome = verify()

        assert outcome.findings == []
        assert (outcome.events, outcome.checkpoints, outcome.unsealed) == (300, 2, 2)
        assert outcome.unchecked == []

    def test_it_goes_on_from_a_checkpoint(self, trail: list[AuditEvent]) -> None:
        outcome = verify(since=TILE + 10)

        assert (outcome.events, outcome.is_right) == (34, True)

    def test_an_empty_trail_is_right(self) -> None:
        assert verify().is_right

    def test_sealing_goes_on_while_it_is_verified(self, trail: list[AuditEvent]) -> None:
        outcome = verify(progress=lambda done, total: sealed(3) and None)

        assert outcome.is_right

    def test_a_chunk_is_verified_in_a_bounded_number_of_queries(
        self, trail: list[AuditEvent], django_assert_max_num_queries: Any
    ) -> None:
        with django_assert_max_num_queries(40):
            verify()


class TestBitFlips:
    """The whole campaign is tests/faults/test_audit_campaign.py: every column of many rows."""

    @pytest.mark.parametrize("table", alterations.KEYS)
    def test_a_flipped_bit_in_any_column_is_found(self, owner: psycopg.Connection[Any], table: str) -> None:
        generator = random.Random(SEED)
        undetected = []
        for column in alterations.columns_of(owner, table):
            done = alterations.flip(owner, table, sample(owner, table, generator), column, generator)
            if verify().is_right:
                undetected.append(done.name)
            alterations.undo(owner, done)

        assert undetected == []
        assert verify().is_right, "every flip was undone"

    def test_the_event_with_the_flipped_bit_is_named(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent]
    ) -> None:
        generator = random.Random(SEED)
        for column in set(alterations.columns_of(owner, "audit_auditevent")) - {"id", "at"}:
            event = generator.choice(trail)
            done = alterations.flip(owner, "audit_auditevent", (event.pk, event.at), column, generator)

            assert found(verify()) == {("event", str(event.pk))}, column
            alterations.undo(owner, done)


def sample(owner: psycopg.Connection[Any], table: str, generator: random.Random) -> tuple[Any, ...]:
    keys = ", ".join(f'"{name}"' for name in alterations.KEYS[table])
    return generator.choice(owner.execute(f"SELECT {keys} FROM {table} ORDER BY {keys}".encode()).fetchall())


class TestRows:
    def test_a_deleted_event_is_named(self, owner: psycopg.Connection[Any], trail: list[AuditEvent]) -> None:
        owner.execute("DELETE FROM audit_auditevent WHERE id = %s", [trail[7].pk])

        assert found(verify()) == {("event", str(trail[7].pk))}

    def test_an_event_that_nobody_sealed_and_nobody_queued_is_named(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent]
    ) -> None:
        columns = ", ".join(services.LEAF_COLUMNS[1:])
        (planted,) = owner.execute(
            f"INSERT INTO audit_auditevent (id, {columns}, leaf) SELECT gen_random_uuid(), {columns}, leaf "
            "FROM audit_auditevent LIMIT 1 RETURNING id".encode()
        ).fetchone()

        assert found(verify()) == {("event", str(planted))}

    def test_two_swapped_events_are_named(self, owner: psycopg.Connection[Any], trail: list[AuditEvent]) -> None:
        first, second = trail[3], trail[4]
        for column in ("reason", "payload", "diff", "subject_id"):
            owner.execute(
                f"UPDATE audit_auditevent AS a SET {column} = b.{column} FROM audit_auditevent AS b "
                "WHERE (a.id, b.id) IN ((%(x)s, %(y)s), (%(y)s, %(x)s))".encode(),
                {"x": first.pk, "y": second.pk},
            )

        assert found(verify()) == {("event", str(first.pk)), ("event", str(second.pk))}

    def test_two_swapped_leaves_are_found(self, owner: psycopg.Connection[Any]) -> None:
        owner.execute("UPDATE audit_auditleaf SET index = -1 WHERE index = 3")
        owner.execute("UPDATE audit_auditleaf SET index = 3 WHERE index = 4")
        owner.execute("UPDATE audit_auditleaf SET index = 4 WHERE index = -1")

        assert ("checkpoint", str(TILE + 10)) in found(verify())

    def test_a_forged_event_with_a_fitting_leaf_breaks_the_signed_root(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent]
    ) -> None:
        """Event, leaf, tree and nodes are rewritten consistently: only the signature tells."""
        event = trail[5]
        event.reason = "it was never me"
        leaf = leaf_digest({name: getattr(event, name) for name in services.LEAF_COLUMNS})
        owner.execute(
            "UPDATE audit_auditevent SET reason = %s, leaf = %s WHERE id = %s", [event.reason, leaf, event.pk]
        )
        owner.execute("UPDATE audit_auditleaf SET digest = %s WHERE event_id = %s", [leaf, event.pk])
        tile = proofs.read_tile(0, 0)
        owner.execute('UPDATE audit_auditnode SET digest = %s WHERE "group" = 1 AND index = 0', [perfect_root(tile)])

        outcome = verify()
        assert found(outcome) == {("checkpoint", str(TILE + 10)), ("checkpoint", str(TILE + 44))}
        assert "the tree was rewritten" in outcome.findings[0].wrong

    def test_a_waiting_event_that_is_deleted_is_named(self, owner: psycopg.Connection[Any]) -> None:
        (waiting,) = owner.execute(
            "DELETE FROM audit_auditevent WHERE id = (SELECT event_id FROM audit_auditpending LIMIT 1) RETURNING id"
        ).fetchone()

        assert found(verify()) == {("event", str(waiting))}

    def test_a_cut_off_end_is_found_by_the_copies(self, owner: psycopg.Connection[Any]) -> None:
        owner.execute("DELETE FROM audit_auditcopy WHERE size > %s", [TILE + 10])
        owner.execute("DELETE FROM audit_auditcheckpoint WHERE size > %s", [TILE + 10])
        owner.execute(
            "DELETE FROM audit_auditevent WHERE id IN (SELECT event_id FROM audit_auditleaf WHERE index >= %s)",
            [TILE + 10],
        )
        owner.execute("DELETE FROM audit_auditleaf WHERE index >= %s", [TILE + 10])

        assert found(verify()) == {("checkpoint", str(TILE + 44))}

    def test_a_deleted_node_and_one_too_many_are_found(self, owner: psycopg.Connection[Any]) -> None:
        owner.execute("DELETE FROM audit_auditnode")
        assert found(verify()) == {("node", "1/0")}

        owner.execute('INSERT INTO audit_auditnode ("group", index, digest) VALUES (1, 9, %s)', [bytes(32)])
        assert found(verify()) == {("node", "1/0"), ("node", "1/9")}


class TestOutside:
    def test_a_changed_copy_is_named(self, trail: list[AuditEvent]) -> None:
        name = AuditCheckpoint.objects.earliest("size").copy.name
        storages["default"].delete(name)
        assert found(verify()) == {("copy", str(TILE + 10))}

        storages["default"].save(name, ContentFile(b"something else"))
        assert found(verify()) == {("copy", str(TILE + 10))}

    def test_a_storage_that_is_away_is_told_and_condemns_nothing(self, trail: list[AuditEvent], home: Path) -> None:
        (home / "objects").rename(home / "moved")
        (home / "objects").write_text("a file where the folder should be")

        outcome = verify()

        assert outcome.is_right
        assert len(outcome.unchecked) >= 2

    def test_a_note_kept_elsewhere_must_agree(self, trail: list[AuditEvent], settings: LazySettings) -> None:
        note = AuditCheckpoint.objects.earliest("size").note
        trusted = [Verifier.parse(text) for text in proofs.verifiers()]

        assert verify(notes=[note], trusted=trusted).is_right
        size, changed = str(TILE + 10), str(TILE + 11)
        assert found(verify(notes=[note.replace(f"\n{size}\n", f"\n{changed}\n", 1)])) == {("note", "1")}

    def test_another_key_than_the_trusted_one_is_found(self, trail: list[AuditEvent]) -> None:
        stranger = SigningKey.make("stranger").verifier

        assert {kind for kind, _ in found(verify(trusted=[stranger]))} == {"checkpoint"}

    def test_a_changed_name_in_the_side_table_is_named(self, owner: psycopg.Connection[Any]) -> None:
        value = AuditPersonalValue.objects.get(kind="name")
        owner.execute("UPDATE audit_auditpersonalvalue SET value = 'eve' WHERE id = %s", [value.pk])

        assert found(verify()) == {("value", str(value.pk))}


class TestCommand:
    def test_it_says_that_all_is_right_and_keeps_the_result(
        self, trail: list[AuditEvent], capsys: pytest.CaptureFixture[str]
    ) -> None:
        call_command("verify_audit", "--json")

        answer = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (answer["right"], answer["events"], answer["findings"]) == (True, 300, [])
        assert AuditVerification.objects.get().size == 300
        assert AuditEvent.objects.get(type="audit.verified").outcome == "success"

    def test_it_names_what_was_altered_exits_with_1_and_raises_an_alert(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent], capsys: pytest.CaptureFixture[str]
    ) -> None:
        owner.execute("UPDATE audit_auditevent SET reason = 'never' WHERE id = %s", [trail[0].pk])

        with pytest.raises(SystemExit, match="1"):
            call_command("verify_audit")

        assert f"WRONG event {trail[0].pk}: a value was changed" in capsys.readouterr().out
        alert = AuditEvent.objects.get(type="alert.verification")
        assert str(trail[0].pk) in alert.reason

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--since", "7"), "--since: no checkpoint was signed at 7 leaves"),
            (("--key", "nonsense"), "--key: 'nonsense' is not a verifier"),
            (("--note", "/does/not/exist"), "--note: .*No such file"),
        ],
    )
    def test_bad_words_are_told(self, trail: list[AuditEvent], words: tuple[str, ...], said: str) -> None:
        with pytest.raises(CommandError, match=said):
            call_command("verify_audit", *words)

    def test_the_nightly_verification_goes_on_where_the_last_clean_one_ended(self, trail: list[AuditEvent]) -> None:
        services.verify_trail(actor=SYSTEM)
        assert services.verified_size() == 300

        sealed(5)
        outcome = services.verify_trail(actor=SYSTEM, since=services.verified_size())
        assert (outcome.first, outcome.is_right) == (300, True)
        assert services.verified_size() == AuditLeaf.objects.count()


def test_no_verification_writes_to_the_trail_it_reads(trail: list[AuditEvent]) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
        assert verify().is_right
        cursor.execute("SET default_transaction_read_only = off")


class TestRewrites:
    """An owner who rewrites consistently, and even gets the sealer's signature for it."""

    def test_a_checkpoint_that_was_removed_with_its_copys_row_is_missed(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent]
    ) -> None:
        owner.execute("DELETE FROM audit_auditcopy WHERE size = %s", [TILE + 10])
        owner.execute("DELETE FROM audit_auditcheckpoint WHERE size = %s", [TILE + 10])

        assert found(verify()) == {("checkpoint", str(TILE + 10))}

    def test_a_tail_that_was_rewritten_and_sealed_anew_on_another_machine_is_found(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent], home: Path
    ) -> None:
        """That machine has the key, but does not know what was signed last."""
        for table in ("audit_auditcopy", "audit_auditcheckpoint"):
            owner.execute(f"DELETE FROM {table} WHERE size > %s".encode(), [TILE + 10])
        gone = [row for (row,) in owner.execute("SELECT event_id FROM audit_auditleaf WHERE index >= %s", [TILE + 10])]
        owner.execute("DELETE FROM audit_auditevent WHERE id = ANY(%s)", [gone])
        owner.execute("DELETE FROM audit_auditleaf WHERE index >= %s", [TILE + 10])
        (home / "audit" / "last.note").unlink()

        services.seal()

        assert ("checkpoint", str(TILE + 44)) in found(verify())

    def test_a_damaged_tree_is_a_finding_and_never_a_crash(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent]
    ) -> None:
        owner.execute("DELETE FROM audit_auditnode")

        outcome = services.verify_trail(actor=SYSTEM, since=TILE + 10)

        assert {kind for kind, _ in found(outcome)} == {"node"}
        assert AuditEvent.objects.filter(type="alert.verification").exists()

    def test_findings_stand_until_the_whole_trail_has_verified(
        self, owner: psycopg.Connection[Any], trail: list[AuditEvent]
    ) -> None:
        done = alterations.flip(owner, "audit_auditevent", (trail[0].pk, trail[0].at), "reason", random.Random(1))
        owner.execute("ALTER TABLE audit_auditevent ENABLE TRIGGER audit_queue")  # the verifications are events
        services.verify_trail(actor=SYSTEM)

        services.verify_trail(actor=SYSTEM, since=TILE + 10)
        assert trail_state().verification.findings_count == 1, "a later part that is right clears no alarm"

        alterations.undo(owner, done)
        services.verify_trail(actor=SYSTEM)
        assert trail_state().verification.findings_count == 0

    def test_a_verification_that_could_not_read_everything_is_not_built_upon(
        self, trail: list[AuditEvent], home: Path
    ) -> None:
        (home / "objects").rename(home / "moved")
        (home / "objects").write_text("a file where the folder should be")

        assert services.verify_trail(actor=SYSTEM).is_right
        assert services.verified_size() == 0


class TestKeysOverTime:
    def test_who_trusts_the_first_key_trusts_those_that_it_vouched_for(self, trail: list[AuditEvent]) -> None:
        first = Verifier.parse(proofs.verifiers()[0])
        for _ in range(2):
            services.rotate_key(actor=SYSTEM, reason="yearly")
            sealed(1)

        assert verify(trusted=[first]).findings == []

    def test_a_key_that_replaced_a_lost_one_is_not_trusted_by_those_who_had_the_first(
        self, trail: list[AuditEvent], home: Path
    ) -> None:
        first = Verifier.parse(proofs.verifiers()[0])
        (home / "audit" / "signing.key").unlink()
        services.rotate_key(actor=SYSTEM, reason="disk died", old_key_is_lost=True)
        sealed(1)

        assert {kind for kind, _ in found(verify(trusted=[first]))} == {"checkpoint"}

    def test_a_second_signature_alone_vouches_for_nobody(self, trail: list[AuditEvent]) -> None:
        """The new key stands in the signed text; a signature line that anybody can add does not."""
        first = keys.load()
        services.rotate_key(actor=SYSTEM, reason="yearly")
        sealed(1)
        note = AuditCheckpoint.objects.latest("size").note

        assert first is not None
        text, _ = open_note(note, [first.current.verifier])
        assert f"key {proofs.verifiers()[-1]}" in text.splitlines()


@pytest.mark.parametrize("damage", range(12))
def test_a_damaged_archive_is_named_whatever_the_damage(
    damage: int, servers: Servers, committed_db: str, home: Path
) -> None:
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        alterations_of_january = backdated(owner, "2026-01", 20)
    services.seal()
    archive = services.archive_partition(partition="audit_auditevent_2026_01", actor=SYSTEM, reason="old")
    path, generator = Path(storages["default"].path(archive.name)), random.Random(damage)
    data = bytearray(path.read_bytes())
    for _ in range(3):
        data[generator.randrange(10, len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(bytes(data))

    outcome = verify()

    assert len(alterations_of_january) == 20
    assert ("archive", "audit_auditevent_2026_01") in found(outcome)


def test_an_archive_in_a_storage_that_is_away_is_told_once(servers: Servers, committed_db: str, home: Path) -> None:
    with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
        backdated(owner, "2026-01", 20)
    services.seal()
    services.archive_partition(partition="audit_auditevent_2026_01", actor=SYSTEM, reason="old")
    (home / "objects").rename(home / "moved")
    (home / "objects").write_text("a file where the folder should be")

    outcome = verify()

    assert outcome.findings == []
    assert len([said for said in outcome.unchecked if said.startswith("the events of")]) == 1
