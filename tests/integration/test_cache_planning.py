"""What the cache would move and why, at the border of each rule; what is loaded before it is asked for; and real
processes that do both by themselves."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.utils import timezone

from apps.accounts.roles import Role
from apps.core.queue import enqueue
from apps.kernels.cache import KernelStore, TierName, archive, changes, clients, fleet, planning, process, warming
from apps.kernels.cache.remote import RedisTier, Usage
from apps.kernels.cache.segments import TierAway
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import CachePlanState, KernelState
from apps.kernels.models import (
    BlobAccess,
    CachePlan,
    Kernel,
    KernelAlias,
    KernelBlob,
    KernelChunk,
    KernelUse,
    StorageTier,
)
from tests.support.cache import content, tier_of
from tests.support.caching import kernel
from tests.support.factories import BlueprintFactory, KernelFactory, RunFactory, TokenFactory, UserFactory
from tests.support.programs import RunningProgram
from tests.support.waiting import wait_until

HOT, WARM, COLD, ARCHIVE = StorageTier.HOT, StorageTier.WARM, StorageTier.COLD, StorageTier.ARCHIVE
HOUR = 3600.0


@pytest.fixture
def l2_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """L2 has so many bytes for kernels, all of them for warming."""

    def limit(limit: int) -> None:
        monkeypatch.setattr(RedisTier, "usage", lambda tier: Usage(used=0, limit=limit, evicted_keys=0, keys=0))

    return limit


def moves() -> dict[str, tuple[str, str]]:
    return {move.name: (move.source, move.target) for move in planning.optimise()}


def unread_for(days: float, **values: Any) -> Kernel:
    made = kernel(**values)
    then = timezone.now() - timedelta(days=days)
    Kernel.objects.filter(pk=made.pk).update(created_at=then)
    BlobAccess.objects.filter(digest=made.digest).update(last_read_at=then, scored_at=then)
    return made


def hold(row: Kernel) -> Kernel:
    KernelUse.objects.create(kernel=row, run_id=RunFactory().pk)
    return row


@pytest.mark.django_db
class TestRules:
    """hot_reads is 4, cold_after_days 90."""

    def test_a_warm_kernel_becomes_hot_from_the_reads_that_the_setting_names(self) -> None:
        enough, _ = kernel(reads=4.01), kernel(reads=3.99)

        assert moves() == {enough.name: (WARM, HOT)}

    def test_a_hot_kernel_is_warm_again_below_half_of_them(self) -> None:
        _, fewer = kernel(reads=2.01, tier=HOT), kernel(reads=1.99, tier=HOT)

        assert moves() == {fewer.name: (HOT, WARM)}

    def test_between_the_two_a_kernel_stays_what_it_is(self) -> None:
        kernel(reads=3, tier=HOT)
        kernel(reads=3)

        assert moves() == {}

    def test_reads_weigh_half_after_a_half_life(self) -> None:
        row = kernel(reads=7.9)
        BlobAccess.objects.filter(digest=row.digest).update(scored_at=timezone.now() - timedelta(seconds=HOUR))
        assert moves() == {}

        BlobAccess.objects.filter(digest=row.digest).update(score=8.1)
        assert moves() == {row.name: (WARM, HOT)}

    def test_a_cold_kernel_that_was_read_within_a_half_life_comes_back(self) -> None:
        read, _ = kernel(reads=0.51, tier=COLD), kernel(reads=0.49, tier=COLD)

        assert moves() == {read.name: (COLD, WARM)}

    def test_a_warm_kernel_goes_to_the_object_storage_after_days_without_a_read(self) -> None:
        unread, _ = unread_for(90.1), unread_for(89.9)
        read_long_ago = unread_for(90.1, reads=1)
        kernel_read_lately = unread_for(90.1, reads=1)
        BlobAccess.objects.filter(digest=kernel_read_lately.digest).update(last_read_at=timezone.now())

        assert moves() == {unread.name: (WARM, COLD), read_long_ago.name: (WARM, COLD)}

    def test_one_that_a_run_used_lately_does_not(self) -> None:
        row = unread_for(90.1)
        Kernel.objects.filter(pk=row.pk).update(last_used_at=timezone.now())

        assert moves() == {}

    def test_by_itself_none_does_where_the_setting_is_zero(self, configure: Callable[..., None]) -> None:
        unread_for(1000)
        configure(cold_after_days=0.0)

        assert moves() == {}

    def test_what_is_held_pinned_or_has_an_alias_stays_in_the_database(self) -> None:
        hold(unread_for(100))
        unread_for(100, pinned_until=timezone.now() + timedelta(days=1))
        KernelAlias.objects.create(blueprint=BlueprintFactory(), name="prod", kernel=unread_for(100))
        unpinned = unread_for(100, pinned_until=timezone.now() - timedelta(days=1))

        assert moves() == {unpinned.name: (WARM, COLD)}

    def test_what_a_live_run_holds_stays_hot_until_it_ends(self) -> None:
        held = hold(kernel(tier=HOT))
        assert moves() == {}

        KernelUse.objects.filter(kernel=held).update(until=timezone.now())
        assert moves() == {held.name: (HOT, WARM)}

    def test_an_archived_kernel_comes_back_by_hand_only(self) -> None:
        kernel(reads=100, tier=ARCHIVE)

        assert moves() == {}

    def test_what_is_given_out_to_nobody_is_brought_nearer_to_nobody(self) -> None:
        for tier in (WARM, COLD):
            made = kernel(reads=10, tier=tier)
            Kernel.objects.filter(pk=made.pk).update(state=KernelState.QUARANTINED)

        assert moves() == {}

    def test_a_plan_has_only_so_many_moves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planning, "MAX_MOVES", 2)
        for _ in range(3):
            kernel(reads=10)

        assert len(moves()) == 2


@pytest.mark.django_db
class TestRoomInL2:
    def test_those_with_the_most_reads_for_their_bytes_come_first(
        self, l2_of: Callable[[int], None], configure: Callable[..., None]
    ) -> None:
        configure(warm_share=0.5)
        large, small = kernel(reads=20, data=content(20_000)), kernel(reads=10, data=content(5_000, seed=2))
        assert set(moves()) == {large.name, small.name}

        l2_of(2 * 24_999)
        assert set(moves()) == {small.name}

        l2_of(2 * 25_000)
        assert set(moves()) == {large.name, small.name}

    def test_kernels_that_are_hot_take_their_part(
        self, l2_of: Callable[[int], None], configure: Callable[..., None]
    ) -> None:
        configure(warm_share=1.0)
        kernel(reads=10, tier=HOT, data=content(20_000))
        waiting = kernel(reads=10, data=content(5_000, seed=2))
        l2_of(24_999)
        assert moves() == {}

        l2_of(25_000)
        assert moves() == {waiting.name: (WARM, HOT)}

    def test_what_l2_never_keeps_does_not_become_hot(self, configure: Callable[..., None]) -> None:
        configure(l2_largest=19_999)
        kernel(reads=10, data=content(20_000))

        assert moves() == {}

    def test_without_an_answer_of_l2_nothing_becomes_hot_and_the_rest_goes_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(tier: RedisTier) -> Usage:
            raise TierAway("refused")

        monkeypatch.setattr(RedisTier, "usage", away)
        kernel(reads=10)
        cooled = kernel(tier=HOT)

        assert moves() == {cooled.name: (HOT, WARM)}


@pytest.mark.django_db
class TestWhatIsLoadedAhead:
    def test_those_of_live_runs_come_first_then_the_most_reads_for_their_bytes(self) -> None:
        large = kernel(reads=9, data=content(20_000))
        small = kernel(reads=5, data=content(5_000, seed=2))
        held = hold(kernel(data=content(1_000, seed=3)))
        kernel(reads=0.49)
        kernel(reads=9, tier=COLD)

        assert [(move.name, move.source, move.target) for move in planning.warm()] == [
            (row.name, TierName.L3, TierName.L2) for row in (held, small, large)
        ]

    def test_a_hot_kernel_is_loaded_though_nobody_read_it(self) -> None:
        hot = kernel(tier=HOT)

        assert [move.name for move in planning.warm()] == [hot.name]

    def test_bytes_that_several_kernels_have_are_loaded_once(self) -> None:
        first = kernel(reads=9, data=content(5_000))
        KernelFactory(state=KernelState.VALIDATED, data=content(5_000))

        assert [move.digest for move in planning.warm()] == [first.digest]

    def test_what_does_not_fit_is_passed_over_for_what_does(self, l2_of: Callable[[int], None]) -> None:
        kernel(reads=100, data=content(20_000))
        fits = kernel(reads=5, data=content(5_000, seed=2))
        l2_of(10_000)

        assert [move.name for move in planning.warm()] == [fits.name]

    def test_a_key_of_l2_that_somebody_else_made_does_not_stop_the_warming(self) -> None:
        row = kernel(reads=5)
        clients.client().rpush(f"esper:k1:{{{row.digest}}}", "not ours")

        assert [move.name for move in planning.warm()] == [row.name]

    def test_without_l2_there_is_nothing_to_load(self, configure: Callable[..., None]) -> None:
        configure(l2_url="")
        kernel(reads=9)

        assert planning.warm() == []


@pytest.mark.usefixtures("committed_db", "folder_storage")
class TestWarmingTheMemory:
    def test_it_is_filled_to_its_share_with_the_most_reads_for_their_bytes(
        self, configure: Callable[..., None]
    ) -> None:
        configure(l1_bytes=80_000, warm_share=0.25)
        rows = [kernel(reads=reads, data=content(8_000, seed=reads)) for reads in (3, 9, 5, 7)]

        assert warming.warm_memory() == 2
        assert tiers().memory.digests() == {rows[1].digest, rows[3].digest}
        assert tiers().memory.gauge()["bytes"] == 16_000

    def test_what_is_there_is_not_loaded_again(self) -> None:
        kernel(reads=9)

        assert [warming.warm_memory() for _ in range(2)] == [1, 0]

    def test_a_kernel_that_cannot_be_read_is_passed_over(self) -> None:
        wrong, right = kernel(reads=9), kernel(reads=5)
        changes.forget(wrong.digest or "")
        KernelChunk.objects.filter(blob_id=wrong.digest).update(data=b"rot")

        assert warming.warm_memory() == 1
        assert tiers().memory.digests() == {right.digest}

    def test_it_is_not_faster_than_the_setting_allows(self, configure: Callable[..., None]) -> None:
        configure(warm_bytes_per_second=100_000)
        for reads in (5, 6):
            kernel(reads=reads, data=content(10_000, seed=reads))
        began = time.monotonic()

        assert warming.warm_memory() == 2
        assert time.monotonic() - began >= 0.2

    def test_a_process_that_is_to_end_does_not_finish_its_warming(
        self, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "PUBLISH_SECONDS", 0.05)
        configure(warm_bytes_per_second=1)
        for reads in (5, 6):
            kernel(reads=reads)
        companion = process.Companion()
        companion.warm()
        companion.start()

        wait_until(tiers().memory.digests, seconds=20)
        began = time.monotonic()
        companion.stop()
        assert time.monotonic() - began < 5


# --- Real processes


def placed(row: Kernel) -> str:
    return Kernel.objects.values_list("storage_tier", flat=True).get(pk=row.pk)


def told_of(pid: int) -> dict[str, Any]:
    """What the process tells about its memory; nothing: it has not told anything yet."""
    return next((told.gauges["l1"] for told in fleet.processes() if told.pid == pid), {})


def test_a_worker_moves_and_loads_by_schedule(committed_db: str, worker: Callable[..., RunningProgram]) -> None:
    often, never = kernel(reads=10), unread_for(100)
    started = worker("default")

    enqueue("apps.kernels.tasks.rebalance_cache")

    wait_until(lambda: (placed(often), placed(never)) == (HOT, COLD), seconds=20)
    wait_until(lambda: not KernelBlob.objects.get(pk=never.digest).in_database, seconds=10)
    wait_until(lambda: CachePlan.objects.filter(state=CachePlanState.APPLIED, done=2).exists(), seconds=10)
    assert archive.is_whole(never.digest or "")
    assert KernelStore().get(never.digest or "")

    changes.forget(often.digest or "")
    enqueue("apps.kernels.tasks.warm_cache")

    wait_until(lambda: tier_of(often.digest or "") == TierName.L2, seconds=20)
    wait_until(lambda: told_of(started.pid).get("bytes"), seconds=20)  # warmed when it began, or by the plan
    assert told_of(started.pid)["bytes"] == often.size


def test_web_and_workers_tell_the_fleet_what_they_did_and_how_they_are(
    live_site: str, worker: Callable[..., RunningProgram]
) -> None:
    row = kernel(data=content(700_000))
    secret = TokenFactory(user=UserFactory(role=Role.ADMIN)).secret
    forking = worker("compile")
    url, headers = f"{live_site}/api/v1/kernels/{row.pk}/binary", {"Authorization": f"Bearer {secret}"}
    answers = [requests.get(url, headers=headers, timeout=10) for _ in range(3)]
    assert [answer.headers["X-Esper-Cache-Tier"] for answer in answers] == ["l2", "l2", "l1"]

    wait_until(lambda: fleet.fleet("total").total("hits") >= 3, seconds=20)
    told = fleet.fleet("total")
    assert [told.total("hits", tier) for tier in ("l1", "l2")] == [1, 2]
    wait_until(lambda: {told.role for told in fleet.processes()} == {"granian", "celery"}, seconds=20)
    web = next(told for told in fleet.processes() if told.role == "granian")
    assert web.gauges["l1"]["bytes"] == row.size
    assert web.gauges["breakers"]["l2"]["state"] == "closed"
    assert forking.pid not in {told.pid for told in fleet.processes()}, "its child works, and it itself reads nothing"
