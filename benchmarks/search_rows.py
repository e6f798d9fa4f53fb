"""A library of any size for the bench of the search: kernels of eight tags, the same for a seed; and the tag table.

Beside each kernel stands what a registry with a table of tags keeps for it (one row a model version, one row a tag),
because that is what the search is compared with.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import psycopg

from benchmarks.audit_rows import uuid7

TABLE = "kernels_kernel"
COLUMNS = (
    *("id", "created_at", "updated_at", "row_version", "workspace_id", "blueprint_version_id", "name", "bindings"),
    *("digest", "size", "state", "awaits_upload", "rejection", "pipeline", "operator", "parameters", "compat", "tags"),
    *("metrics", "report", "toolchain", "hardware", "storage_tier", "usage_count", "legal_hold"),
)
ARCHITECTURES, TEAMS, STAGES, SIZES = 10, 100, 5, 4
BEGIN_MS = 1_750_000_000_000
STEP_MS = 900
TIERS = ("cold", "warm", "hot")
"""By age, a third each: the oldest are cold."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The rows that every kernel refers to."""

    workspace_id: UUID
    version_id: UUID


def kernel_id(number: int) -> UUID:
    return uuid7(BEGIN_MS + number * STEP_MS, random.Random(number).getrandbits(74))


def tags_of(number: int, chance: random.Random) -> dict[str, Any]:
    """Eight tags: one unique, one of 1 %, one of 10 %, two coarser ones, two numbers and a rare flag."""
    return {
        "unique": f"u{number:07d}",
        "team": f"team-{chance.randrange(TEAMS)}",
        "arch": f"arch-{chance.randrange(ARCHITECTURES)}",
        "stage": f"stage-{chance.randrange(STAGES)}",
        "class": f"class-{chance.randrange(SIZES)}",
        "width": chance.randrange(1000),
        "gain": round(chance.random(), 6),
        "reviewed": chance.random() < 0.5,
    }


def load(connection: psycopg.Connection[Any], owner: Owner, *, start: int, stop: int, total: int, seed: int) -> None:
    """Add kernels ``start`` to ``stop`` of a library of ``total``. ``connection`` is the owner's, in autocommit.

    The net under the services would write an event for each row: it is off while they are loaded. Indexes are made
    anew afterwards, as after a restore, so that each size starts with indexes in good order.
    """
    indexes = _drop_indexes(connection) if stop - start > 200_000 else []
    connection.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER USER".encode())
    with connection.cursor() as cursor, cursor.copy(f"COPY {TABLE} ({', '.join(COLUMNS)}) FROM STDIN".encode()) as copy:
        for line in _lines(owner, start, stop, total, seed):
            copy.write(line)
    connection.execute(f"ALTER TABLE {TABLE} ENABLE TRIGGER USER".encode())
    for statement in indexes:
        connection.execute(statement.encode())
    connection.execute(f"VACUUM (ANALYZE) {TABLE}".encode())


def _drop_indexes(connection: psycopg.Connection[Any]) -> list[str]:
    """Drop every index that no constraint needs; returns how to make them again."""
    rows = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE indrelid = %s::regclass AND NOT indisprimary "
        "AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        [TABLE],
    ).fetchall()
    for name, _ in rows:
        connection.execute(f"DROP INDEX {name}".encode())
    return [definition for _, definition in rows]


def _lines(owner: Owner, start: int, stop: int, total: int, seed: int) -> Iterator[bytes]:
    """Rows in COPY's text format, oldest first."""
    for number in range(start, stop):
        chance = random.Random(seed * 10_000_019 + number)
        yield "\t".join(_cell(value) for value in _row(owner, number, total, chance)).encode() + b"\n"


