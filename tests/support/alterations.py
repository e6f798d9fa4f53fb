"""Altering the trail as somebody who owns the database can: triggers off, then any statement."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

# Table -> the columns that say which row it is, and those in which no change matters.
KEYS = {
    "audit_auditevent": ("id", "at"),
    "audit_auditleaf": ("index",),
    "audit_auditnode": ("group", "index"),
    "audit_auditcheckpoint": ("size",),
    "audit_auditkey": ("id",),
    "audit_auditcopy": ("size",),
    "audit_auditpending": ("event_id",),
    "audit_auditpersonalvalue": ("id",),
    "audit_auditperson": ("id",),
}
HINTS = {
    ("audit_auditpending", "xid"): "when a row may be sealed, not what it says",
    ("audit_auditcopy", "at"): "when a copy was made, which its name and content do not depend on",
    ("audit_auditkey", "admitted_at"): "when a key was first used: the checkpoint that it signed says so itself",
    ("audit_auditkey", "admitted_by"): "which key vouched: its signature stands in the note",
    ("audit_auditperson", "user_id"): "whose pseudonym it is: an event commits to the pseudonym and to the name",
    ("audit_auditperson", "erased_at"): "when somebody was erased: the event of the erasure says so",
    ("audit_auditpersonalvalue", "id"): "a key of the side table, which no event names",
}
"""Columns that no verification answers for, each with the reason."""


@contextmanager
def open_store(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner with all triggers and foreign keys of the audit tables gone."""
    with psycopg.connect(url, autocommit=True) as owner:
        tables = [
            name
            for (name,) in owner.execute(
                "SELECT relname FROM pg_class WHERE relname LIKE 'audit\\_%' AND relkind IN ('r', 'p')"
            )
        ]
        for table in tables:
            owner.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(sql.Identifier(table)))
        for table, constraint in owner.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint "
            "WHERE contype = 'f' AND conrelid::regclass::text LIKE 'audit\\_%'"
        ).fetchall():
            names = sql.Identifier(table), sql.Identifier(constraint)
            owner.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(*names))
        yield owner


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit of one value of one row, changed."""

    table: str
    key: tuple[Any, ...]
    column: str
    before: Any
    after: Any

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column} of {self.key}"


def columns_of(owner: psycopg.Connection[Any], table: str) -> dict[str, str]:
    """Column -> type, without those that no verification answers for."""
    rows = owner.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s ORDER BY 1", [table]
    )
    return {name: kind for name, kind in rows if (table, name) not in HINTS}


def flip(
    owner: psycopg.Connection[Any], table: str, key: tuple[Any, ...], column: str, generator: random.Random
) -> Flip:
    """Flip one bit of a value; a NULL or an empty text becomes something."""
    kind = columns_of(owner, table)[column]
    where = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in KEYS[table])
    names = sql.Identifier(table), sql.Identifier(column), where
    row = owner.execute(sql.SQL("SELECT {1} FROM {0} WHERE {2}").format(*names), key).fetchone()
    assert row is not None
    before = row[0]
    after = _flipped(owner, kind, before, generator)
    owner.execute(sql.SQL("UPDATE {0} SET {1} = %s WHERE {2}").format(*names), [after, *key])
    changed = tuple(after if name == column else value for name, value in zip(KEYS[table], key, strict=True))
    return Flip(table, changed, column, _bound(kind, before), after)


def undo(owner: psycopg.Connection[Any], done: Flip) -> None:
    """Put the value back."""
    where = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in KEYS[done.table])
    statement = sql.SQL("UPDATE {} SET {} = %s WHERE {}").format(
        sql.Identifier(done.table), sql.Identifier(done.column), where
    )
    owner.execute(statement, [done.before, *done.key])


def _bound(kind: str, value: Any) -> Any:
    return psycopg.types.json.Jsonb(value) if kind == "jsonb" and value is not None else value


def _flipped(owner: psycopg.Connection[Any], kind: str, value: Any, generator: random.Random) -> Any:
    if kind == "bytea":
        data = bytearray(value or b"\0")
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        return bytes(data)
    if kind == "uuid":
        row = owner.execute("SELECT gen_random_uuid()").fetchone()
        assert row is not None
        return row[0] if value is None else type(value)(int=value.int ^ (1 << generator.randrange(128)))
    if kind in {"bigint", "smallint"}:  # a bit above those of any key that is there: no two rows may share one
        return value ^ (1 << (generator.randrange(20, 40) if kind == "bigint" else generator.randrange(10, 14)))
    if kind == "timestamp with time zone":
        row = owner.execute("SELECT %s::timestamptz + interval '1 microsecond'", [value]).fetchone()
        assert row is not None
        return row[0]
    if kind == "jsonb":
        changed = [*value, {"op": "add"}] if isinstance(value, list) else {**value, "planted": 1}
        return psycopg.types.json.Jsonb(changed)
    text = value or ""
    place = generator.randrange(len(text)) if text else 0
    letter = chr(ord(text[place]) ^ 1) if text and text[place] not in "\0\1" else "x"
    return text[:place] + letter + text[place + 1 :]
