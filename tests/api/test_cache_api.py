"""`/cache` and `/operations`: what the tiers did, plans to move bytes, and their progress, over HTTP."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict
from apps.core.ids import new_id
from apps.core.operations import Operation, OperationState
from apps.core.registry import registry
from apps.kernels import services
from apps.kernels.cache import KernelStore, fleet, stats
from apps.kernels.cache.segments import TierName
from apps.kernels.models import CacheOutbox, CachePlan, Kernel, KernelUse, StorageTier
from tests.api.conftest import Caller
from tests.support.caching import applying, carried_out, expire, kernel, planned, tier_of
from tests.support.factories import RunFactory
from tests.support.problems import assert_problem
from tests.support.stack import Servers

pytestmark = pytest.mark.django_db

STATS, OPTIMISE, PLANS, OPERATIONS = (
    "/api/v1/cache/stats",
    "/api/v1/cache/optimize",
    "/api/v1/cache/plans",
    "/api/v1/operations",
)
NOWHERE = "redis://127.0.0.1:1/0"


def post(client: Caller, path: str, body: Any = None, **headers: str) -> Any:
    return client.post(path, body or {}, format="json", headers=headers)


def address_of(plan: CachePlan) -> str:
    return f"{OPERATIONS}/{plan.pk}"


@pytest.fixture
def silent_broker(settings: Any) -> None:
    throttle = {**settings.CACHES["throttle"], "LOCATION": NOWHERE}
    settings.CACHES = {**settings.CACHES, "throttle": throttle}


@pytest.fixture
def silent_l2(settings: Any) -> None:
    settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": NOWHERE}


class TestStatistics:
    @pytest.fixture(autouse=True)
    def _nothing_is_counted_yet(self, servers: Servers) -> None:
        fleet.publish()  # what earlier tests counted
        servers.empty_redis()

    def hit(self, tier: TierName, times: int = 1, *, size: int = 100_000, seconds: float = 0.001) -> None:
        for _ in range(times):
            stats.count(tier, "hits", size=size)
            stats.observe(tier, size=size, seconds=seconds, bytes=size)

    def test_the_fleet_tells_what_each_tier_did_in_a_window(self, admin: Caller) -> None:
        self.hit(TierName.L1, 6)
        self.hit(TierName.L2, 2, size=5 << 20, seconds=0.05)
        stats.count(TierName.L1, "misses", size=5 << 20, n=2)
        fleet.publish()

        answer = admin.get(STATS, {"window": "5m"}).json()

        assert (answer["scope"], answer["window"]) == ("fleet", "5m")
        l1, l2, l3 = (answer["tiers"][name] for name in ("l1", "l2", "l3"))
        assert (l1["hits"], l1["misses"], l1["hit_rate"], l1["answered_share"]) == (6, 2, 0.75, 0.75)
        assert (l1["bytes"], l1["latency"]["p50_ms"]) == (600_000, pytest.approx(1.0, rel=0.21))
        assert l2["latency"]["mean_ms"] == pytest.approx(50)
        assert [bucket["hits"] for bucket in l2["buckets"]] == [2]
        assert (l3["hits"], l3["hit_rate"], l3["latency"]["p99_ms"], l3["by_size"]) == (0, None, None, [])
        assert {part["size"]: (part["hits"], part["misses"]) for part in l1["by_size"]} == {
            "512KiB": (6, 0),
            "16MiB": (0, 2),
        }

    @pytest.mark.parametrize("window", ["5m", "1h", "24h", "7d", "total"])
    def test_every_window_of_the_fleet_is_answered(self, admin: Caller, window: str) -> None:
        self.hit(TierName.L3)
        fleet.publish()

        assert admin.get(STATS, {"window": window}).json()["tiers"]["l3"]["hits"] == 1

    def test_without_parameters_it_is_the_last_hour_of_the_fleet(self, admin: Caller) -> None:
        answer = admin.get(STATS).json()

        assert (answer["scope"], answer["window"]) == ("fleet", "1h")

    def test_a_process_tells_what_it_counted_itself_since_it_started(self, admin: Caller) -> None:
        def answered() -> dict[str, Any]:
            answer = admin.get(STATS, {"scope": "process"}).json()
            assert (answer["window"], len(answer["now"]["processes"])) == ("total", 1)
            return {name: tier["hits"] for name, tier in answer["tiers"].items()}

        row = kernel()
        before = answered()
        KernelStore().get(row.digest or "")

        assert answered() == {**before, "l3": before["l3"] + 1}

    @pytest.mark.parametrize(
        ("asked", "pointer"),
        [
            ({"scope": "process", "window": "1h"}, "/window"),
            ({"scope": "process", "window": "5m"}, "/window"),
            ({"window": "2h"}, "/window"),
            ({"scope": "all"}, "/scope"),
            ({"tier": "l1"}, "/tier"),
            ({"window": ""}, "/window"),
        ],
    )
    def test_what_cannot_be_answered_is_named(self, admin: Caller, asked: dict[str, str], pointer: str) -> None:
        assert_problem(admin.get(STATS, asked), 400, "", pointer)

    def test_without_the_broker_the_fleet_is_503_and_says_what_still_works(
        self, admin: Caller, silent_broker: None
    ) -> None:
        problem = assert_problem(admin.get(STATS), 503, "statistics")

        assert "scope=process" in problem["detail"]
        assert admin.get(STATS, {"scope": "process"}).status_code == 200

    def test_an_l2_that_does_not_answer_is_told(self, admin: Caller, silent_l2: None) -> None:
        l2 = admin.get(STATS).json()["now"]["l2"]

        assert l2["problem"]
        assert (l2["used_bytes"], l2["keys"]) == (None, None)

    def test_where_there_is_no_l2_it_is_null(self, admin: Caller, settings: Any) -> None:
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": ""}

        assert admin.get(STATS).json()["now"]["l2"] is None

    def test_how_the_cache_is_now(self, admin: Caller) -> None:
        held, cold = kernel(), kernel(tier=StorageTier.COLD)
        KernelUse.objects.create(kernel=held, run_id=RunFactory().pk)
        CacheOutbox.objects.all().delete()
        CacheOutbox.objects.create(
            kind="copy", key=held.digest, due_at=timezone.now(), attempts=3, error="the object storage does not answer"
        )
        fleet.publish()

        now = admin.get(STATS).json()["now"]

        (process,) = now["processes"]
        assert process["l1"]["budget"] > process["l1"]["bytes"] >= 0
        assert process["l1"]["policy"] == "cost-aware"
        assert {breaker["tier"]: breaker["state"] for breaker in process["breakers"]} == dict.fromkeys(
            ("l2", "l3", "l4"), "closed"
        )
        assert now["l2"]["used_bytes"] > 0
        assert now["l3"] == {"blobs": 2, "bytes": (held.size or 0) + (cold.size or 0)}
        assert now["l4"] == {"blobs": 0, "bytes": 0}
        assert now["storage_tiers"]["warm"] == now["pinned"] == {"kernels": 1, "bytes": held.size}
        assert now["storage_tiers"]["cold"]["kernels"] == 1
        assert now["queue"]["rows"] == {"fill": 0, "copy": 1, "forget": 0, "changed": 0}
        assert (now["queue"]["failing"], now["queue"]["error"]) == (1, "the object storage does not answer")
        assert now["queue"]["oldest_at"]

    def test_it_takes_few_queries_however_many_kernels_there_are(
        self, admin: Caller, django_assert_max_num_queries: Any
    ) -> None:
        for _ in range(5):
            kernel()

        with django_assert_max_num_queries(12):
            admin.get(STATS)


class TestPlanning:
    def test_a_dry_run_tells_each_move_with_its_reason_and_moves_nothing(self, admin: Caller) -> None:
        row = kernel(reads=10)

        response = post(admin, OPTIMISE)

        plan = response.json()
        assert (response.status_code, plan["state"], plan["kind"]) == (201, "PLANNED", "optimise")
        assert response["Location"] == f"{PLANS}/{plan['id']}"
        (move,) = plan["moves"]
        assert (move["kernel"], move["from"], move["to"]) == (str(row.pk), "warm", "hot")
        assert "decayed reads" in move["reason"]
        assert (plan["facts"]["bytes_after"]["hot"], plan["result"]) == (row.size, None)
        assert plan["expires_at"] > plan["created_at"]
        assert tier_of(row) == StorageTier.WARM
        assert admin.get(response["Location"]).json() == plan

    @pytest.mark.parametrize(
        "said", ["", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    )
    def test_an_empty_body_only_plans_whatever_it_is_said_to_be(self, admin: Caller, said: str) -> None:
        kernel(reads=10)

        response = admin.generic("POST", OPTIMISE, b"", content_type=said)

        assert (response.status_code, response.json()["state"]) == (201, "PLANNED")

    def test_a_plan_is_carried_out_by_its_id(self, admin: Caller) -> None:
        row = kernel(reads=10)
        plan = post(admin, OPTIMISE, {"dry_run": True}).json()

        response = post(admin, OPTIMISE, {"plan": plan["id"]})

        operation = response.json()
        assert (response.status_code, operation["state"], operation["kind"]) == (202, "pending", "cache.optimise")
        assert response["Location"] == f"{OPERATIONS}/{plan['id']}"
        assert operation["subject"] == f"{PLANS}/{plan['id']}"
        services.carry_out_cache_plan(plan=CachePlan.objects.get(), actor=SYSTEM)
        assert tier_of(row) == StorageTier.HOT
        again = post(admin, OPTIMISE, {"plan": plan["id"]})
        assert (again.status_code, again.json()["state"]) == (200, "succeeded")

    def test_without_a_dry_run_it_plans_and_begins_at_once(self, admin: Caller) -> None:
        kernel(reads=10)

        response = post(admin, OPTIMISE, {"dry_run": False, "reason": "monthly"})

        assert (response.status_code, response.json()["progress"]) == (202, {"done": 0, "total": 1})
        assert CachePlan.objects.get().state == "APPLYING"

    def test_the_same_key_again_is_the_same_plan(self, admin: Caller) -> None:
        kernel(reads=10)

        first, again = (post(admin, OPTIMISE, {"dry_run": False}, **{"Idempotency-Key": "k1"}) for _ in range(2))

        assert (first.status_code, first.json(), first["Location"]) == (202, again.json(), again["Location"])
        assert CachePlan.objects.count() == 1

    def test_to_warm_is_planned_by_its_kind(self, admin: Caller) -> None:
        row = kernel(reads=3)

        plan = post(admin, OPTIMISE, {"kind": "warm"}).json()

        assert {(move["name"], move["from"], move["to"]) for move in plan["moves"]} == {(row.name, "l3", "l2")}

    def test_to_warm_an_l2_that_is_away_is_503_and_writes_nothing(self, admin: Caller, silent_l2: None) -> None:
        kernel(reads=3)

        assert_problem(post(admin, OPTIMISE, {"kind": "warm"}), 503, "l2_away")
        assert not CachePlan.objects.exists()

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"plan": str(new_id())}, "/plan"),
            ({"plan": "newest"}, "/plan"),
            ({"plan": str(new_id()), "dry_run": True}, "/dry_run"),
            ({"plan": str(new_id()), "kind": "warm"}, "/kind"),
            ({"kind": "freeze"}, "/kind"),
            ({"dry_run": "no"}, "/dry_run"),
            ({"moves": []}, "/moves"),
        ],
    )
    def test_what_cannot_be_done_is_named_and_writes_nothing(
        self, admin: Caller, body: dict[str, Any], pointer: str
    ) -> None:
        assert_problem(post(admin, OPTIMISE, body), 400, "", pointer)
        assert not CachePlan.objects.exists()

    def test_a_viewer_reads_plans_and_makes_none(self, caller: Callable[..., Caller]) -> None:
        plan = planned()
        viewer = caller("viewer")

        assert [viewer.get(path).status_code for path in (STATS, PLANS, f"{PLANS}/{plan.pk}")] == [200] * 3
        writes = (OPTIMISE, f"{PLANS}/{plan.pk}/apply", f"{PLANS}/{plan.pk}/cancel")
        assert [post(viewer, path).status_code for path in writes] == [403] * 3


class TestPlans:
    def test_they_are_listed_by_kind_and_state_without_their_moves(self, admin: Caller) -> None:
        waiting, over = planned(moves=2), carried_out()
        warming = services.plan_cache(kind="warm", actor=SYSTEM)

        def listed(**filters: Any) -> list[str]:
            return [row["id"] for row in admin.get(PLANS, filters).json()["results"]]

        assert listed() == [str(plan.pk) for plan in (warming, over, waiting)]
        assert listed(kind="warm") == [str(warming.pk)]
        assert listed(state=["APPLIED"]) == [str(over.pk)]
        row = admin.get(PLANS).json()["results"][-1]
        assert (row["move_count"], "moves" in row) == (2, False)

    def test_a_filter_that_is_none_of_the_choices_is_refused_with_them(self, admin: Caller) -> None:
        problem = assert_problem(admin.get(PLANS, {"kind": "cool"}), 400, "invalid", "/kind")

        assert problem["errors"][0]["detail"].endswith(": must be one of optimise, warm")

    def test_one_that_has_not_changed_is_304(self, admin: Caller) -> None:
        path = f"{PLANS}/{planned().pk}"
        etag = admin.get(path)["ETag"]

        assert admin.get(path, headers={"If-None-Match": etag}).status_code == 304

    def test_its_progress_changes_its_etag(self, admin: Caller) -> None:
        plan = applying(moves=2)
        path = f"{PLANS}/{plan.pk}"
        etag = admin.get(path)["ETag"]
        CachePlan.objects.filter(pk=plan.pk).update(done=1)

        assert admin.get(path, headers={"If-None-Match": etag}).status_code == 200

    def test_it_is_applied_and_its_operation_answered(self, admin: Caller) -> None:
        plan = planned()

        response = post(admin, f"{PLANS}/{plan.pk}/apply", {"reason": "quiet hour"})

        assert (response.status_code, response["Location"]) == (202, address_of(plan))

    def test_one_that_has_expired_is_409(self, admin: Caller) -> None:
        plan = planned()
        expire(plan)

        assert_problem(post(admin, f"{PLANS}/{plan.pk}/apply"), 409, "expired")

    def test_it_is_given_up_once_and_not_when_it_is_over(self, admin: Caller) -> None:
        plan, over = planned(), carried_out()

        answers = [post(admin, f"{PLANS}/{plan.pk}/cancel", {"reason": "no"}) for _ in range(2)]

        assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "CANCELLED")] * 2
        assert_problem(post(admin, f"{PLANS}/{over.pk}/cancel"), 409, "invalid_transition")

    def test_one_that_is_not_there_is_404(self, admin: Caller) -> None:
        path = f"{PLANS}/{new_id()}"

        assert_problem(admin.get(path), 404)
        assert_problem(post(admin, f"{path}/apply"), 404)


class TestOperations:
    def test_its_states_are_those_of_the_work(self, admin: Caller) -> None:
        plan = applying(moves=2)
        seen = []

        def look(*progress: int) -> None:
            answer = admin.get(address_of(plan))
            seen.append((answer.json()["state"], answer.json()["progress"]["done"], answer.headers.get("Retry-After")))

        look()
        services.carry_out_cache_plan(plan=plan, actor=SYSTEM, progress=look)
        look()

        assert seen == [("pending", 0, "1"), ("running", 1, "1"), ("running", 2, "1"), ("succeeded", 2, None)]
        result = admin.get(address_of(plan)).json()["result"]
        assert (result["moved"], result["left"]) == (2, [])

    def test_one_that_failed_has_its_problem(self, admin: Caller) -> None:
        plan = services.fail_cache_plan(plan=applying(), problem="out of room", actor=SYSTEM)

        answer = admin.get(address_of(plan)).json()

        assert (answer["state"], answer["problem"], answer["result"]) == ("failed", "out of room", None)

    def test_who_polls_gets_304_until_it_moves_on(self, admin: Caller) -> None:
        plan = applying(moves=2)
        first = admin.get(address_of(plan))
        known = {"If-None-Match": first["ETag"]}

        still = admin.get(address_of(plan), headers=known)
        CachePlan.objects.filter(pk=plan.pk).update(done=1)
        moved_on = admin.get(address_of(plan), headers=known)

        assert (still.status_code, still["Retry-After"], moved_on.status_code) == (304, "1", 200)

    def test_it_is_cancelled_and_what_was_done_stays_done(self, admin: Caller) -> None:
        plan = applying(moves=2)

        ended = services.carry_out_cache_plan(
            plan=plan, actor=SYSTEM, progress=lambda *_: admin.delete(address_of(plan))
        )
        again = admin.delete(address_of(plan))

        assert (ended.state, again.status_code, again.json()["state"]) == ("CANCELLED", 200, "cancelled")
        assert Kernel.objects.filter(storage_tier=StorageTier.HOT).count() == 1

    def test_one_that_is_over_cannot_be_cancelled(self, admin: Caller) -> None:
        assert_problem(admin.delete(address_of(carried_out())), 409, "invalid_transition")

    def test_a_plan_that_nobody_applied_is_none(self, admin: Caller) -> None:
        assert_problem(admin.get(address_of(planned())), 404)
        assert_problem(admin.delete(f"{OPERATIONS}/{new_id()}"), 404)

    def test_it_takes_the_scopes_of_what_it_is_about(self, caller: Callable[..., Caller]) -> None:
        address = address_of(applying())
        viewer, stranger = caller("viewer"), caller("admin", scopes=["audit:read"])

        assert [viewer.get(address).status_code, viewer.delete(address).status_code] == [200, 403]
        assert "library:write" in assert_problem(viewer.delete(address), 403)["detail"]
        assert "library:read" in assert_problem(stranger.get(address), 403)["detail"]
        assert_problem(Caller().get(address), 401)

    def test_another_app_brings_operations_and_scopes_of_its_own(
        self, caller: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        address = address_of(applying())
        monkeypatch.setitem(registry.operations, "restores", Restores())

        def answer(address: str, scope: str) -> tuple[int, str]:
            response = caller("admin", scopes=[scope]).get(address)
            return response.status_code, response.json().get("kind", "")

        assert answer(f"{OPERATIONS}/{Restores.ID}", "runs:read") == (200, "checkpoint.restore")
        assert answer(f"{OPERATIONS}/{Restores.ID}", "library:read") == (403, "")
        assert answer(address, "library:read") == (200, "cache.optimise")
        stopped = caller("admin", scopes=["runs:write"]).delete(f"{OPERATIONS}/{Restores.ID}")
        assert_problem(stopped, 409, "conflict")


class Restores:
    """Operations of an app that is not about kernels."""

    ID = new_id()
    read_scope = "runs:read"
    write_scope = "runs:write"

    def find(self, id: UUID) -> Operation | None:
        now = timezone.now()
        return (
            None
            if id != self.ID
            else Operation(
                id=id,
                kind="checkpoint.restore",
                state=OperationState.RUNNING,
                done=1,
                total=2,
                subject="/api/v1/runs",
                created_at=now,
                updated_at=now,
            )
        )

    def cancel(self, id: UUID, *, actor: Actor) -> Operation:
        raise Conflict("it cannot be stopped")
