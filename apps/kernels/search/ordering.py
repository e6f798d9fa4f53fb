"""The order of results and the cursor of a page: the sort key of its last row, signed, bound to the search.

Every order ends with the unique id, and kernels without a value come last: a walk neither misses nor repeats a row.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.core import signing

from apps.core.errors import Invalid
from apps.core.pagination import SALT, read_cursor
from apps.kernels.search.compiler import Sql, expression
from apps.kernels.search.fields import Kind, field_named

MAX_KEYS = 4
BY_RANK = "-rank"
PRIOR_WEIGHT = 3
"""As many reports of no gain as every kernel begins with."""
GAIN = f"round((r.total / (r.reports + {PRIOR_WEIGHT}))::numeric, 12)"
"""Mean contribution in nats per held-out sample, shrunk to 0; rounded, so that it is the same on every page."""
CASTS = {"jsonb": "%s::jsonb", "numeric": "%s::numeric"}


@dataclass(frozen=True, slots=True)
class Key:
    sql: Sql
    type: str
    """"time", "id", "jsonb", "numeric", or "" for what JSON carries itself."""
    descending: bool
    is_nullable: bool = False

    @property
    def order(self) -> Sql:
        nulls = " NULLS LAST" if self.is_nullable else ""
        return Sql(f"{self.sql.text} {'DESC' if self.descending else 'ASC'}{nulls}", self.sql.values)

    def compared(self, sign: str, value: Any) -> Sql:
        return Sql(f"{self.sql.text} {sign} {CASTS.get(self.type, '%s')}", (*self.sql.values, value))

    def behind(self, value: Any) -> Sql:
        """Strictly behind ``value`` in this key alone."""
        if value is None:
            return Sql("FALSE")
        further = self.compared("<" if self.descending else ">", value)
        if not self.is_nullable:
            return further
        return Sql.joined("OR", [further, Sql(f"{self.sql.text} IS NULL", self.sql.values)])

    def equal(self, value: Any) -> Sql:
        return Sql(f"{self.sql.text} IS NULL", self.sql.values) if value is None else self.compared("=", value)

    def plain(self, value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        return str(value) if isinstance(value, UUID | Decimal) else value

    def restored(self, value: Any) -> Any:
        if value is not None and self.type == "time":
            return datetime.fromisoformat(value)
        return UUID(value) if value is not None and self.type == "id" else value


@dataclass(frozen=True, slots=True)
class Order:
    names: tuple[str, ...]
    keys: tuple[Key, ...]

    @classmethod
    def of(cls, names: Sequence[str], *, is_ranked: bool) -> "Order":
        """By ``names`` (``-`` is descending), else by rank where there is one, else newest first.

        Raises:
            Invalid: a name is no field, stands there twice, or there are too many.
        """
        if len(names) > MAX_KEYS:
            raise Invalid(f"at most {MAX_KEYS} fields", pointer="/order_by", code="too_many")
        if not names and is_ranked:
            return cls((BY_RANK,), (Key(Sql(GAIN), "numeric", True), _id_key(True)))
        keys, seen = [], set()
        for index, name in enumerate(names or ("-id",)):
            pointer = f"/order_by/{index}"
            field = field_named(name.removeprefix("-"), pointer=pointer)
            if field.name in seen:
                raise Invalid(f"{field.name} stands there twice", pointer=pointer, code="repeated")
            seen.add(field.name)
            kind = "jsonb" if field.is_member else {Kind.TIME: "time", Kind.ID: "id"}.get(field.kind, "")
            if "id" in seen - {field.name}:
                continue  # nothing is left to be decided behind the id
            keys.append(Key(expression(field), kind, name.startswith("-"), field.is_nullable))
        if "id" not in seen:
            keys.append(_id_key(keys[-1].descending))
        return cls(tuple(names or ("-id",)), tuple(keys))

    @property
    def is_by_id(self) -> bool:
        return self.names[0] in {"id", "-id"}

    @property
    def is_ranked(self) -> bool:
        return self.names == (BY_RANK,)

    def by(self) -> Sql:
        parts = [key.order for key in self.keys]
        return Sql(", ".join(part.text for part in parts), tuple(v for part in parts for v in part.values))

    def after(self, position: Sequence[Any]) -> Sql:
        """The rows behind ``position``, in lexicographic order of the keys."""
        *leading, last = zip(self.keys, position, strict=True)
        condition = last[0].behind(last[1])
        for key, value in reversed(leading):
            tied = Sql.joined("AND", [key.equal(value), condition])
            condition = Sql.joined("OR", [key.behind(value), tied])
        return condition


def _id_key(descending: bool) -> Key:
    return Key(Sql("k.id"), "id", descending)


@dataclass(frozen=True, slots=True)
class Position:
    """``now``: of the first page, so that ``now-7d`` means the same on every page."""

    now: datetime
    values: tuple[Any, ...]


def write_cursor(position: Position, order: Order, binding: str) -> str:
    values = [key.plain(value) for key, value in zip(order.keys, position.values, strict=True)]
    return signing.dumps([binding, position.now.isoformat(), *values], salt=SALT, compress=True)


def read_position(cursor: str, order: Order, binding: str) -> Position:
    """Raises Invalid: it is none of ours, or of another search."""
    now, *values = read_cursor(cursor, binding, 1 + len(order.keys))
    restored = tuple(key.restored(value) for key, value in zip(order.keys, values, strict=True))
    return Position(datetime.fromisoformat(now), restored)


def binding_of(tree: Any, order: Order, as_of: datetime | None) -> str:
    """What the pages of one walk have in common: what is sought, its order and its time."""
    text = json.dumps(["kernels/search", tree, order.names, as_of.isoformat() if as_of else None])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
