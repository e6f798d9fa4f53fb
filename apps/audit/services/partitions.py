"""The monthly partitions of the event store. Functions of the tables' owner do the work."""

from django.db import connection


def make_partitions(*, months_ahead: int = 3) -> list[str]:
    """Make the monthly partitions up to ``months_ahead`` from now; existing ones are left alone. Returns the new ones.

    A SECURITY DEFINER function of the owner does the work: the application role cannot create tables.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM esper_audit_make_partitions(%s) AS name", [months_ahead])
        return [name for (name,) in cursor.fetchall()]
