"""Lineage: who came from whom. One table of edges per kind of asset, never changed, never deleted, without cycles.

    class KernelLineage(LineageEdge): ...                      child and parent are kernels
    add_edge(KernelLineage, child=..., parent=..., kind=LineageKind.DERIVED)
    ancestors(KernelLineage, kernel_id, depth=5) -> [Relative(id, depth), ...]
    graph(KernelLineage, [kernel_id]) -> Lineage(nodes, edges, complete)

The database refuses a cycle whichever door an edge takes, also when two transactions close one from both sides.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar
from uuid import UUID

import pgtrigger
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F, Q

from apps.core.errors import Conflict, Invalid
from apps.core.ids import new_id

MAX_DEPTH = 32
MAX_RELATIVES = 1_000
MAX_EDGES = 5_000
CYCLE = "lineage_has_no_cycle"
"""The name under which the trigger refuses an edge."""


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
    -- What nothing came from yet, as nearly every new thing, is nobody's ancestor: no walk.
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE parent_id = $1)', TG_TABLE_NAME) INTO closes USING NEW.child_id;
    IF NOT closes THEN
        RETURN NEW;
    END IF;
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


@dataclass(frozen=True, slots=True)
class Link:
    """One edge of a lineage, as it is shown."""

    child: UUID
    parent: UUID
    kind: str
    weight: float
    run_id: UUID | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """Relatives and the edges between them. ``depth`` of an ancestor is below 0, of a descendant above.

    ``complete`` is False when there are more relatives or edges than are shown.
    """

    nodes: list[Relative]
    edges: list[Link]
    complete: bool


Edge = TypeVar("Edge", bound=LineageEdge)


def add_edge(
    edges: type[Edge],
    *,
    child: models.Model,
    parent: models.Model,
    kind: LineageKind,
    weight: float = 1.0,
    run_id: UUID | None = None,
) -> Edge:
    """Write that ``child`` came from ``parent``. For services, which record the event.

    Raises:
        Invalid: the weight is no share, or a thing would be its own parent. Conflict: the edge would close a cycle.
        ValidationError: this edge is there already.
    """
    if not 0 < weight <= 1:
        raise Invalid("a weight is a share: above 0, at most 1", pointer="/weight", code="range")
    if child.pk == parent.pk:
        raise Invalid("nothing comes from itself", pointer="/parent", code="cycle")
    edge = edges(child=child, parent=parent, kind=kind, weight=weight, run_id=run_id)
    edge.full_clean()
    try:
        with transaction.atomic():
            edge.save(force_insert=True)
    except IntegrityError as error:
        if getattr(getattr(error.__cause__, "diag", None), "constraint_name", None) != CYCLE:
            raise
        message = f"{parent} descends from {child} already: with this edge the lineage would have a cycle"
        raise Conflict(message, code="lineage_cycle", pointer="/parent") from error
    return edge


def find_or_add_edge(
    edges: type[Edge],
    *,
    child: models.Model,
    parent: models.Model,
    kind: LineageKind,
    weight: float = 1.0,
    run_id: UUID | None = None,
) -> tuple[Edge, bool]:
    """``add_edge``, or the edge that is there already as it is; and whether it is new. One writer of a child at a time.

    Raises:
        Invalid, Conflict: as ``add_edge`` does.
    """
    type(child)._base_manager.select_for_update(of=("self",), no_key=True).get(pk=child.pk)
    existing = edges._base_manager.filter(child=child, parent=parent, kind=kind).first()
    if existing is not None:
        return existing, False
    return add_edge(edges, child=child, parent=parent, kind=kind, weight=weight, run_id=run_id), True


def ancestors(edges: type[LineageEdge], start: UUID, *, depth: int = MAX_DEPTH) -> list[Relative]:
    """Everything that ``start`` came from, nearest first; at most MAX_RELATIVES."""
    return _walk(edges, [start], "child_id", "parent_id", depth)


def descendants(edges: type[LineageEdge], start: UUID, *, depth: int = MAX_DEPTH) -> list[Relative]:
    """Everything that came from ``start``, nearest first; at most MAX_RELATIVES."""
    return _walk(edges, [start], "parent_id", "child_id", depth)


def graph(edges: type[LineageEdge], starts: Collection[UUID], *, depth: int = MAX_DEPTH) -> Lineage:
    """The starts, what they came from and what came from them, with every edge between these. Three statements."""
    up = _walk(edges, starts, "child_id", "parent_id", depth)
    down = _walk(edges, starts, "parent_id", "child_id", depth)
    depths = dict.fromkeys(starts, 0)
    for relative, sign in _nearest_first(up, down):
        depths.setdefault(relative.id, sign * relative.depth)
    rows: Any = edges._base_manager  # the columns child and parent are the subclasses'
    links = rows.filter(child_id__in=depths.keys(), parent_id__in=depths.keys()).order_by("id")
    shown = links.values_list("child_id", "parent_id", "kind", "weight", "run_id")[: MAX_EDGES + 1]
    found = [Link(*row) for row in shown]
    return Lineage(
        nodes=[Relative(id=key, depth=value) for key, value in sorted(depths.items(), key=lambda item: item[1])],
        edges=found[:MAX_EDGES],
        complete=len(found) <= MAX_EDGES and max(len(up), len(down)) < MAX_RELATIVES,
    )


@dataclass(frozen=True, slots=True)
class Family:
    """A lineage with the row of every relative: (relative, row) pairs, from the oldest ancestor to the youngest."""

    members: list[tuple[Relative, Any]]
    lineage: Lineage


def family(
    edges: type[LineageEdge], starts: Collection[UUID], rows: models.QuerySet[Any], *, depth: int = MAX_DEPTH
) -> Family:
    """``graph`` with its rows. Four statements, whatever the number of relatives."""
    lineage = graph(edges, starts, depth=depth)
    found = rows.in_bulk([relative.id for relative in lineage.nodes])
    return Family(members=[(relative, found[relative.id]) for relative in lineage.nodes], lineage=lineage)


def _nearest_first(up: Iterable[Relative], down: Iterable[Relative]) -> list[tuple[Relative, int]]:
    both = [*((relative, -1) for relative in up), *((relative, 1) for relative in down)]
    return sorted(both, key=lambda pair: pair[0].depth)


def _walk(edges: type[LineageEdge], starts: Collection[UUID], here: str, there: str, depth: int) -> list[Relative]:
    # UNION drops pairs that were seen, so the work is bounded by nodes times depth whatever the number of ways.
    statement = (
        f"WITH RECURSIVE walk(id, depth) AS (SELECT unnest(%s::uuid[]), 0 UNION "  # noqa: S608 - names of our own
        f"SELECT edge.{there}, walk.depth + 1 FROM {edges._meta.db_table} AS edge "
        f"JOIN walk ON edge.{here} = walk.id WHERE walk.depth < %s) "
        "SELECT id, min(depth) FROM walk WHERE depth > 0 GROUP BY id ORDER BY 2, 1 LIMIT %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(starts), min(depth, MAX_DEPTH), MAX_RELATIVES])
        return [Relative(*row) for row in cursor.fetchall()]
