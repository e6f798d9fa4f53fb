"""The indexes of declared tags: ``((tags -> 'arch'), id DESC)``, made and dropped while the library is in use.

Only the owner of the table can: ``manage.py index_tags`` runs this. It may be run at any time, and again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from apps.kernels.models import MAX_TAG_KEYS, IndexState, Kernel, TagKey

TABLE = Kernel._meta.db_table
PREFIX = "kernel_tag_"
ATTEMPTS = 2
LOCK = 4_737_001
"""Advisory lock: one at a time."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What was done, by the names of tags. ``failed``: tag -> why."""

    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def index_tags(owner_url: str, say: Callable[[str], object]) -> Indexed:
    """Give every declared tag its index, and take away those of tags that are not declared any more, or invalid ones.

    Waits for transactions that are older than itself. ``say`` is told each step.
    """
    done = Indexed()
    with psycopg.connect(owner_url, autocommit=True) as owner:
        # Not a lock that waits: a statement that waits holds a snapshot, and CONCURRENTLY would wait for that.
        if not owner.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()[0]:  # type: ignore[index]
            say("another index_tags is at work")
            return done
        wanted = list(TagKey.objects.order_by("name").values_list("name", flat=True).distinct()[:MAX_TAG_KEYS])
        present = _present(owner)
        for name, is_valid in present.items():
            if name not in wanted or not is_valid:
                say(f"dropping the {'index' if is_valid else 'invalid index'} of {name} ...")
                TagKey.objects.filter(name=name).update(index_state=IndexState.WAITING)
                _drop(owner, name)
                done.dropped.append(name)
        for name in wanted:
            if not present.get(name):
                say(f"making the index of {name} ...")
                _make(owner, name, done)
            if name not in done.failed:
                TagKey.objects.filter(name=name).update(index_state=IndexState.READY, index_error="")
                done.ready.append(name)
        if done.made:
            owner.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(TABLE)))
    return done


def _present(owner: psycopg.Connection[tuple[object, ...]]) -> dict[str, bool]:
    """Tag -> whether its index is valid."""
    rows = owner.execute(
        "SELECT relname, indisvalid AND indisready FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indrelid = %s::regclass AND starts_with(relname, %s) ORDER BY 1",
        [TABLE, PREFIX],
    )
    return {str(name).removeprefix(PREFIX): bool(is_valid) for name, is_valid in rows}


def _make(owner: psycopg.Connection[tuple[object, ...]], name: str, done: Indexed) -> None:
    statement = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} ((tags -> {}), id DESC)").format(
        sql.Identifier(PREFIX + name), sql.Identifier(TABLE), sql.Literal(name)
    )
    for _ in range(ATTEMPTS):
        try:
            owner.execute(statement)
        except psycopg.Error as error:
            _drop(owner, name)  # what an interrupted one leaves behind is invalid, and costs every write
            done.failed[name] = str(error).strip()
        else:
            done.failed.pop(name, None)
            done.made.append(name)
            return
    TagKey.objects.filter(name=name).update(index_state=IndexState.FAILED, index_error=done.failed[name])


def _drop(owner: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    owner.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(PREFIX + name)))
