"""Plans of the cache: made, carried out move by move, given up; by two workers at once, and again after a crash."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.db import OperationalError, connection
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM, WORKER
from apps.core.errors import Conflict, InvalidTransition, Unavailable
from apps.kernels import services, tasks
from apps.kernels.cache import mover
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import CachePlanState
from apps.kernels.models import CachePlan, CachePlanKind, Kernel, KernelBlob, KernelUse, StorageTier
from tests.support.caching import applying, carried_out, expire, kernel, planned, tier_of
from tests.support.factories import RunFactory
from tests.support.objects import object_storage
from tests.support.programs import RunningProgram
from tests.support.waiting import wait_until

__all__ = ["object_storage"]

HOT, WARM, COLD = StorageTier.HOT, StorageTier.WARM, StorageTier.COLD


class Killed(BaseException):
    """What ends a worker in the middle of a plan."""


def killed_after(moves: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == moves:
            raise Killed

    return progress


def broken(*args: Any, **kwargs: Any) -> None:
    raise ZeroDivisionError("division by zero")


def refused(*args: Any, **kwargs: Any) -> None:
    raise Unavailable("the object storage does not answer", code="storage")


def silent(*args: Any, **kwargs: Any) -> None:
    raise OperationalError("the connection is closed")


def state_of(plan: CachePlan) -> str:
    return CachePlan.objects.values_list("state", flat=True).get(pk=plan.pk)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was queued, in place of a broker."""
    sent: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(current_app, "send_task", lambda task, args, **kwargs: sent.append((task, args)))
    return sent


@pytest.mark.django_db
class TestPlanning:
    def test_a_plan_names_each_move_with_its_reason_and_moves_nothing(self) -> None:
        often, seldom, other = kernel(reads=10), kernel(reads=1, tier=HOT), kernel(reads=1)

        plan = services.plan_cache(kind=CachePlanKind.OPTIMISE, actor=SYSTEM, reason="monthly")

        moves = {move["name"]: (move["from"], move["to"], move["reason"]) for move in plan.moves}
        assert moves == {
            often.name: ("warm", "hot", "10.0 decayed reads: at least 4"),
            seldom.name: ("hot", "warm", "1.0 decayed reads: below 2"),
        }
        assert [tier_of(row) for row in (often, seldom, other)] == [WARM, HOT, WARM]
        assert plan.facts["bytes_after"]["hot"] == often.size
        event = AuditEvent.objects.get(type="cache.planned")
        assert (event.subject_id, event.reason) == (str(plan.pk), "monthly")

    def test_what_a_live_run_holds_is_not_moved_away(self) -> None:
        held = kernel(tier=HOT)
        KernelUse.objects.create(kernel=held, run_id=RunFactory().pk)

        plan = services.plan_cache(kind=CachePlanKind.OPTIMISE, actor=SYSTEM)

        assert (plan.moves, plan.facts["held"]) == ([], 1)

    def test_to_warm_names_what_l2_lacks(self) -> None:
        lacking, there = kernel(reads=3), kernel(reads=5)
        services.carry_out_cache_plan(plan=apply(planned_to_warm(only=there)), actor=SYSTEM)

        plan = services.plan_cache(kind=CachePlanKind.WARM, actor=SYSTEM)

        assert [(move["name"], move["from"], move["to"]) for move in plan.moves] == [(lacking.name, "l3", "l2")]

    def test_to_warm_needs_an_l2_that_answers(self, settings: Any) -> None:
        kernel(reads=3)
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": "redis://127.0.0.1:1/0"}

        with pytest.raises(Unavailable, match="L2 does not answer"):
            services.plan_cache(kind=CachePlanKind.WARM, actor=SYSTEM)
        assert not CachePlan.objects.exists()


def planned_to_warm(*, only: Any) -> CachePlan:
    plan = services.plan_cache(kind=CachePlanKind.WARM, actor=SYSTEM)
    plan.moves = [move for move in plan.moves if move["kernel"] == str(only.pk)]
    CachePlan.objects.filter(pk=plan.pk).update(moves=plan.moves)
    return plan


def apply(plan: CachePlan) -> CachePlan:
    return services.apply_cache_plan(plan=plan, actor=SYSTEM)


@pytest.mark.django_db
class TestApplying:
    def test_a_worker_is_called_once_it_is_committed_and_once_only(
        self, queued: list[Any], django_capture_on_commit_callbacks: Any
    ) -> None:
        plan = planned()

        with django_capture_on_commit_callbacks(execute=True):
            first, again = apply(plan), apply(plan)

        assert (first.state, again.state) == (CachePlanState.APPLYING, CachePlanState.APPLYING)
        assert queued.count((services.CARRY_OUT_TASK, [str(plan.pk)])) == 1
        assert AuditEvent.objects.filter(type="cache.applying").count() == 1

    def test_one_that_was_carried_out_is_answered_again(self) -> None:
        plan = carried_out()

        assert apply(plan).state == CachePlanState.APPLIED

    def test_one_that_has_expired_is_refused_and_stays(self) -> None:
        plan = planned()
        expire(plan)

        with pytest.raises(Conflict, match="make a new one"):
            apply(plan)
        assert state_of(plan) == CachePlanState.PLANNED

    def test_one_that_was_given_up_is_refused(self) -> None:
        plan = planned()
        services.cancel_cache_plan(plan=plan, actor=SYSTEM)

        with pytest.raises(InvalidTransition):
            apply(plan)


