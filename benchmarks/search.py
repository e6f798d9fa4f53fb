"""The search of the library on a PostgreSQL of the bench's own: `manage.py bench search [--quick]`.

Seven searches at 10,000 and 100,000 kernels against the same search in a table of tags; a walk while four writers
insert; a million kernels for what the newest of a tier read; eight clients over HTTP; a kernel of 64 MiB from each tier
against a static file of the same server. Quick: 2,000 and 20,000 kernels, and no million.
"""

import logging
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import connection

from benchmarks import search_rows, targets, web_site
from benchmarks.database import own_database, pages_read
from benchmarks.search_rows import ARCHITECTURES, STAGES, TEAMS, Owner
from benchmarks.targets import Measurement, rows, spread
from esper_site.embedded.postgres import Cluster

FULL_SIZES, QUICK_SIZES = (10_000, 100_000), (2_000, 20_000)
MILLION = 1_000_000
SEED = 2026
PAGE_SIZE = 50
CLIENTS, WRITERS = 8, 4
BINARY_BYTES = 64 * 2**20
TIERS = ("hot", "warm", "cold")

Condition = tuple[str, str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """``make`` gives a search in our language, and the same as conditions on the tag table (none: it has no twin)."""

    name: str
    make: Callable[[random.Random, int], tuple[str, Sequence[Condition]]]
    any_of: bool = False


def _unique(chance: random.Random, size: int) -> tuple[str, Sequence[Condition]]:
    value = f"u{chance.randrange(size):07d}"
    return f"tags.unique = '{value}'", [("unique", "=", value)]


def _one_percent(chance: random.Random, size: int) -> tuple[str, Sequence[Condition]]:
    value = f"team-{chance.randrange(TEAMS)}"
    return f"tags.team = '{value}'", [("team", "=", value)]


def _ten_percent(chance: random.Random, size: int) -> tuple[str, Sequence[Condition]]:
    value = f"arch-{chance.randrange(ARCHITECTURES)}"
    return f"tags.arch = '{value}'", [("arch", "=", value)]


def _three(chance: random.Random, size: int) -> tuple[str, Sequence[Condition]]:
    wanted = [
        ("arch", "=", f"arch-{chance.randrange(ARCHITECTURES)}"),
        ("stage", "=", f"stage-{chance.randrange(STAGES)}"),
        ("team", "=", f"team-{chance.randrange(TEAMS)}"),
    ]
    return " and ".join(f"tags.{key} = '{value}'" for key, _, value in wanted), wanted


def _range(chance: random.Random, size: int) -> tuple[str, Sequence[Condition]]:
    least = chance.randrange(980, 995)
    return f"tags.width >= {least}", [("width", ">=", least)]


def _either(chance: random.Random, size: int) -> tuple[str, Sequence[Condition]]:
    team, arch = f"team-{chance.randrange(TEAMS)}", f"arch-{chance.randrange(ARCHITECTURES)}"
    return f"tags.team = '{team}' or tags.arch = '{arch}'", [("team", "=", team), ("arch", "=", arch)]


def _tier(chance: random.Random, size: int) -> tuple[str, Sequence[Condition]]:
    return "tier = 'cold'", []


CASES = (
    Case("unique tag", _unique),
    Case("1 % tag", _one_percent),
    Case("10 % tag", _ten_percent),
    Case("three tags", _three),
    Case("numeric range", _range),
    Case("OR of two tags", _either, any_of=True),
    Case("cold tier, newest first", _tier),
)


def run(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Every figure of the area, and how it came about, as JSON types."""
    sizes = QUICK_SIZES if quick else FULL_SIZES
    logging.getLogger("apps").setLevel(logging.ERROR)
    with own_database(say) as cluster, psycopg.connect(cluster.url("owner"), autocommit=True) as owner:
        rows_of = _owner_rows()
        searches, loaded = {}, 0
        for size in sizes:
            say(f"loading {size:,} kernels, and the same into a table of tags ...")
            search_rows.load(owner, rows_of, start=loaded, stop=size, total=size, seed=SEED)
            search_rows.load_tag_table(owner)
            loaded = size
            searches[size] = [_timed(case, size, repeats=20 if quick else 100, say=say) for case in CASES]
        walk = _walk_under_inserts(rows_of, say)
        http = _over_http(cluster, size=loaded, seconds=3.0 if quick else 10.0, rounds=1 if quick else 3, say=say)
        million = None
        if not quick:
            say(f"loading {MILLION:,} kernels ...")
            search_rows.load(owner, rows_of, start=loaded, stop=MILLION, total=MILLION, seed=SEED)
            million = {case.name: _pages(case, MILLION, repeats=5) for case in CASES}
    return {
        "bench": "search",
        "sizes": list(sizes),
        "searches": {str(size): found for size, found in searches.items()},
        "walk": walk,
        "http": http,
        "pages_1m": million,
        "targets": rows("search", _measured(searches, walk, http, million, held_to=not quick)),
    }


def _measured(
    searches: dict[int, list[dict[str, Any]]],
    walk: dict[str, Any],
    http: dict[str, Any],
    million: dict[str, list[int]] | None,
    *,
    held_to: bool,
) -> dict[str, Measurement]:
    """Only full sizes are held to the targets; ``million`` there too."""
    if not held_to or million is None:
        return {}
    small, large = searches.values()
    growth = [after["p95_ms"] / before["p95_ms"] for before, after in zip(small, large, strict=True)]
    faster = {row["name"]: row["times_faster"] for row in large}
    tier = [float(pages) for pages in million["cold tier, newest first"]]
    ratios = http["binary"]["hot"]["ratios"]
    found = {
        # The worst of the seven: every other search grows less.
        "p95_growth_10k_to_100k": Measurement(value=max(growth), n=len(growth), spread=spread(growth)),
        "tier_newest_first_buffers_1m": Measurement(value=max(tier), n=len(tier), spread=spread(tier)),
        "rows_missed_or_repeated_under_inserts": Measurement(
            value=float(walk["missed"] + walk["repeated"]), n=walk["rows"], spread=0.0
        ),
        "http_search_rate_8_clients": Measurement.of(http["rates"]),
        "binary_64mib_hot_vs_static_file": Measurement.of(ratios),
    }
    for name, case in (
        ("one_percent_tag_vs_tag_table_sql", "1 % tag"),
        ("three_tags_vs_tag_table_sql", "three tags"),
    ):
        found[name] = Measurement.of(faster[case])
    return found


def _owner_rows() -> Owner:
    """A workspace, a blueprint and one version for every kernel of the bench."""
    from apps.accounts.models import default_workspace_id
    from apps.blueprints.services import create_blueprint, submit_version
    from apps.blueprints.starter import starter_library
    from apps.core.actors import SYSTEM

    blueprint = create_blueprint(name="bench", actor=SYSTEM)
    version = submit_version(blueprint=blueprint, spec=starter_library()["residual_mlp"].spec, actor=SYSTEM)
    return Owner(workspace_id=default_workspace_id(), version_id=version.pk)


def _timed(case: Case, size: int, *, repeats: int, say: Callable[[str], Any]) -> dict[str, Any]:
    """Milliseconds of the whole search in Python, and of its statements alone beside the tag table's, in turns."""
    chance = random.Random(f"{SEED} {case.name}")
    whole, ours, theirs = [], [], []
    for number in range(repeats + 3):
        text, conditions = case.make(chance, size)
        begun = time.perf_counter()
        mine = _database_seconds(text)
        ended = time.perf_counter()
        other = _tag_table_seconds(conditions, any_of=case.any_of) if conditions else 0.0
        if number >= 3:  # the first warm both
            whole.append((ended - begun) * 1e3)
            ours.append(mine * 1e3)
            theirs.append(other * 1e3)
    pages = _pages(case, size, repeats=5)
    row = {
        "name": case.name,
        **_percentiles(whole),
        "statement_p50_ms": statistics.median(ours),
        "statement_p95_ms": _p95(ours),
        "tag_table_p50_ms": statistics.median(theirs) if theirs[0] else None,
        "tag_table_p95_ms": _p95(theirs) if theirs[0] else None,
        "times_faster": [their / our for our, their in zip(ours, theirs, strict=True)] if theirs[0] else [],
        "pages": max(pages),
    }
    say(f"  {case.name}: p50 {row['p50_ms']:.2f} ms, p95 {row['p95_ms']:.2f} ms at {size:,}")
    return row


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    return {"p50_ms": statistics.median(values), "p95_ms": _p95(values)}


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[18]


def _search(text: str, **more: Any) -> Any:
    from apps.kernels import search

    return search.run(search.Query(filter=search.parse(text), page_size=PAGE_SIZE, **more))


def _database_seconds(text: str) -> float:
    """What all statements of a search took, those that set its limits included."""
    spent = 0.0

    def clock(execute: Any, statement: str, values: Any, many: bool, context: Any) -> Any:
        nonlocal spent
        begun = time.perf_counter()
        try:
            return execute(statement, values, many, context)
        finally:
            spent += time.perf_counter() - begun

    with connection.execute_wrapper(clock):
        _search(text)
    return spent


def _tag_table_seconds(conditions: Sequence[Condition], *, any_of: bool) -> float:
    statements = search_rows.tag_table_statements(conditions, any_of=any_of)
    with connection.cursor() as cursor:
        begun = time.perf_counter()
        for statement, values in statements:
            cursor.execute(statement, values)
        return time.perf_counter() - begun


def _pages(case: Case, size: int, *, repeats: int) -> list[int]:
    """Disk pages (shared hit + read) that all statements of a search of the case touch, each as the search plans it."""
    chance = random.Random(f"{SEED} pages {case.name}")
    return [pages_read(partial(_search, case.make(chance, size)[0])) for _ in range(repeats)]


# --- Walking while others insert


def _walk_under_inserts(rows_of: Owner, say: Callable[[str], Any]) -> dict[str, Any]:
    """All pages of a 10 % tag, newest first, while four writers insert kernels of that tag as fast as they can."""
    from apps.blueprints.models import BlueprintVersion

    say(f"walking all pages while {WRITERS} writers insert ...")
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM kernels_kernel WHERE tags @> %s", ['{"arch": "arch-3"}'])
        there = {row[0] for row in cursor.fetchall()}
    done = threading.Event()
    counts = [0] * WRITERS
    pool = ThreadPoolExecutor(WRITERS)
    version = BlueprintVersion.objects.select_related("blueprint").get(pk=rows_of.version_id)
    writers = [pool.submit(_insert, version, done, counts, number) for number in range(WRITERS)]
    seen: list[UUID] = []
    try:
        cursor_, pages = None, 0
        while True:
            page = _search("tags.arch = 'arch-3'", **({"cursor": cursor_} if cursor_ else {}))
            seen += [UUID(str(_id_of(row))) for row in page.rows]
            pages += 1
            if not page.has_more:
                break
            cursor_ = page.next_cursor
    finally:
        done.set()
        for writer in writers:
            writer.result()
    old = [row for row in seen if row in there]
    return {
        "rows": len(there),
        "pages": pages,
        "inserted_meanwhile": sum(counts),
        "missed": len(there - set(old)),
        "repeated": len(seen) - len(set(seen)),
    }


def _id_of(row: Any) -> Any:
    return row["id"] if isinstance(row, dict) else row.pk


def _insert(version: Any, done: threading.Event, counts: list[int], number: int) -> None:
    """Register kernels of one tag by the service, each in a transaction with its event, until ``done``."""
    from apps.core.actors import SYSTEM
    from apps.kernels.services import register_kernel

    try:
        while not done.is_set():
            bindings = {"D": 65 + number, "H": 1 + counts[number]}  # those that were loaded have D 64
            tags = {"arch": "arch-3"}
            register_kernel(version=version, bindings=bindings, tags=tags, awaits_upload=True, actor=SYSTEM)
            counts[number] += 1
    finally:
        connection.close()


# --- Over HTTP


def _over_http(
    cluster: Cluster, *, size: int, seconds: float, rounds: int, say: Callable[[str], Any]
) -> dict[str, Any]:
    from urllib.parse import quote

    static = Path(settings.ESPER_HOME) / "static"
    static.mkdir(exist_ok=True)
    data = random.Random(SEED).randbytes(BINARY_BYTES)
    (static / "bench.bin").write_bytes(data)
    kernels = _large_kernels(cluster, data)
    tokens = [_token(number) for number in range(CLIENTS)]
    chance = random.Random(SEED)
    paths = [f"/api/v1/kernels/search?q={quote(_one_percent(chance, size)[0])}" for _ in range(500)]

    def request(number: int) -> tuple[str, dict[str, str]]:
        return paths[number % len(paths)], {"Authorization": f"Bearer {tokens[number % CLIENTS]}"}

    with web_site.web_site(cluster) as site:
        say(f"{CLIENTS} clients search over HTTP ...")
        web_site.rate(site, request, clients=CLIENTS, seconds=2.0)
        rates = [web_site.rate(site, request, clients=CLIENTS, seconds=seconds) for _ in range(rounds)]
        say("downloading 64 MiB ...")
        binary = {tier: _download(site, kernel, tokens[0], repeats=3 * rounds) for tier, kernel in kernels.items()}
    return {"clients": CLIENTS, "rates": rates, "binary": binary}


def _token(number: int) -> str:
    from apps.accounts import services
    from apps.accounts.roles import Role, Scope
    from apps.core.actors import SYSTEM

    user, _ = services.create_user(username=f"bench{number}", role=Role.VIEWER, actor=SYSTEM)
    return services.issue_token(user=user, name="bench", scopes=[Scope.LIBRARY_READ], actor=SYSTEM)[1]


def _download(site: web_site.Site, kernel: UUID, token: str, *, repeats: int) -> dict[str, Any]:
    """The kernel and the static file in turns."""
    headers = {"Authorization": f"Bearer {token}"}
    ours, static, ratios = [], [], []
    for number in range(repeats + 1):
        plain = web_site.download(site, "/static/bench.bin", {})
        found = web_site.download(site, f"/api/v1/kernels/{kernel}/binary", headers)
        assert plain.bytes == found.bytes == BINARY_BYTES
        if number:
            ours.append(found)
            static.append(plain)
            ratios.append(plain.seconds / found.seconds)
    return {
        "ratios": ratios,
        "mib_per_s": [BINARY_BYTES / 2**20 / found.seconds for found in ours],
        "static_mib_per_s": [BINARY_BYTES / 2**20 / found.seconds for found in static],
        "server_grew_mib": max(found.grown_mib for found in ours),
    }


def _large_kernels(cluster: Cluster, data: bytes) -> dict[str, UUID]:
    """A kernel of 64 MiB in each tier, each with bytes of its own."""
    from apps.core.actors import SYSTEM
    from apps.core.ids import new_id
    from apps.kernels.cache import KernelStore, mover
    from apps.kernels.models import Kernel

    others = [name for name in search_rows.COLUMNS if name not in {"id", "bindings", "digest", "size", "storage_tier"}]
    statement = (
        f"INSERT INTO kernels_kernel (id, bindings, digest, size, storage_tier, {', '.join(others)}) "
        f"SELECT %s, jsonb_build_object('H', %s::text), %s, %s, 'warm', {', '.join(others)} FROM kernels_kernel LIMIT 1"
    )
    kernels = {}
    with psycopg.connect(cluster.url("owner"), autocommit=True) as own:
        own.execute(b"ALTER TABLE kernels_kernel DISABLE TRIGGER USER")
        for tier in TIERS:
            digest = KernelStore().put(tier.encode() + data[len(tier) :])
            kernels[tier] = new_id()
            own.execute(statement.encode(), [kernels[tier], tier, digest, BINARY_BYTES])
        own.execute(b"ALTER TABLE kernels_kernel ENABLE TRIGGER USER")
    for tier, key in kernels.items():
        if tier != "warm":
            mover.move(Kernel.objects.get(pk=key), to=tier, actor=SYSTEM)
    return kernels


def table(result: dict[str, Any]) -> str:
    """The result for people: every row that the project is held to, reached or not, then what lies behind it."""
    lines = [f"Search of the library, {' and '.join(f'{size:,}' for size in result['sizes'])} kernels of 8 tags", ""]
    lines += targets.lines(result["targets"])
    names = f"{'p50':>8}{'p95':>8}{'SQL p50':>10}{'SQL p95':>10}{'tags p50':>11}{'faster':>9}{'pages':>8}"
    head = f"  {'milliseconds':<26}{names}"
    for size, found in result["searches"].items():
        lines += ["", f"  {int(size):,} kernels", head, *(_line(row) for row in found)]
    if result["pages_1m"]:
        lines += ["", "  disk pages at a million kernels, the most of five searches"]
        lines += [f"  {name:<40}{max(pages):>8,}" for name, pages in result["pages_1m"].items()]
    walk, http = result["walk"], result["http"]
    meanwhile = (
        f"{walk['inserted_meanwhile']:,} inserted meanwhile; {walk['missed']} missed, {walk['repeated']} repeated"
    )
    lines += ["", f"  walk: {walk['rows']:,} rows on {walk['pages']} pages, {meanwhile}"]
    lines.append(f"  HTTP: {statistics.median(http['rates']):.0f} searches/s with {http['clients']} clients")
    for tier, found in http["binary"].items():
        ours, plain = (statistics.median(found[name]) for name in ("mib_per_s", "static_mib_per_s"))
        lines.append(
            f"  64 MiB, {tier}: {ours:,.0f} MiB/s, static file {plain:,.0f} MiB/s; "
            f"the server grew {found['server_grew_mib']:.0f} MiB"
        )
    return "\n".join(lines) + "\n"


def _line(row: dict[str, Any]) -> str:
    figures = (
        f"{row['p50_ms']:>8.2f}{row['p95_ms']:>8.2f}{row['statement_p50_ms']:>10.2f}{row['statement_p95_ms']:>10.2f}"
    )
    twin = "          -        -"
    if row["times_faster"]:
        twin = f"{row['tag_table_p50_ms']:>11.2f}{statistics.median(row['times_faster']):>8.0f}x"
    return f"  {row['name']:<26}{figures}{twin}{row['pages']:>8,}"
