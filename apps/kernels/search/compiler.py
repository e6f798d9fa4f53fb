"""From the abstract syntax to SQL: the one place where a search becomes a condition on the kernel ``k``.

Equality conditions on tags that must hold together become one ``tags @> object``, which the index ``kernel_tags_gin``
serves. Numbers are compared as numbers: jsonb has an order of its own, and a value of another type never matches.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection

from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.core.errors import Unprocessable
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelLineage
from apps.kernels.search import contracts
from apps.kernels.search.fields import Field, Kind, field_named, moment
from apps.kernels.search.nodes import And, Compare, DescendsFrom, FitsContract, FitsSlot, Node, Not, Op, Or, Scalar

TABLE = Kernel._meta.db_table
VERSIONS, BLUEPRINTS = BlueprintVersion._meta.db_table, Blueprint._meta.db_table
KERNEL_EDGES, VERSION_EDGES = KernelLineage._meta.db_table, VersionLineage._meta.db_table
SIGNS = {Op.EQ: "=", Op.NE: "<>", Op.LT: "<", Op.LTE: "<=", Op.GT: ">", Op.GTE: ">="}
RANGES = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})
LATEST = datetime.max.replace(tzinfo=UTC)
EARLIEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Sql:
    """A condition or an expression with its values. It may be NULL, which counts as not holding."""

    text: str
    values: tuple[Any, ...] = ()

    @classmethod
    def joined(cls, word: str, parts: "Sequence[Sql]") -> "Sql":
        text = f" {word} ".join(f"({part.text})" for part in parts)
        return cls(text, tuple(value for part in parts for value in part.values))


TRUE = Sql("TRUE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """``now`` is one time for a whole search. ``as_of``: lineage as it was then. ``indexed_tags``: READY ones."""

    now: datetime
    pointer: str = "/filter"
    as_of: datetime | None = None
    indexed_tags: frozenset[str] = frozenset()


def compiled(node: Node, context: Context) -> Sql:
    """The condition on ``k``.

    Raises:
        Unprocessable: an id in it is that of nothing.
    """
    match node:
        case And():
            return _all(list(_flat(node)), context)
        case Or(nodes):
            return Sql.joined("OR", [compiled(inner, context) for inner in nodes])
        case Not(inner):
            condition = compiled(inner, context)
            return Sql(f"({condition.text}) IS NOT TRUE", condition.values)
        case DescendsFrom():
            return _descends_from(node, context)
        case FitsSlot() | FitsContract():
            return fits(contracts.resolved(node, pointer=context.pointer)[0])
        case Compare():
            return _compare(node, context)


def _flat(node: And) -> Iterator[Node]:
    for inner in node.nodes:
        if isinstance(inner, And):
            yield from _flat(inner)
        else:
            yield inner


def _all(nodes: list[Node], context: Context) -> Sql:
    wanted: dict[str, Scalar] = {}
    rest: list[Node] = []
    for node in nodes:
        key = tag_equality(node)
        if key and key not in wanted and isinstance(node, Compare):
            wanted[key] = node.value  # type: ignore[assignment]  # of an equality
        else:
            rest.append(node)
    parts = [_contains("k.tags", wanted)] if wanted else []
    parts += [compiled(node, context) for node in rest]
    return Sql.joined("AND", parts) if parts else TRUE


def tag_equality(node: Node) -> str:
    """The key, if the node asks a tag to be equal to something; else empty."""
    if isinstance(node, Compare) and node.op is Op.EQ and node.field.startswith("tags."):
        return node.field.removeprefix("tags.")
    return ""


def _contains(column: str, wanted: Mapping[str, Any]) -> Sql:
    return Sql(f"{column} @> %s::jsonb", (as_json(wanted),))


def as_json(value: Any) -> str:
    """The text of a jsonb value."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


# --- Comparisons


def expression(field: Field) -> Sql:
    """The field as a value of the kernel ``k``."""
    if field.is_member:
        return Sql(f"({field.column} -> %s)", (field.key,))
    if field.of_version:
        return Sql(
            f"(SELECT {field.column} FROM {VERSIONS} AS v JOIN {BLUEPRINTS} AS b ON b.id = v.blueprint_id "  # noqa: S608
            "WHERE v.id = k.blueprint_version_id)"
        )
    return Sql(field.column)


def _compare(node: Compare, context: Context) -> Sql:
    field = field_named(node.field, pointer=context.pointer)
    if field.is_member:
        return _compare_member(field, node)
    condition = _compare_column(field, node, context)
    if not field.of_version:
        return condition
    return Sql(
        f"k.blueprint_version_id IN (SELECT v.id FROM {VERSIONS} AS v "  # noqa: S608 - names of our own
        f"JOIN {BLUEPRINTS} AS b ON b.id = v.blueprint_id WHERE {condition.text})",
        condition.values,
    )