@pytest.mark.django_db
class TestCarryingOut:
    def test_every_move_is_made_and_told(self) -> None:
        rows = [kernel(reads=10), kernel(tier=HOT)]
        seen: list[tuple[int, int]] = []

        plan = services.carry_out_cache_plan(
            plan=apply(planned(moves=0)), actor=WORKER, progress=lambda done, total: seen.append((done, total))
        )

        assert [tier_of(row) for row in rows] == [HOT, WARM]
        assert (plan.state, plan.done) == (CachePlanState.APPLIED, 2)
        assert plan.result == {"moved": 2, "bytes": sum(row.size or 0 for row in rows), "left": []}
        assert seen == [(1, 2), (2, 2)]
        assert AuditEvent.objects.get(type="cache.applied").actor_kind == "worker"

    def test_bytes_that_are_to_go_to_the_object_storage_go_there(self, object_storage: Any) -> None:
        forgotten = kernel()
        Kernel.objects.filter(pk=forgotten.pk).update(created_at=timezone.now() - timedelta(days=100))

        services.carry_out_cache_plan(plan=apply(planned(moves=0)), actor=WORKER)

        assert tier_of(forgotten) == COLD
        assert list(object_storage.rglob(f"*{forgotten.digest}*"))

    def test_what_has_changed_since_is_left_and_says_why(self) -> None:
        gone, moved, row = kernel(reads=10), kernel(reads=10), kernel(reads=10)
        plan = apply(planned(moves=0))
        Kernel.objects.filter(pk=gone.pk).update(digest="0" * 64)
        Kernel.objects.filter(pk=moved.pk).update(storage_tier=COLD)

        result = services.carry_out_cache_plan(plan=plan, actor=WORKER).result

        assert {left["name"]: left["reason"] for left in result["left"]} == {
            gone.name: "it has changed since",
            moved.name: "it is cold now",
        }
        assert (result["moved"], tier_of(row)) == (1, HOT)

    def test_warming_brings_the_bytes_into_l2(self) -> None:
        row = kernel(reads=3)
        redis = tiers().redis
        assert redis is not None
        assert not redis.has(row.digest or "")

        plan = services.carry_out_cache_plan(plan=apply(planned_to_warm(only=row)), actor=WORKER)

        assert plan.result == {"moved": 1, "bytes": row.size, "left": []}
        assert redis.has(row.digest or "")

    def test_bytes_that_left_the_database_meanwhile_are_told_as_left(self) -> None:
        row = kernel(reads=3)
        plan = apply(planned_to_warm(only=row))
        KernelBlob.objects.filter(pk=row.digest).update(in_database=False, archived_at=timezone.now())

        result = services.carry_out_cache_plan(plan=plan, actor=WORKER).result

        assert (result["moved"], result["bytes"], [left["name"] for left in result["left"]]) == (0, 0, [row.name])

    def test_one_that_is_given_up_meanwhile_stops_and_keeps_what_it_moved(self) -> None:
        plan = applying(moves=2)

        def give_up(done: int, total: int) -> None:
            services.cancel_cache_plan(plan=plan, actor=SYSTEM, reason="wrong day")

        ended = services.carry_out_cache_plan(plan=plan, actor=WORKER, progress=give_up)

        assert (ended.state, ended.done) == (CachePlanState.CANCELLED, 1)
        assert sorted(tier_of_each(plan)) == [HOT, WARM]

    def test_a_worker_that_died_is_followed_by_one_that_finishes(self) -> None:
        plan = applying(moves=3)

        with pytest.raises(Killed):
            services.carry_out_cache_plan(plan=plan, actor=WORKER, progress=killed_after(2))
        assert (state_of(plan), tier_of_each(plan).count(HOT)) == (CachePlanState.APPLYING, 2)
        shown: list[int] = []
        ended = services.carry_out_cache_plan(
            plan=plan, actor=WORKER, progress=lambda *_: shown.append(CachePlan.objects.get(pk=plan.pk).done)
        )

        assert (ended.state, ended.result["moved"], ended.result["left"]) == (CachePlanState.APPLIED, 3, [])
        assert (tier_of_each(plan), shown) == ([HOT] * 3, [2, 2, 3])  # what is shown never goes back

    def test_one_that_failed_says_why(self) -> None:
        plan = services.fail_cache_plan(plan=applying(), problem="out of room", actor=WORKER)

        assert (plan.state, plan.problem) == (CachePlanState.FAILED, "out of room")


