"""`audit.record`: in the caller's transaction, of a known type, without personal data, with a leaf to check it by."""

import pytest
from django.db import IntegrityError, connection, transaction

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.audit import selectors, services
from apps.audit.canonical import leaf_digest
from apps.audit.catalogue import EVENT_TYPES, EventType
from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue
from apps.core import context
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.core.ids import new_id

KERNEL = ("kernel", str(new_id()))


def make_actor(name: str = "ada lovelace", address: str = "192.0.2.7") -> Actor:
    return Actor(kind=ActorKind.USER, id=new_id(), name=name, address=address)


def row_text(event: AuditEvent) -> str:
    """Every column of the event as PostgreSQL prints it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT event::text FROM audit_auditevent AS event WHERE id = %s", [event.pk])
        return str(cursor.fetchone()[0])


@pytest.mark.django_db
class TestEvent:
    def test_it_keeps_what_happened_to_what_and_why(self) -> None:
        event = services.record(
            type="kernel.transition",
            subject=KERNEL,
            actor=SYSTEM,
            reason="every check passed",
            before={"state": "BENCHMARKING", "size": 1},
            after={"state": "VALIDATED", "size": 1},
            payload={"loss": 0.25},
        )

        event.refresh_from_db()
        assert (event.type, event.subject_type, event.subject_id) == ("kernel.transition", *KERNEL)
        assert (event.actor_kind, event.actor_id, event.reason) == ("system", None, "every check passed")
        assert event.diff == [{"op": "replace", "path": "/state", "value": "VALIDATED"}]
        assert event.payload == {"loss": "0.25"}

    def test_events_of_one_request_are_joined_by_its_ids(self) -> None:
        with context.bound(request_id="r-1", trace_id="t-1"):
            event = services.record(type="kernel.registered", subject=KERNEL, actor=SYSTEM)

        assert (event.request_id, event.trace_id) == ("r-1", "t-1")

    def test_the_leaf_can_be_computed_again_from_the_stored_row(self) -> None:
        event = services.record(
            type="kernel.registered", subject=KERNEL, actor=make_actor(), payload={"text": "é\u2028 \x7f", "n": 2**60}
        )

        stored = AuditEvent.objects.get(pk=event.pk)
        columns = {name: getattr(stored, name) for name in services.LEAF_COLUMNS}
        assert bytes(stored.leaf) == leaf_digest(columns)

    def test_the_leaf_covers_every_other_column(self) -> None:
        columns = {field.attname for field in AuditEvent._meta.concrete_fields}

        assert set(services.LEAF_COLUMNS) == columns - {"leaf"}

    def test_an_unknown_type_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"'kernel.exploded' is not an audit event type"):
            services.record(type="kernel.exploded", subject=KERNEL, actor=SYSTEM)

        assert not AuditEvent.objects.exists()

    def test_a_long_reason_is_cut_not_refused(self) -> None:
        event = services.record(type="kernel.registered", subject=KERNEL, actor=SYSTEM, reason="x" * 10_000)

        assert len(event.reason) == 4000

    def test_the_history_of_an_asset_is_newest_first(self) -> None:
        first = services.record(type="kernel.registered", subject=KERNEL, actor=SYSTEM)
        second = services.record(type="kernel.compiled", subject=KERNEL, actor=SYSTEM)
        services.record(type="kernel.registered", subject=("kernel", "another"), actor=SYSTEM)

        assert list(selectors.events_of(subject_type=KERNEL[0], subject_id=KERNEL[1])) == [second, first]


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=lambda kind: kind.name)
def test_a_type_is_dotted_and_fits_its_columns(kind: EventType) -> None:
    assert kind.family
    assert kind.name.count(".") == 1
    assert len(kind.name) <= AuditEvent._meta.get_field("type").max_length
    assert len(kind.subject) <= AuditEvent._meta.get_field("subject_type").max_length
    assert kind.sentence


@pytest.mark.django_db
class TestPseudonyms:
    def test_no_name_and_no_address_stands_in_the_event(self) -> None:
        actor = make_actor(name="ada lovelace", address="192.0.2.7")

        text = row_text(services.record(type="kernel.registered", subject=KERNEL, actor=actor))

        assert "lovelace" not in text
        assert "192.0.2.7" not in text
        assert str(actor.id) not in text

    def test_the_side_table_gives_the_name_back(self) -> None:
        event = services.record(type="kernel.registered", subject=KERNEL, actor=make_actor(name="ada lovelace"))

        assert selectors.actor_names([event.actor_id, None]) == {event.actor_id: "ada lovelace"}

    def test_a_person_keeps_one_pseudonym_and_one_row_per_value(self) -> None:
        actor = make_actor()

        first = services.record(type="kernel.registered", subject=KERNEL, actor=actor)
        second = services.record(type="kernel.compiled", subject=KERNEL, actor=actor)

        assert first.actor_id == second.actor_id
        assert AuditPersonalValue.objects.count() == 2

    def test_two_people_with_one_name_have_different_digests(self) -> None:
        first, second = (
            services.record(type="kernel.registered", subject=KERNEL, actor=make_actor(name="ada")) for _ in range(2)
        )

        assert first.actor_digest != second.actor_digest

    def test_erasing_salt_and_values_leaves_event_and_leaf_as_they_are(self) -> None:
        actor = make_actor()
        event = services.record(type="kernel.registered", subject=KERNEL, actor=actor)
        before = row_text(event)

        AuditPersonalValue.objects.filter(person_id=event.actor_id).update(value=None)
        AuditPerson.objects.filter(pk=event.actor_id).update(salt=None, user_id=None)

        assert row_text(event) == before
        assert selectors.actor_names([event.actor_id]) == {}

    def test_the_platform_itself_has_no_pseudonym(self) -> None:
        services.record(type="kernel.registered", subject=KERNEL, actor=SYSTEM)

        assert not AuditPerson.objects.exists()


class TestTransactions:
    def test_an_event_outside_a_transaction_is_refused(self, committed_db: str) -> None:
        with pytest.raises(RuntimeError, match=r"kernel.registered was recorded outside a transaction"):
            services.record(type="kernel.registered", subject=KERNEL, actor=SYSTEM)

        assert not AuditEvent.objects.exists()

    def test_an_event_goes_with_the_write_that_fails(self, committed_db: str) -> None:
        user, _ = accounts.create_user(username="ada", actor=SYSTEM)

        def rename_to_nothing_that_may_be() -> None:
            with transaction.atomic():
                services.record(type="access.role_changed", subject=user, actor=SYSTEM)
                User.objects.filter(pk=user.pk).update(role="king")

        with pytest.raises(IntegrityError):
            rename_to_nothing_that_may_be()

        assert list(AuditEvent.objects.values_list("type", flat=True)) == ["access.user_created"]

    def test_a_committed_write_leaves_its_event(self, committed_db: str) -> None:
        user, _ = accounts.create_user(username="ada", actor=SYSTEM)

        assert AuditEvent.objects.get().subject_id == str(user.pk)
