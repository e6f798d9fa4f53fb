"""`manage.py cache`: statistics as a table, plans made and carried out at the terminal, what is owed done now."""

import io
import json
import threading
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from apps.core.actors import SYSTEM, WORKER
from apps.core.ids import new_id
from apps.kernels import services
from apps.kernels.cache import fleet, stats
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import CacheOutbox, CachePlan, Kernel, StorageTier
from tests.support.caching import applying, carried_out, expire, kernel, planned, tier_of
from tests.support.stack import Servers

NOWHERE = "redis://127.0.0.1:1/0"
HOT, WARM = StorageTier.HOT, StorageTier.WARM


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("cache", *arguments, stdout=output)
    return output.getvalue()


def run_json(*arguments: str) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json").splitlines()[-1])


def interrupted(**arguments: Any) -> CachePlan:
    raise KeyboardInterrupt


@pytest.mark.django_db
class TestStatistics:
    def test_people_get_the_four_tiers_as_a_table_and_how_they_are(self, servers: Servers) -> None:
        row = kernel()
        fleet.publish()  # what earlier tests counted
        servers.empty_redis()
        stats.count(TierName.L1, "hits", size=row.size, n=3)
        stats.count(TierName.L1, "misses", size=row.size)
        fleet.publish()

        said = run("stats", "--window", "5m")

        rows = {line.split()[1]: line for line in said.splitlines() if line.startswith("│")}
        assert set(rows) >= {"L1", "L2", "L3", "L4"}
        assert "75.0%" in rows["L1"]
        assert f"L3: 1 blobs, {row.size:,} B" in said
        assert "held by live runs: 0 kernels, 0 B" in said

    def test_programs_get_one_object(self) -> None:
        answer = run_json("stats")

        assert (answer["scope"], answer["window"], set(answer["tiers"])) == ("fleet", "1h", {"l1", "l2", "l3", "l4"})
        assert answer["now"]["queue"]["failing"] == 0

    def test_a_broker_that_is_away_is_an_error_that_names_it(self, settings: Any) -> None:
        throttle = {**settings.CACHES["throttle"], "LOCATION": NOWHERE}
        settings.CACHES = {**settings.CACHES, "throttle": throttle}

        with pytest.raises(CommandError, match="BROKER_URL"):
            run("stats")

    def test_an_l2_that_is_away_is_told(self, settings: Any) -> None:
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": NOWHERE}

        assert "L2: " in run("stats")
        assert run_json("stats")["now"]["l2"]["problem"]

    @pytest.mark.parametrize("step", ["stats", "plan", "warm", "relay"])
    def test_a_wrong_setting_is_told_before_anything_is_done(self, settings: Any, step: str) -> None:
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "policy": "newest"}

        with pytest.raises(ImproperlyConfigured, match="ESPER_CACHE_POLICY must be one of cost-aware"):
            run(step)
        assert not CachePlan.objects.exists()

    def test_without_an_l2_it_says_so(self, settings: Any) -> None:
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": ""}

        assert "L2: there is none" in run("stats")