def tier_of_each(plan: CachePlan) -> list[str]:
    kernels = Kernel.objects.filter(pk__in=[move["kernel"] for move in plan.moves])
    return list(kernels.order_by("name").values_list("storage_tier", flat=True))


@pytest.mark.django_db
class TestCancelling:
    def test_twice_is_once(self) -> None:
        plan = planned()

        for _ in range(2):
            plan = services.cancel_cache_plan(plan=plan, actor=SYSTEM, reason="no")

        assert plan.state == CachePlanState.CANCELLED
        assert AuditEvent.objects.filter(type="cache.cancelled").count() == 1

    def test_one_that_is_over_cannot_be_given_up(self) -> None:
        with pytest.raises(InvalidTransition):
            services.cancel_cache_plan(plan=carried_out(), actor=SYSTEM)


@pytest.mark.django_db
class TestTasks:
    def test_a_plan_whose_worker_died_is_queued_again(self, queued: list[Any]) -> None:
        stuck, fresh = applying(), applying()
        CachePlan.objects.filter(pk=stuck.pk).update(updated_at=timezone.now() - timedelta(hours=1))

        tasks.continue_cache_plans()

        assert queued == [(services.CARRY_OUT_TASK, [str(stuck.pk)])]
        assert state_of(fresh) == CachePlanState.APPLYING

    def test_a_message_that_comes_twice_does_nothing_the_second_time(self) -> None:
        plan = applying()

        tasks.carry_out_cache_plan(str(plan.pk))
        tasks.carry_out_cache_plan(str(plan.pk))

        assert state_of(plan) == CachePlanState.APPLIED
        assert AuditEvent.objects.filter(type="cache.applied").count() == 1

    def test_a_plan_that_stumbles_over_a_mistake_of_ours_fails_and_says_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = applying()
        monkeypatch.setattr(mover, "move", broken)

        with pytest.raises(ZeroDivisionError):
            tasks.carry_out_cache_plan(str(plan.pk))

        plan.refresh_from_db()
        assert (plan.state, plan.problem) == (CachePlanState.FAILED, "ZeroDivisionError: division by zero")

    def test_a_database_that_breaks_off_leaves_the_plan_for_the_next_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = applying()
        monkeypatch.setattr(mover, "move", silent)

        with pytest.raises(OperationalError):
            tasks.carry_out_cache_plan(str(plan.pk))

        assert state_of(plan) == CachePlanState.APPLYING

    def test_the_schedule_plans_only_where_there_is_something_to_move(self, queued: list[Any]) -> None:
        tasks.rebalance_cache()
        assert not CachePlan.objects.exists()

        kernel(reads=10)
        tasks.rebalance_cache()
        tasks.rebalance_cache()  # one is under way

        assert [plan.state for plan in CachePlan.objects.all()] == [CachePlanState.APPLYING]

    def test_after_a_plan_of_which_nothing_could_be_moved_the_schedule_waits_an_hour(
        self, queued: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kernel(reads=10)
        with monkeypatch.context() as patched:
            patched.setattr(mover, "move", refused)
            tasks.rebalance_cache()
            tasks.carry_out_cache_plan(str(CachePlan.objects.get().pk))

        tasks.rebalance_cache()
        assert CachePlan.objects.count() == 1

        CachePlan.objects.update(updated_at=timezone.now() - tasks.FUTILE_PAUSE)
        tasks.rebalance_cache()
        assert CachePlan.objects.count() == 2


def test_two_workers_at_once_are_one(committed_db: str) -> None:
    plan = applying(moves=2)
    refused: list[Exception] = []

    def carry_out_too() -> None:
        try:
            services.carry_out_cache_plan(plan=plan, actor=WORKER)
        except Conflict as error:
            refused.append(error)
        finally:
            connection.close()

    def meanwhile(done: int, total: int) -> None:
        other = threading.Thread(target=carry_out_too)
        other.start()
        other.join()

    ended = services.carry_out_cache_plan(plan=plan, actor=WORKER, progress=meanwhile)

    assert [getattr(error, "code", "") for error in refused] == ["being_applied"] * 2
    assert (ended.state, ended.result["moved"]) == (CachePlanState.APPLIED, 2)
    assert AuditEvent.objects.filter(type="cache.applied").count() == 1


def test_a_real_worker_carries_a_plan_out(committed_db: str, worker: Callable[..., RunningProgram]) -> None:
    worker("default")
    row = kernel(reads=10)

    # On a busy machine L2 may not have said in time how much room it has: nothing becomes hot then.
    wait_until(lambda: planned(moves=0).moves, seconds=30)
    plan = apply(CachePlan.objects.latest("pk"))

    wait_until(lambda: state_of(plan) == CachePlanState.APPLIED, seconds=30)
    assert tier_of(row) == HOT
