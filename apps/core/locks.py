"""Locks that span transactions, held by the session of the database: a process that dies gives them back."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from apps.core.errors import Conflict

TAKE_FOR_TRANSACTION = "SELECT pg_try_advisory_xact_lock(%s)"
TAKE = """
SELECT pg_try_advisory_lock(%s), set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false)
"""
"""A host that loses its power or its network says nothing: the server asks after it, and ends its session within a
minute. By default it would hold the lock for two hours, in which nobody would be told of any alert."""


class Busy(Conflict):
    """Somebody else holds the lock: no other refusal of the work that it guards is taken for it."""


def number_of(name: str) -> int:
    """The lock ``name`` as PostgreSQL's advisory locks take it: a signed 64-bit number."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


@contextmanager
def alone(name: str, *, busy: str, code: str = "busy") -> Iterator[None]:
    """One holder of the lock ``name`` at a time; nobody waits.

    Where the caller is in a transaction, its end gives the lock back: one that has failed could not.

    Raises:
        Busy: somebody else holds it; ``busy`` and ``code`` say so.
    """
    number = number_of(name)
    is_callers = connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute(TAKE_FOR_TRANSACTION if is_callers else TAKE, [number])
        if not cursor.fetchone()[0]:
            raise Busy(busy, code=code)
    try:
        yield
    finally:
        if not is_callers:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [number])
