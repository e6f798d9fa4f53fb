"""Lineage: who came from whom. One table of edges per kind of asset, never changed, never deleted, without cycles.

    class KernelLineage(LineageEdge): ...                      child and parent are kernels
    ancestors(KernelLineage, kernel_id, depth=5) -> [Relative(id, depth), ...]

The database refuses a cycle whichever door an edge takes, also when two transactions close one from both sides.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import pgtrigger
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import connection, models
from django.db.models import F, Q

from apps.core.ids import new_id

MAX_DEPTH = 32
MAX_RELATIVES = 1_000


class LineageKind(StrEnum):
    """What a child owes to its parent."""

    DERIVED = "derived"
    COMPILED_FROM = "compiled_from"
    GRAFTED = "grafted"
    MERGED = "merged"
    DISTILLED = "distilled"
    AGGREGATED = "aggregated"
    CLONED = "cloned"


NO_CYCLE = """
    -- One writer of edges at a time, until its commit: what it does not see yet cannot close a cycle with this edge.
    PERFORM pg_advisory_xact_lock(hashtext(TG_TABLE_NAME));
    EXECUTE format(
        'WITH RECURSIVE up(id) AS (SELECT $1 UNION SELECT parent_id FROM %I JOIN up ON child_id = up.id) '
        'SELECT EXISTS (SELECT FROM up WHERE id = $2)', TG_TABLE_NAME
    ) INTO closes USING NEW.parent_id, NEW.child_id;
    IF closes THEN
        RAISE EXCEPTION 'lineage: % descends from % already', NEW.parent_id, NEW.child_id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'lineage_has_no_cycle';
    END IF;
    RETURN NEW;
"""


def edge_triggers() -> list[pgtrigger.Trigger]:
    """For the ``Meta`` of every table of edges."""
    return [
        pgtrigger.Protect(name="lineage_keep", operation=pgtrigger.Update | pgtrigger.Delete),
        pgtrigger.Trigger(
            name="lineage_no_cycle",
            when=pgtrigger.Before,
            operation=pgtrigger.Insert,
            declare=[("closes", "boolean")],
            func=NO_CYCLE,
        ),
    ]


class LineageEdge(models.Model):
    """One edge. ``weight``: the share of the child that came from this parent, above 0, at most 1."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kind = models.CharField(max_length=16, choices=[(str(kind), str(kind)) for kind in LineageKind])
    weight = models.FloatField(default=1.0, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)])
    run_id = models.UUIDField(null=True, blank=True)
    """The run that made it so, if one did."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True

    @staticmethod
    def constraints_for(name: str) -> list[Any]:
        """For the ``Meta`` of every table of edges, which names them."""
        return [
            models.UniqueConstraint(fields=["child", "parent", "kind"], name=f"{name}_edge_once"),
            models.CheckConstraint(condition=~Q(child=F("parent")), name=f"{name}_edge_joins_two"),
            models.CheckConstraint(condition=Q(weight__gt=0, weight__lte=1), name=f"{name}_weight_is_a_share"),
            models.CheckConstraint(
                condition=Q(kind__in=[str(kind) for kind in LineageKind]), name=f"{name}_kind_known"
            ),
        ]


@dataclass(frozen=True, slots=True)
class Relative:
    """Somebody in the lineage; ``depth`` is the shortest way there, in edges."""

    id: UUID
    depth: int


def ancestors(edges: type[LineageEdge], start: UUID, *, depth: int = MAX_DEPTH) -> list[Relative]:
    """Everything that ``start`` came from, nearest first; at most MAX_RELATIVES."""
    return _walk(edges, start, "child_id", "parent_id", depth)


def descendants(edges: type[LineageEdge], start: UUID, *, depth: int = MAX_DEPTH) -> list[Relative]:
    """Everything that came from ``start``, nearest first; at most MAX_RELATIVES."""
    return _walk(edges, start, "parent_id", "child_id", depth)


def _walk(edges: type[LineageEdge], start: UUID, here: str, there: str, depth: int) -> list[Relative]:
    # UNION drops pairs that were seen, so the work is bounded by nodes times depth whatever the number of ways.
    statement = (
        f"WITH RECURSIVE walk(id, depth) AS (SELECT %s::uuid, 0 UNION "  # noqa: S608 - names of our own
        f"SELECT edge.{there}, walk.depth + 1 FROM {edges._meta.db_table} AS edge "
        f"JOIN walk ON edge.{here} = walk.id WHERE walk.depth < %s) "
        "SELECT id, min(depth) FROM walk WHERE depth > 0 GROUP BY id ORDER BY 2, 1 LIMIT %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [start, min(depth, MAX_DEPTH), MAX_RELATIVES])
        return [Relative(*row) for row in cursor.fetchall()]
