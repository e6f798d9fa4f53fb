"""How much of the library a search reads: bounded by what it shows, on 6,000 kernels whose tags go with their age."""

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection, connections
from pytest_django import DjangoDbBlocker

from apps.accounts.models import default_workspace_id
from apps.core.actors import SYSTEM
from apps.kernels import search, services
from apps.kernels.models import Kernel, TagType
from apps.kernels.search import running
from apps.kernels.tag_indexes import index_tags
from benchmarks import search_rows
from tests.support import databases
from tests.support.factories import BlueprintVersionFactory
from tests.support.stack import Servers

KERNELS, SEED = 6_000, 3
BOUND = 200
"""Disk pages; the table has several times as many."""


@pytest.fixture(scope="module")
def loaded(servers: Servers, django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """A database of this module's own; ``team`` is a declared tag with its index."""
    shared = connections.settings["default"]["NAME"]
    with servers.clone() as name, django_db_blocker.unblock():
        databases._point_django_at(name)
        try:
            owner_rows = search_rows.Owner(default_workspace_id(), BlueprintVersionFactory().pk)
            services.declare_tag(name="team", type=TagType.TEXT, actor=SYSTEM)
            with psycopg.connect(servers.url("owner", name), autocommit=True) as owner:
                search_rows.load(owner, owner_rows, start=0, stop=KERNELS, total=KERNELS, seed=SEED)
            index_tags(servers.url("owner", name), lambda _: None)
            yield name
        finally:
            databases._point_django_at(shared)


def explained(text: str, **more: Any) -> list[dict[str, Any]]:
    """The plans of the statements of a search, as they ran."""
    plans: list[dict[str, Any]] = []

    def explain(execute: Any, statement: str, values: Any, many: bool, context: Any) -> Any:
        if statement.startswith(("SELECT", "WITH")):
            with connection.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
                plans.append(cursor.fetchone()[0][0]["Plan"])
        return execute(statement, values, many, context)

    with connection.execute_wrapper(explain):
        search.run(search.Query(filter=search.parse(text), **more))
    return plans


def pages(text: str, **more: Any) -> int:
    return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in explained(text, **more))


def indexes(plans: list[dict[str, Any]]) -> set[str]:
    found = {plan["Index Name"] for plan in plans if "Index Name" in plan}
    return found.union(*(indexes(plan.get("Plans", [])) for plan in plans))


TRAP = "tier = 'cold'"
"""The oldest third: newest first, the primary key meets two thirds of the library before the first of them."""


def test_the_newest_of_a_tier_are_read_from_its_index(loaded: str) -> None:
    assert pages(TRAP) < BOUND
    assert "kernel_tier_newest" in indexes(explained(TRAP))


def test_the_trap_is_one(loaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_lead", lambda node, indexed: running._Lead())

    assert pages(TRAP) > BOUND


def test_the_oldest_of_a_tier_are_read_from_its_index_too(loaded: str) -> None:
    assert pages("tier = 'hot'", order_by=["id"]) < BOUND


def test_deep_pages_cost_as_much_as_the_first(loaded: str) -> None:
    cursor = None
    for _ in range(20):
        cursor = search.run(search.Query(filter=search.parse(TRAP), cursor=cursor)).next_cursor

    assert pages(TRAP, cursor=cursor) < BOUND


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("tags.unique = 'u0000007'", BOUND),
        ("tags.unique in ('u0000007', 'u0000009')", BOUND),
        ("tags.arch = 'arch-3'", BOUND),
        ("tags.arch = 'arch-3' and tags.stage = 'stage-1' and tags.class = 'class-1'", 2 * BOUND),
        ("tags.team = 'team-5' and not has(tags.nothing)", BOUND),
        ("tags.unique = 'u0000007' or tags.unique = 'u0005000'", BOUND),
        ("tags.width >= 500 and tier = 'cold'", BOUND),
        ("tags.unique = 'nobody' and size > 5", BOUND),
        ("digest = 'nothing'", BOUND),
    ],
)
def test_a_search_reads_a_bounded_part_of_the_library(loaded: str, text: str, bound: int) -> None:
    assert pages(text) < bound


def test_a_declared_tag_is_read_in_the_order_of_its_index(loaded: str) -> None:
    plans = explained("tags.team = 'team-5'", page_size=10)

    assert "kernel_tag_team" in indexes(plans)
    assert "kernel_tags_gin" not in indexes(plans)


def test_a_rare_tag_is_looked_up(loaded: str) -> None:
    assert "kernel_tags_gin" in indexes(explained("tags.unique = 'u0000007'"))


def random_search(chance: random.Random) -> str:
    parts = [
        f"tags.team = 'team-{chance.randrange(100)}'",
        f"tags.arch in ('arch-{chance.randrange(10)}', 'arch-{chance.randrange(10)}')",
        f"tags.width < {chance.randrange(1000)}",
        f"tier = '{chance.choice(search_rows.TIERS)}'",
        f"not tags.reviewed = {chance.choice(['true', 'false'])}",
        f"(tags.gain > {chance.random():.2f} or tags.unique = 'u{chance.randrange(KERNELS):07d}')",
        f"created_at < '{chance.choice([2025, 2099])}-01-01T00:00:00Z'",
    ]
    return " and ".join(chance.sample(parts, chance.choice([1, 2, 2, 3])))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_way_is_taken_a_walk_finds_exactly_what_matches(
    loaded: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    text, order = random_search(chance), chance.choice(["-id", "id"])
    monkeypatch.setattr(running, "FEW_MATCHES", chance.choice([10, 2_000]))
    monkeypatch.setattr(running, "WALK_IS_TOO_LONG", chance.choice([500, 20_000]))
    wanted = list(search.matching(search.parse(text)).order_by(order).values_list("pk", flat=True))

    found: list[UUID] = []
    cursor: str | None = None
    while True:
        query = search.Query(filter=search.parse(text), order_by=[order], page_size=200, fields=["id"], cursor=cursor)
        page = search.run(query)
        found += [row["id"] for row in page.rows]
        cursor = page.next_cursor
        if not page.has_more:
            break

    assert found == wanted, text


def test_the_loader_gives_what_the_tests_assume(loaded: str) -> None:
    oldest = Kernel.objects.filter(storage_tier="cold").count()

    assert KERNELS * 0.3 < oldest < KERNELS * 0.4