@pytest.mark.django_db
class TestPlans:
    def test_a_plan_is_printed_with_its_reasons_and_moves_nothing(self) -> None:
        row = kernel(reads=10)

        said = run("plan")

        assert f"{row.name}: warm -> hot, 10.0 decayed reads" in said
        assert str(CachePlan.objects.get().pk) in said
        assert tier_of(row) == WARM

    def test_a_large_plan_is_printed_in_part(self) -> None:
        for _ in range(22):
            kernel(reads=10)

        assert "... and 2 more" in run("plan")

    def test_it_is_applied_by_its_id_without_any_worker(self) -> None:
        row = kernel(reads=10)
        plan = run_json("plan")

        applied = run_json("apply", plan["id"], "--reason", "quiet hour")

        assert (applied["state"], applied["result"]["moved"], tier_of(row)) == ("APPLIED", 1, HOT)
        assert "1 moved" in run("apply", plan["id"])  # again: it is told again

    def test_what_stayed_is_told_with_its_reason(self) -> None:
        plan = planned()
        Kernel.objects.update(storage_tier=StorageTier.COLD)

        assert "it is cold now" in run("apply", str(plan.pk))

    def test_it_is_given_up(self) -> None:
        plan = planned()

        assert run_json("cancel", str(plan.pk))["state"] == "CANCELLED"

    def test_to_warm_is_one_word(self) -> None:
        row = kernel(reads=5)
        redis = tiers().redis
        assert redis is not None

        assert run_json("warm")["state"] == "APPLIED"
        assert redis.has(row.digest or "")

    def test_one_that_is_interrupted_says_how_to_stop_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plan = planned()
        monkeypatch.setattr(services, "carry_out_cache_plan", interrupted)

        with pytest.raises(CommandError, match=f"manage.py cache cancel {plan.pk}"):
            run("apply", str(plan.pk))

    @pytest.mark.parametrize("given", ["newest", str(new_id())])
    def test_a_plan_that_is_not_there_is_named(self, given: str) -> None:
        with pytest.raises(CommandError, match=given):
            run("apply", given)

    def test_one_that_has_expired_is_an_error(self) -> None:
        plan = planned()
        expire(plan)

        with pytest.raises(CommandError, match="make a new one"):
            run("apply", str(plan.pk))

    def test_one_that_is_over_cannot_be_given_up(self) -> None:
        with pytest.raises(CommandError, match="cannot go from APPLIED"):
            run("cancel", str(carried_out().pk))

    def test_to_warm_needs_an_l2_that_answers(self, settings: Any) -> None:
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": NOWHERE}

        with pytest.raises(CommandError, match="L2 does not answer"):
            run("warm")


class TestBesideAWorker:
    """A worker carries the plan out when the command comes: it holds the plan until the test lets it go on."""

    @pytest.fixture
    def plan(self, committed_db: str) -> CachePlan:
        return applying(moves=2)

    def held(self, plan: CachePlan, then: Any) -> tuple[threading.Thread, threading.Event]:
        has_begun, may_go_on = threading.Event(), threading.Event()

        def hold(done: int, total: int) -> None:
            has_begun.set()
            assert may_go_on.wait(20)
            then()

        def work() -> None:
            try:
                services.carry_out_cache_plan(plan=plan, actor=WORKER, progress=hold)
            finally:
                connection.close()

        worker = threading.Thread(target=work)
        worker.start()
        assert has_begun.wait(20)
        return worker, may_go_on

    def applied_beside(self, plan: CachePlan, monkeypatch: pytest.MonkeyPatch, then: Any) -> Any:
        """Run the command while a worker holds the plan; the worker goes on once the command was refused."""
        worker, may_go_on = self.held(plan, then)
        carry_out = services.carry_out_cache_plan

        def refused_first(**arguments: Any) -> CachePlan:
            try:
                return carry_out(**arguments)
            finally:
                may_go_on.set()

        monkeypatch.setattr(services, "carry_out_cache_plan", refused_first)
        try:
            return run_json("apply", str(plan.pk))
        finally:
            worker.join()

    def test_the_command_watches_it_and_tells_what_came_of_it(
        self, plan: CachePlan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = self.applied_beside(plan, monkeypatch, lambda: None)

        assert (answer["state"], answer["result"]["moved"]) == ("APPLIED", 2)

    def test_one_that_is_given_up_meanwhile_is_an_error(self, plan: CachePlan, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(CommandError, match="CANCELLED"):
            self.applied_beside(plan, monkeypatch, lambda: services.cancel_cache_plan(plan=plan, actor=SYSTEM))


@pytest.mark.django_db
class TestWhatIsOwed:
    def test_it_is_done_now(self) -> None:
        row = kernel()
        redis = tiers().redis
        assert redis is not None

        answer = run_json("relay")

        assert answer["tried"] == answer["due"] >= 1
        assert answer["rows"]["fill"] == 0
        assert redis.has(row.digest or "")

    def test_what_cannot_be_done_now_is_told_and_stays(self, settings: Any) -> None:
        CacheOutbox.objects.create(kind="forget", key="0" * 64, due_at=timezone.now())
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": NOWHERE}

        said = run("relay")

        assert "1 forget" in said
        assert "the worst: " in said
        assert CacheOutbox.objects.get().attempts == 1