def _compare_column(field: Field, node: Compare, context: Context) -> Sql:
    if node.op is Op.HAS:
        return Sql(f"{field.column} IS NOT NULL")
    if isinstance(node.value, tuple):
        return Sql(f"{field.column} = ANY (%s)", ([_typed(field, value, context) for value in node.value],))
    if node.op is Op.LIKE:
        return Sql(f"{field.column} LIKE %s ESCAPE ''", (node.value,))
    return Sql(f"{field.column} {SIGNS[node.op]} %s", (_typed(field, node.value, context),))


def _typed(field: Field, value: Any, context: Context) -> Any:
    if field.kind is Kind.ID:
        return UUID(value)
    if field.kind is not Kind.TIME:
        return value
    try:
        return moment(value, context.now)
    except OverflowError:
        return LATEST if "+" in value else EARLIEST


def _compare_member(field: Field, node: Compare) -> Sql:
    member, key = f"({field.column} -> %s)", field.key
    if node.op is Op.HAS:
        return Sql(f"{member} IS NOT NULL", (key,))
    if isinstance(node.value, tuple):
        if field.column == "k.tags":
            return Sql.joined("OR", [_contains("k.tags", {key: value}) for value in node.value])
        return Sql(f"{member} = ANY (%s::jsonb[])", (key, [as_json(value) for value in node.value]))
    if node.op is Op.LIKE:
        typed = f"jsonb_typeof({member}) = 'string'"
        return Sql(f"{typed} AND ({field.column} ->> %s) LIKE %s ESCAPE ''", (key, key, node.value))
    if node.op is Op.EQ:
        if field.column == "k.tags":
            return _contains("k.tags", {key: node.value})
        return Sql(f"{member} = %s::jsonb", (key, as_json(node.value)))
    condition = Sql(f"{member} {SIGNS[node.op]} %s::jsonb", (key, as_json(node.value)))
    if node.op is Op.NE:
        return condition
    kind = "string" if isinstance(node.value, str) else "number"
    return Sql(f"{condition.text} AND jsonb_typeof({member}) = '{kind}'", (*condition.values, key))


# --- Relations


def fits(contract: FitsContract) -> Sql:
    """Containment finds candidates by the index; arrays contain each other in any order, so the shapes are compared."""
    shapes = {"input": list(contract.input), "output": list(contract.output)}
    return Sql(
        f"k.state = '{KernelState.VALIDATED}' AND k.compat @> %s::jsonb "
        "AND k.compat -> 'input' = %s::jsonb AND k.compat -> 'output' = %s::jsonb",
        (as_json({"operator": contract.operator, **shapes}), as_json(shapes["input"]), as_json(shapes["output"])),
    )


def _descends_from(node: DescendsFrom, context: Context) -> Sql:
    """One walk over both kinds of edges: versions, the kernels compiled from them, and the kernels made of kernels."""
    start = UUID(node.id)
    kind = _kind_of(start, context.pointer)
    before = "" if context.as_of is None else " AND edge.created_at <= %s"
    times = () if context.as_of is None else (context.as_of,)
    versions = {
        "kernel": f"SELECT id, 0 FROM {VERSIONS} WHERE id IS NULL AND %s::uuid IS NULL",  # noqa: S608
        "version": "SELECT %s::uuid, 0",
        "blueprint": f"SELECT id, 0 FROM {VERSIONS} WHERE blueprint_id = %s::uuid",  # noqa: S608
    }[kind]
    text = (
        f"k.id IN (WITH RECURSIVE versions(id, depth) AS ({versions} UNION "  # noqa: S608 - names of our own
        f"SELECT edge.child_id, versions.depth + 1 FROM {VERSION_EDGES} AS edge "
        f"JOIN versions ON edge.parent_id = versions.id WHERE versions.depth < %s{before}), "
        f"near(id, depth) AS (SELECT id, min(depth) FROM versions GROUP BY id), "
        f"kin(id, depth) AS (SELECT made.id, near.depth + 1 FROM {TABLE} AS made "
        "JOIN near ON made.blueprint_version_id = near.id "
        "UNION SELECT %s::uuid, 0 WHERE %s "
        f"UNION SELECT edge.child_id, kin.depth + 1 FROM {KERNEL_EDGES} AS edge "
        f"JOIN kin ON edge.parent_id = kin.id WHERE kin.depth < %s{before}) "
        "SELECT id FROM kin WHERE depth BETWEEN 1 AND %s)"
    )
    return Sql(text, (start, node.depth - 1, *times, start, kind == "kernel", node.depth, *times, node.depth))


def _kind_of(start: UUID, pointer: str) -> str:
    """Raises Unprocessable: it is the id of nothing, where an empty answer would hide a typing mistake."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT 'kernel' FROM {TABLE} WHERE id = %s "  # noqa: S608 - names of our own
            f"UNION ALL SELECT 'version' FROM {VERSIONS} WHERE id = %s "
            f"UNION ALL SELECT 'blueprint' FROM {BLUEPRINTS} WHERE id = %s",
            [start, start, start],
        )
        row = cursor.fetchone()
    if row is None:
        detail = f"descends_from: {start} is no kernel, version or blueprint"
        raise Unprocessable(detail, pointer=pointer, code="not_found")
    return str(row[0])
