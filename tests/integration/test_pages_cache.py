"""The page of the cache: numbers as they were counted, what is owed and held, plans that are looked at and applied."""

import csv
import re
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.dashboards import latency_drawing
from apps.dashboards.selectors import cache
from apps.kernels import services
from apps.kernels.cache import fleet, stats
from apps.kernels.cache.segments import TierAway, TierName
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import CachePlanState
from apps.kernels.models import CacheOutbox, CachePlan, CachePlanKind, Kernel, KernelUse, OutboxKind
from tests.support import caching, tables
from tests.support.objects import object_storage
from tests.support.pages import page_of, words_of
from tests.support.proxy import proxy_to
from tests.support.run_rows import make_run, make_user
from tests.support.stack import Servers

__all__ = ["object_storage"]

pytestmark = pytest.mark.django_db

L1, L2, L3, L4 = TierName


@pytest.fixture(autouse=True)
def _nothing_is_counted_yet(servers: Servers) -> None:
    fleet.publish()  # what earlier tests counted
    servers.empty_redis()


@pytest.fixture
def client() -> Client:
    return logged_in("curator")


@pytest.fixture
def silent_broker(servers: Servers, settings: Any) -> None:
    """The broker's Redis refuses connections; everything else answers."""
    url = servers.stack.environment["BROKER_URL"]
    with proxy_to(url) as proxy:
        gone = proxy.url(url)
    settings.CACHES = {**settings.CACHES, "throttle": {**settings.CACHES["throttle"], "LOCATION": gone}}


def logged_in(role: str) -> Client:
    client = Client()
    client.force_login(make_user(f"a-{role}", role=role))
    return client


def hit(tier: TierName, times: int, *, milliseconds: float = 1.0) -> None:
    """Reads that a tier answered, and that every tier before it had not."""
    for faster in list(TierName)[: list(TierName).index(tier)]:
        stats.count(faster, "misses", size=1000, n=times)
    stats.count(tier, "hits", size=1000, n=times)
    for _ in range(times):
        stats.observe(tier, size=1000, seconds=milliseconds / 1000, bytes=1000)


def row_of(html: str, tier: TierName) -> str:
    """The words of a tier's row."""
    rows = html.split('id="tiers"')[1].split("</tbody>")[0].split('<tr role="row">')
    return next(words_of(row) for row in rows if f"<strong>{tier.upper()}</strong>" in row)


