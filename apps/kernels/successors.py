"""What replaces a kernel: the rules that naming a successor and retiring in favour of one share."""

from django.db import connection

from apps.core.errors import Invalid
from apps.kernels.models import Kernel


def lock_successors() -> None:
    """Until the transaction ends nobody else names a successor: two writers cannot close a cycle from both sides."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('kernels_kernel.successor'))")


def require_same_contract(kernel: Kernel, successor: Kernel) -> None:
    """Raises Invalid: it fits other slots."""
    if successor.compat != kernel.compat:
        detail = f"fits other slots: {successor.compat}, not {kernel.compat}"
        raise Invalid(detail, pointer="/successor", code="contract")


def leads_to(start: Kernel, end: Kernel) -> bool:
    """Does the chain of successors from ``start`` (included) come to ``end``?"""
    statement = (
        "WITH RECURSIVE chain(id) AS (SELECT %s::uuid UNION "
        "SELECT successor_id FROM kernels_kernel JOIN chain USING (id) WHERE successor_id IS NOT NULL) "
        "SELECT EXISTS (SELECT FROM chain WHERE id = %s)"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [start.pk, end.pk])
        return bool(cursor.fetchone()[0])
