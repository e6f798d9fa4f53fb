"""Monthly partitions: made ahead, made once, and each as closed as its parent."""

import pytest
from django.db import DatabaseError, connection, transaction

from apps.audit import services, tasks
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM

pytestmark = pytest.mark.django_db


def partitions() -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_auditevent'::regclass ORDER BY 1"
        )
        return [name for (name,) in cursor.fetchall()]


def test_the_migration_makes_this_month_and_three_more() -> None:
    assert len(partitions()) == 4


def test_an_event_lands_in_the_partition_of_its_month() -> None:
    event = services.record(type="kernel.registered", subject=("kernel", "k"), actor=SYSTEM)

    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM audit_auditevent WHERE id = %s", [event.pk])
        assert cursor.fetchone() == (f"audit_auditevent_{event.at:%Y_%m}",)


def test_making_them_again_makes_nothing() -> None:
    before = partitions()

    assert services.make_partitions() == []
    assert partitions() == before


def test_the_application_role_can_have_later_ones_made() -> None:
    made = services.make_partitions(months_ahead=6)

    assert len(made) == 3
    assert set(made) < set(partitions())
    assert services.make_partitions(months_ahead=6) == []


def test_a_new_partition_is_as_closed_as_its_parent() -> None:
    (*_, newest) = services.make_partitions(months_ahead=6)

    for statement in ("UPDATE {} SET reason = ''", "DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}"):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement.format(newest))


def test_every_partition_has_its_own_truncate_trigger() -> None:
    services.make_partitions(months_ahead=6)

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'audit_no_truncate' "
            "AND tgrelid::regclass::text LIKE 'audit_auditevent%%' ORDER BY 1"
        )
        assert [name for (name,) in cursor.fetchall()] == ["audit_auditevent", *partitions()]


@pytest.mark.parametrize("months", [-1, 25, 1000])
def test_an_absurd_number_of_months_is_refused(months: int) -> None:
    with pytest.raises(DatabaseError, match="must be from 0 to 24"), transaction.atomic():
        services.make_partitions(months_ahead=months)


def test_the_daily_task_records_each_partition_that_it_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    make = services.make_partitions
    monkeypatch.setattr(services, "make_partitions", lambda: make(months_ahead=4))

    tasks.make_partitions()
    tasks.make_partitions()

    event = AuditEvent.objects.get(type="audit.partition_made")
    assert event.subject_id == partitions()[-1]