class TestNumbers:
    def test_each_tier_shows_what_was_counted_of_it(self, client: Client) -> None:
        hit(L1, 60, milliseconds=0.02)
        hit(L2, 30, milliseconds=0.5)
        hit(L3, 9, milliseconds=4)
        hit(L4, 1, milliseconds=80)
        fleet.publish()

        page = page_of(client, "/cache")

        assert "60.0 % 60 hits, 58.6 KiB 60.0 % 40 misses 19.7 µs 21.4 µs none" in row_of(page, L1)
        assert "30.0 % 30 hits" in row_of(page, L2)
        assert "9.0 % 9 hits, 8.8 KiB 90.0 % 1 miss" in row_of(page, L3)
        assert "1.0 % 1 hit, 1000 B 100.0 % 0 misses" in row_of(page, L4)
        assert "90.0 % of 100 reads in the last hour came from memory or Redis" in words_of(page)
        assert "doing its job" in page

    def test_the_window_of_the_address_is_the_one_that_is_counted(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hit(L1, 5)
        now = fleet.time.time()
        monkeypatch.setattr(fleet.time, "time", lambda: now - 7200)
        fleet.publish()
        monkeypatch.setattr(fleet.time, "time", lambda: now)

        assert "No kernel was read in the last hour" in words_of(page_of(client, "/cache?window=1h"))
        day = page_of(client, "/cache?window=24h")
        assert "of 5 reads in the last 24 hours" in words_of(day)
        assert '<a class="chip" href="?window=24h" aria-current="true">24h</a>' in day
        assert "window=24h" in day.split('id="cache-now"')[1].split(">")[0]

    def test_a_window_that_there_is_not_is_an_hour(self, client: Client) -> None:
        assert "in the last hour" in page_of(client, "/cache?window=yesterday")

    def test_many_reads_from_the_archive_are_something_to_look_at(self, client: Client) -> None:
        hit(L1, 90)
        hit(L4, 10)
        fleet.publish()

        page = words_of(page_of(client, "/cache"))

        assert "look at this" in page
        assert "Only 90.0 % of the reads were answered without L4: 98 % are expected" in page

    def test_what_was_corrupt_is_told_with_what_was_healed(self, client: Client) -> None:
        stats.count(L3, "corrupt", size=1000, n=2)
        stats.count(L3, "heals", size=1000, n=2)
        hit(L1, 1)
        fleet.publish()

        page = page_of(client, "/cache")

        assert "L3 had 2 copies that were corrupt: none was used, 2 healed" in page
        assert "0, 2, 2" in row_of(page, L3)

    def test_a_breaker_that_is_open_says_where_and_since_when(self, client: Client) -> None:
        tiers().database.breaker.failed(was_timeout=True)
        fleet.publish()

        page = page_of(client, "/cache")

        assert "The breaker of L3 is open in 1 of 1 process: the tier is left alone there" in page
        assert "open in 1 of 1, since" in row_of(page, L3)
        assert "closed in its process, since" in row_of(page, L4)

    def test_bytes_stand_against_their_budget(self, client: Client) -> None:
        caching.kernel(data=b"x" * 4096)
        fleet.publish()

        page = page_of(client, "/cache")

        assert re.search(
            r"L1 memory of each process \d+ B of 128.0 MiB \(0 %\) in 1 process, \d+ entr", row_of(page, L1)
        )
        assert re.search(r"of [\d.]+ MiB", row_of(page, L2))
        assert "4.0 KiB (no budget) 1 blob" in row_of(page, L3)
        assert "0 B (no budget) 0 blobs" in row_of(page, L4)

    def test_processes_tell_of_themselves(self, client: Client) -> None:
        fleet.publish()

        page = words_of(page_of(client, "/cache").split('id="processes"')[1])

        assert fleet.this_process().name in page
        assert "cost-aware L2 closed , L3 closed , L4 closed" in page

    def test_htmx_gets_what_was_counted_and_the_state_line_alone(self, client: Client) -> None:
        answer = client.get("/cache", headers={"HX-Request": "true"}).content.decode()

        assert answer.startswith('<div id="cache-now"')
        assert 'id="cache-state" hx-swap-oob="true"' in answer
        assert "<html" not in answer
        assert 'id="plans"' not in answer

    def test_what_is_shown_again_and_again_asks_the_database_a_few_times_at_most(self, client: Client) -> None:
        with CaptureQueriesContext(connection) as captured:
            cache.now("1h")

        assert len(captured) <= 5


class TestEmptyAndSilent:
    def test_before_the_first_read_the_page_teaches_how_to_make_one(self, client: Client) -> None:
        page = page_of(client, "/cache?window=total")

        assert "No kernel was read yet" in words_of(page)
        assert "http://testserver/api/v1/kernels/ID/binary" in page
        assert "No plan yet." in page

    @pytest.mark.usefixtures("silent_broker")
    def test_without_the_broker_the_rest_is_still_told(self, client: Client) -> None:
        caching.kernel(data=b"x" * 4096)

        page = page_of(client, "/cache")

        assert "partly unknown" in page
        assert "What was read is unknown now: the statistics of the cache cannot be read now" in page
        assert row_of(page, L1).startswith("L1 memory of each process unknown the processes cannot be asked unknown")
        assert "4.0 KiB (no budget) 1 blob" in row_of(page, L3)
        assert 'id="plans"' in page

    @pytest.mark.usefixtures("silent_broker")
    def test_without_the_broker_the_twins_of_a_chart_say_so(self, client: Client) -> None:
        assert "Unknown: the statistics of the cache" in page_of(client, "/cache/latencies/l1")
        assert "cannot be read now" in page_of(client, "/cache/latencies/l1.csv", status=503)

    def test_an_l2_that_does_not_answer_is_named(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        redis = tiers().redis
        assert redis is not None

        def away() -> None:
            raise TierAway("connection refused")

        monkeypatch.setattr(type(redis), "usage", lambda self: away())

        page = page_of(client, "/cache")

        assert "L2 does not answer: connection refused" in page
        assert "unknown does not answer" in row_of(page, L2)


class TestTwins:
    def test_the_table_and_the_file_have_the_hits_of_the_chart(self, client: Client) -> None:
        hit(L2, 7, milliseconds=0.5)
        hit(L2, 3, milliseconds=40)
        fleet.publish()

        table = page_of(client, "/cache/latencies/l2?window=1h")
        rows = list(csv.DictReader(StringIO(page_of(client, "/cache/latencies/l2.csv?window=1h"))))

        assert [int(row["hits"]) for row in rows] == [7, 3]
        assert all(float(row["above_ms"]) < float(row["at_most_ms"]) for row in rows)
        assert float(rows[0]["above_ms"]) < 0.5 <= float(rows[0]["at_most_ms"])
        assert "464 µs to 562 µs 7" in words_of(table)
        drawn = cache.now("1h").lines[1].histogram
        assert drawn is not None
        assert [bar.words.split(": ")[1] for bar in drawn.bars] == ["7 hits", "3 hits"]

    def test_a_dialog_gets_the_table_alone(self, client: Client) -> None:
        fragment = client.get("/cache/latencies/l1", headers={"HX-Request": "true"}).content.decode()

        assert "dialog-title" in fragment
        assert "<html" not in fragment

    def test_there_is_no_fifth_tier(self, client: Client) -> None:
        page_of(client, "/cache/latencies/l5", status=404)
        page_of(client, "/cache/latencies/l5.csv", status=404)

    @pytest.mark.parametrize(("most", "end"), [(0, 2), (1, 2), (3, 4), (9, 10), (60, 60), (61, 80), (101, 200)])
    def test_the_axis_of_hits_ends_at_an_even_number(self, most: int, end: int) -> None:
        assert latency_drawing.nice(most) == end

    def test_the_slowest_and_the_fastest_are_still_on_the_drawing(self) -> None:
        buckets = [1, *[0] * (len(stats.BOUNDS) - 1), 1]

        drawn = latency_drawing.histogram(buckets, [("p50", 1e-9), ("p95", 100.0)])

        assert [bar.words for bar in drawn.bars] == [
            "at most 1 µs: 1 hit".replace(" µ", "\xa0µ"),
            "more than 10\xa0s: 1 hit",
        ]
        assert all(
            drawn.left <= x <= drawn.right for x in [*(bar.x for bar in drawn.bars), *(m.x for m in drawn.marks)]
        )


class TestHeldOwedAndMoved:
    def test_what_live_runs_hold_leads_to_kernel_and_run(self, client: Client) -> None:
        run, kernel = make_run(name="digits-live", stories=()), caching.kernel()
        KernelUse.objects.create(kernel=kernel, run_id=run.pk)
        ended = caching.kernel()
        KernelUse.objects.create(kernel=ended, run_id=run.pk, until=timezone.now())

        held = page_of(client, "/cache").split('id="pinned"')[1].split("</section>")[0]

        assert f'<a href="/library/kernels/{kernel.pk}">{kernel.name}</a>' in held
        assert f'<a href="/runs/{run.pk}">digits-live</a>' in held
        assert ended.name not in held

    def test_what_is_owed_says_how_much_and_why_it_failed(self, client: Client) -> None:
        CacheOutbox.objects.all().delete()
        now = timezone.now()
        CacheOutbox.objects.create(kind=OutboxKind.COPY, key="a" * 64, due_at=now, attempts=3, error="storage is away")
        CacheOutbox.objects.create(kind=OutboxKind.FILL, key="b" * 64, due_at=now)

        page = words_of(page_of(client, "/cache"))

        assert "Bytes for L2 1 Copies for L4 1" in page
        assert "Have failed 1 tried again Last error storage is away" in page
        assert "1 owed step has failed and is tried again" in page

    def test_what_moved_stands_there_with_its_reason(self, client: Client) -> None:
        plan = caching.carried_out()

        moved = page_of(logged_in("admin"), "/cache").split('id="movements"')[1]

        assert "moved the bytes of" in moved
        assert "10.0 decayed reads: at least 4" in moved
        assert f'<a href="/cache/plans/{plan.pk}">{plan}</a>' in moved

    def test_who_may_not_read_the_trail_sees_no_events(self) -> None:
        caching.carried_out()

        assert 'id="movements"' not in page_of(logged_in("viewer"), "/cache")

    def test_a_kernel_says_how_often_it_was_read_and_whether_l2_has_it(self, client: Client) -> None:
        kernel, cold = caching.kernel(reads=3), caching.kernel()

        read, unread = (words_of(page_of(client, f"/library/kernels/{row.pk}")) for row in (kernel, cold))

        assert "Read 3 times, last" in read
        assert "In L2 now no" in read
        assert "Read not yet" in unread


class TestPlans:
    def test_optimise_makes_a_plan_and_leads_to_it(self, client: Client) -> None:
        kernel = caching.kernel(reads=10)

        answer = client.post("/cache/optimise", {"reason": "monthly"})

        plan = CachePlan.objects.get()
        assert answer["Location"] == f"/cache/plans/{plan.pk}"
        page = words_of(page_of(client, answer["Location"]))
        assert f"{kernel.name} warm hot 2.0 KiB 10.0 decayed reads: at least 4 not tried" in page
        assert "hot 0 B 2.0 KiB +2.0 KiB warm 2.0 KiB 0 B −2.0 KiB" in page

    def test_warm_makes_a_plan_of_what_l2_lacks(self, client: Client) -> None:
        kernel = caching.kernel(reads=10)

        page = page_of(client, client.post("/cache/warm")["Location"])

        assert CachePlan.objects.get().kind == CachePlanKind.WARM
        assert f"{kernel.name} l3 l2 2.0 KiB" in words_of(page)
        assert "Warming copies: no kernel changes its storage tier." in page

    def test_looking_at_what_a_plan_would_be_changes_nothing(self, client: Client) -> None:
        caching.kernel(reads=10)
        plan = caching.planned()
        before = tables.beside_the_trail()

        for path in ("optimise", "warm", f"plans/{plan.pk}", f"plans/{plan.pk}/apply", f"plans/{plan.pk}/cancel"):
            page_of(client, f"/cache/{path}")

        assert tables.beside_the_trail() == before

    def test_a_plan_is_previewed_applied_followed_and_done(self, client: Client) -> None:
        plan = caching.planned(moves=2)
        address = f"/cache/plans/{plan.pk}"
        assert "a worker makes 2 moves, one after another: 2 from warm to hot (4.0 KiB)" in words_of(
            page_of(client, f"{address}/apply")
        )

        assert client.post(f"{address}/apply", {"reason": "looked at"})["Location"] == address
        begun = page_of(client, address)
        seen: list[str] = []

        def look(done: int, total: int) -> None:
            seen.append(words_of(page_of(client, address)))

        services.carry_out_cache_plan(plan=plan, actor=SYSTEM, progress=look)
        over = page_of(client, address)

        assert 'hx-trigger="every 1s"' in begun
        assert "Tried 0 of 2" in words_of(begun)
        assert ["Tried 1 of 2" in seen[0], "Tried 2 of 2" in seen[1]] == [True, True]
        assert "hx-trigger" not in over.split('id="plan"')[1].split(">")[0]
        assert "Moved 2 4.0 KiB" in words_of(over)
        assert over.count("</span> moved</span>") == 2

    @pytest.mark.usefixtures("object_storage")
    def test_what_was_left_says_why(self, client: Client) -> None:
        plan = caching.applying()
        row = Kernel.objects.get(pk=plan.moves[0]["kernel"])
        services.change_tier(kernel=row, tier="hot", actor=SYSTEM)
        services.change_tier(kernel=row, tier="cold", actor=SYSTEM)
        services.carry_out_cache_plan(plan=plan, actor=SYSTEM)

        assert "left: it is cold now" in words_of(page_of(client, f"/cache/plans/{plan.pk}"))

    def test_a_plan_is_cancelled(self, client: Client) -> None:
        plan = caching.planned()

        client.post(f"/cache/plans/{plan.pk}/cancel", {"reason": "no"})

        plan.refresh_from_db()
        assert plan.state == CachePlanState.CANCELLED
        assert "/apply" not in page_of(client, f"/cache/plans/{plan.pk}")

    def test_a_plan_that_failed_says_why(self, client: Client) -> None:
        plan = caching.applying()
        services.fail_cache_plan(plan=plan, problem="the disk is full", actor=SYSTEM)

        assert "the disk is full. What had moved stays moved." in page_of(client, f"/cache/plans/{plan.pk}")

    def test_an_expired_plan_can_only_be_given_up(self, client: Client) -> None:
        plan = caching.planned()
        caching.expire(plan)

        page = page_of(client, f"/cache/plans/{plan.pk}")
        refused = client.post(f"/cache/plans/{plan.pk}/apply")

        assert "It has expired" in page
        assert "plan-apply" not in page
        assert "plan-cancel" in page
        assert "the plan has expired" in page_of(client, f"/cache/plans/{plan.pk}/apply")
        assert (refused.status_code, "the plan has expired" in refused.content.decode()) == (409, True)

    def test_a_plan_without_moves_is_nothing_to_apply(self, client: Client) -> None:
        plan = services.plan_cache(kind=CachePlanKind.OPTIMISE, actor=SYSTEM)

        page = page_of(client, f"/cache/plans/{plan.pk}")

        assert "there is nothing to move" in page
        assert "plan-apply" not in page

    def test_to_warm_while_l2_is_away_is_refused_with_the_reason(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        caching.kernel(reads=10)
        redis = tiers().redis
        assert redis is not None

        def away(self: object, digest: str) -> bool:
            raise TierAway("connection refused")

        monkeypatch.setattr(type(redis), "has", away)

        answer = client.post("/cache/warm")

        assert answer.status_code == 409
        assert "L2 does not answer" in answer.content.decode()
        assert not CachePlan.objects.exists()

    def test_older_plans_are_on_further_pages(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache, "PLANS_SHOWN", 2)
        made = [services.plan_cache(kind=CachePlanKind.OPTIMISE, actor=SYSTEM).pk for _ in range(5)]

        seen: list[UUID] = []
        after = None
        while True:
            page = cache.plans(after=after)
            seen += [plan.pk for plan in page.rows]
            after = page.next_after
            if after is None:
                break

        assert seen == sorted(made, reverse=True)
        assert "Newest plans" in page_of(client, f"/cache?after={made[2]}")

    def test_the_page_asks_equally_often_for_many_rows(self, client: Client) -> None:
        def asked(path: str) -> int:
            with CaptureQueriesContext(connection) as captured:
                client.get(path)
            return len(captured)

        def fill(plan_moves: int) -> CachePlan:
            run = make_run(name=f"run-{plan_moves}", stories=())
            KernelUse.objects.create(kernel=caching.kernel(), run_id=run.pk)
            return caching.carried_out(moves=plan_moves)

        small = fill(1)
        few = asked("/cache")
        large = fill(5)

        assert asked("/cache") == few <= 20
        assert asked(f"/cache/plans/{small.pk}") == asked(f"/cache/plans/{large.pk}")

    def test_what_does_not_exist_is_not_found(self, client: Client) -> None:
        nothing = "01a20a70-2988-776d-9050-9998b8fb74a9"

        for path in (nothing, f"{nothing}/apply", f"{nothing}/cancel"):
            page_of(client, f"/cache/plans/{path}", status=404)


class TestWhoMayWhat:
    @pytest.mark.parametrize("role", ["viewer", "operator"])
    def test_who_may_not_write_the_library_reads_and_sees_no_buttons(self, role: str) -> None:
        plan, client = caching.planned(), logged_in(role)

        overview, review = page_of(client, "/cache"), page_of(client, f"/cache/plans/{plan.pk}")

        assert "cache-optimise" not in overview
        assert "plan-apply" not in review
        for path in ("optimise", "warm", f"plans/{plan.pk}/apply", f"plans/{plan.pk}/cancel"):
            assert client.get(f"/cache/{path}").status_code == 403
            assert client.post(f"/cache/{path}").status_code == 403
        plan.refresh_from_db()
        assert plan.state == CachePlanState.PLANNED

    def test_the_rail_leads_to_the_cache_between_library_and_checkpoints(self, client: Client) -> None:
        rail = page_of(client, "/cache").split('class="rail"')[1].split("</header>")[0]

        assert re.findall(r">(\w+)</a>", rail)[2:5] == ["Library", "Cache", "Checkpoints"]


def test_without_an_l2_the_page_says_that_it_is_switched_off(client: Client, settings: Any) -> None:
    settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": ""}
    fleet.publish()

    row = row_of(page_of(client, "/cache"), L2)

    assert "switched off ESPER_CACHE_L2_URL is empty" in row
    assert row.endswith("needs none")
    assert "there is no L2" in page_of(client, "/cache/warm")
