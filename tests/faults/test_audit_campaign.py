"""The campaign of altered bytes: every column of many rows, and every way to rewrite the tree. All must be found."""

import json
import random
import sys
from collections import Counter
from typing import Any

import psycopg
import pytest

from apps.audit.merkle import TILE
from apps.audit.verification import verify
from apps.core.actors import Actor, ActorKind
from apps.core.ids import new_id
from tests.support import alterations
from tests.support.audit import own_home, record, sealed
from tests.support.stack import Servers

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600), pytest.mark.usefixtures("committed_db", "home")]

home = own_home
SEED = 20_261_126
EVENTS = 21 * TILE
ROWS = 20
"""Rows of each table in which each column has a bit flipped."""


@pytest.fixture
def owner(servers: Servers, committed_db: str, home: Any) -> Any:
    """A trail of more than one chunk, by several people, under many checkpoints, with some events unsealed."""
    people = [Actor(kind=ActorKind.USER, id=new_id(), name=f"person {n}", address=f"192.0.2.{n}") for n in range(5)]
    for number in range(16):
        sealed(EVENTS // 16, actor=people[number % 5], reason=f"batch {number}", after={"state": "B"})
    for number in range(25):
        record(number, actor=people[0])
    with alterations.open_store(servers.url("owner", committed_db)) as owner:
        yield owner


def test_no_flipped_bit_goes_undetected(owner: psycopg.Connection[Any]) -> None:
    generator, flips, undetected = random.Random(SEED), Counter[str](), []
    for table, names in alterations.KEYS.items():
        keys = ", ".join(f'"{name}"' for name in names)
        rows = owner.execute(f"SELECT {keys} FROM {table} ORDER BY {keys}".encode()).fetchall()
        for key in generator.sample(rows, min(ROWS, len(rows))):
            for column in alterations.columns_of(owner, table):
                done = alterations.flip(owner, table, key, column, generator)
                flips[table] += 1
                if verify().is_right:
                    undetected.append(done.name)
                alterations.undo(owner, done)
    tell({"seed": SEED, "flips": flips, "all": flips.total(), "undetected": undetected})

    assert undetected == []
    assert verify().is_right, "every flip was undone"


def test_no_deleted_row_goes_undetected(owner: psycopg.Connection[Any]) -> None:
    """Left out: a person without a value stands behind nothing, and without the row of the newest copy the trail is
    as after a crash between the copy and its row: the next sealer copies it again.
    """
    generator, undetected, tried = random.Random(SEED), [], 0
    for table in alterations.KEYS.keys() - {"audit_auditperson"}:
        keys = ", ".join(f'"{name}"' for name in alterations.KEYS[table])
        rows = owner.execute(f"SELECT {keys} FROM {table} ORDER BY {keys}".encode()).fetchall()
        rows = rows[:-1] if table == "audit_auditcopy" else rows
        for key in generator.sample(rows, min(ROWS, len(rows))):
            tried += 1
            if not _deletion_is_found(owner, table, key):
                undetected.append(f"deleted {table} {key}")
    tell({"seed": SEED, "deleted": tried, "undetected": undetected})

    assert undetected == []


def test_no_two_swapped_events_or_leaves_go_undetected(owner: psycopg.Connection[Any]) -> None:
    generator, undetected = random.Random(SEED), []
    for table, key, column in (("audit_auditleaf", "index", "event_id"), ("audit_auditevent", "id", "subject_id")):
        rows = [row for (row,) in owner.execute(f"SELECT {key} FROM {table} ORDER BY {key}".encode()).fetchall()]
        for _ in range(ROWS):
            pair = generator.sample(rows, 2)
            _swap(owner, table, key, column, pair)
            if verify().is_right:
                undetected.append(f"{table}.{column} of {pair}")
            _swap(owner, table, key, column, pair)
    tell({"seed": SEED, "swapped": 2 * ROWS, "undetected": undetected})

    assert undetected == []
    assert verify().is_right


def _swap(owner: psycopg.Connection[Any], table: str, key: str, column: str, pair: list[Any]) -> None:
    """In two steps by way of a value that nobody has: a unique column lets no two rows share one for a moment."""
    values = [
        owner.execute(f"SELECT {column} FROM {table} WHERE {key} = %s".encode(), [row]).fetchone()[0] for row in pair
    ]
    update = f"UPDATE {table} SET {column} = %s WHERE {key} = %s".encode()
    between = new_id() if column == "event_id" else "between"
    for value, row in ((between, pair[0]), (values[0], pair[1]), (values[1], pair[0])):
        owner.execute(update, [value, row])


def tell(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")


def _deletion_is_found(owner: psycopg.Connection[Any], table: str, key: tuple[Any, ...]) -> bool:
    where = " AND ".join(f'"{name}" = %s' for name in alterations.KEYS[table])
    owner.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {table} WHERE {where}".encode(), key)
    owner.execute(f"DELETE FROM {table} WHERE {where}".encode(), key)
    found = not verify().is_right
    owner.execute(f"INSERT INTO {table} SELECT * FROM kept".encode())
    owner.execute("DROP TABLE kept")
    return found