def _row(owner: Owner, number: int, total: int, chance: random.Random) -> Sequence[Any]:
    moment = f"{_time(number)}+00"
    digest = f"{chance.getrandbits(256):064x}"
    metrics = {"forward_us": round(chance.uniform(1, 1000), 3), "training_us": round(chance.uniform(1, 3000), 3)}
    report = {"compile": {"version": 1, "stages": [{"name": "parse", "passed": True, "measured": {"n": number}}] * 8}}
    shape = {"operator": "residual", "input": ["N", 64], "output": ["N", 64]}
    return (
        *(kernel_id(number), moment, moment, 1, owner.workspace_id, owner.version_id, f"bench-{number}"),
        *({"D": 64, "H": number}, digest, 40_000, "VALIDATED", False, "", "fast", "residual", 10_000, shape),
        *(tags_of(number, chance), metrics, report, {"torch": "2"}, {"profile": "bench"}),
        *(TIERS[min(2, number * 3 // total)], chance.randrange(500), False),
    )


def _time(number: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp((BEGIN_MS + number * STEP_MS) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, dict):
        return orjson.dumps(value).decode()
    return str(value)


# --- The table of tags

TAG_TABLES = """
    CREATE TABLE bench_model (
        name varchar(256) NOT NULL, version integer NOT NULL, creation_time bigint, last_updated_time bigint,
        description varchar(5000), stage varchar(20), source varchar(500), run_id varchar(32), status varchar(20),
        PRIMARY KEY (name, version));
    CREATE TABLE bench_model_tag (
        key varchar(250) NOT NULL, value text, name varchar(256) NOT NULL, version integer NOT NULL,
        PRIMARY KEY (key, name, version), FOREIGN KEY (name, version) REFERENCES bench_model (name, version));
"""
"""The columns and keys of MLflow's ``model_versions`` and ``model_version_tags`` (its primary keys are its indexes)."""


def load_tag_table(connection: psycopg.Connection[Any]) -> None:
    """The same kernels as one registered model a hundred versions, each tag a row."""
    connection.execute(b"DROP TABLE IF EXISTS bench_model_tag, bench_model")
    connection.execute(TAG_TABLES.encode())
    connection.execute(
        f"INSERT INTO bench_model SELECT 'model-' || (place / 100), place % 100, made, made, '', 'None', 's3://b/' || "
        f"digest, left(digest, 32), 'READY' FROM (SELECT row_number() OVER (ORDER BY id) AS place, digest, "
        f"(extract(epoch FROM created_at) * 1000)::bigint AS made FROM {TABLE}) AS kernel".encode()
    )
    connection.execute(
        f"INSERT INTO bench_model_tag SELECT tag.key, tag.value, 'model-' || (place / 100), place % 100 FROM "
        f"(SELECT row_number() OVER (ORDER BY id) AS place, tags FROM {TABLE}) AS kernel, "
        f"jsonb_each_text(tags) AS tag".encode()
    )
    connection.execute(b"VACUUM (ANALYZE) bench_model")
    connection.execute(b"VACUUM (ANALYZE) bench_model_tag")


def tag_table_statements(
    conditions: Sequence[tuple[str, str, Any]], *, any_of: bool = False
) -> list[tuple[str, list[Any]]]:
    """One page (51 rows) of versions whose tags meet all ``conditions`` (key, operator, value), newest first.

    The shape of MLflow's ``search_model_versions``: a grouped subquery over the tag table with one OR branch a tag,
    joined to the versions; then, as its ``subqueryload`` does, the same query again to fetch the tags of that page. It
    knows neither numbers nor OR: numbers are cast here, and ``any_of`` counts to one.
    """
    branches, values = [], []
    for key, operator, value in conditions:
        is_number = isinstance(value, int | float)
        # CASE keeps the cast away from the rows of other keys, which hold text.
        test = f"CASE WHEN key = %s THEN value::numeric {operator} %s END" if is_number else f"value {operator} %s"
        branches.append(f"(key = %s AND {test})")
        values += [key, key, value] if is_number else [key, value]
    wanted = 1 if any_of else len(conditions)
    page = (
        "FROM bench_model AS model JOIN (SELECT name, version FROM bench_model_tag WHERE "
        f"{' OR '.join(branches)} GROUP BY name, version HAVING count(1) >= {wanted}) AS tagged "
        "ON tagged.name = model.name AND tagged.version = model.version WHERE model.stage <> 'Deleted_Internal' "
        "ORDER BY model.last_updated_time DESC, model.name ASC, model.version DESC LIMIT 51"
    )
    tags = (
        f"SELECT tag.* FROM (SELECT model.name, model.version {page}) AS page "
        "JOIN bench_model_tag AS tag ON tag.name = page.name AND tag.version = page.version"
    )
    return [(f"SELECT model.* {page}", values), (tags, values)]
