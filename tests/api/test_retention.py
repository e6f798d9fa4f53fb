"""`/retention` and what retires, restores, moves and explains a kernel over HTTP."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.kernels import services
from apps.kernels.lifecycle import KernelState, PlanState
from apps.kernels.models import Kernel, RetentionPlan, RetentionPolicy
from apps.kernels.services import retention
from tests.api.conftest import Caller
from tests.support.factories import KernelFactory
from tests.support.objects import object_storage
from tests.support.retention import approved_plan, kernel, policy

__all__ = ["object_storage"]

pytestmark = pytest.mark.django_db

POLICIES, PLANS = "/api/v1/retention/policies", "/api/v1/retention/plans"


def pointers(response: Any) -> set[str]:
    return {error["pointer"] for error in response.json()["errors"]}


def test_the_way_from_a_policy_to_a_retired_kernel_and_back(admin: Caller) -> None:
    row = kernel()
    made = admin.post(POLICIES, {"name": "old", "unused_for_days": 90, "max_share": 1}, format="json")
    plan = admin.post(PLANS, {"policy": made.json()["id"]}, format="json")
    assert (plan.status_code, plan.json()["item_count"], plan.json()["state"]) == (201, 1, "PLANNED")
    address = plan["Location"]

    (item,) = admin.get(f"{address}/items").json()["results"]
    assert (item["kernel_id"], item["outcome"]) == (str(row.pk), "")
    assert admin.post(f"{address}/approve", {"reason": "looked at"}, format="json").json()["state"] == "APPROVED"
    applied = admin.post(f"{address}/apply", format="json")
    assert (applied.status_code, applied.json()["outcome"]) == (200, {"retired": 1})

    restored = admin.post(f"/api/v1/kernels/{row.pk}/restore", {"reason": "missed"}, format="json")
    assert (restored.status_code, restored.json()["state"]) == (200, "VALIDATED")


def test_a_policy_sent_twice_with_one_key_is_made_once(admin: Caller) -> None:
    body = {"name": "old", "unused_for_days": 90}
    answers = [admin.post(POLICIES, body, format="json", headers={"Idempotency-Key": "k1"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert RetentionPolicy.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "old"}, "/unused_for_days"),
        ({"name": "Old!", "unused_for_days": 1}, "/name"),
        ({"unused_for_days": 1}, "/name"),
        ({"name": "old", "unused_for_days": "90"}, "/unused_for_days"),
        ({"name": "old", "unused_for_days": 10**9}, "/unused_for_days"),
        ({"name": "old", "metric": "gain", "metric_below": 1e301}, "/metric_below"),
        ({"name": "old", "metric": "gain", "metric_below": 10**400}, "/metric_below"),
        ({"name": "old", "metric_below": 1}, "/metric"),
        ({"name": "old", "unused_for_days": 1, "match": "tags.arch ="}, "/match"),
        ({"name": "old", "unused_for_days": 1, "match": f"descends_from('{new_id()}')"}, "/match"),
        ({"name": "old", "unused_for_days": 1, "max_share": 2}, "/max_share"),
        ({"name": "old", "unused_for_days": 1, "state": "x"}, "/state"),
    ],
)
def test_a_bad_policy_names_its_field_and_writes_nothing(admin: Caller, body: dict[str, Any], pointer: str) -> None:
    response = admin.post(POLICIES, body, format="json")

    assert (response.status_code, pointers(response)) == (400, {pointer})
    assert not RetentionPolicy.objects.exists()


def test_a_name_that_is_taken_is_refused(admin: Caller) -> None:
    policy(name="old")
    response = admin.post(POLICIES, {"name": "old", "unused_for_days": 1}, format="json")

    assert (response.status_code, response.json()["code"], pointers(response)) == (409, "duplicate", {"/name"})


def test_a_policy_is_changed_by_whoever_has_seen_it(admin: Caller) -> None:
    address = f"{POLICIES}/{policy().pk}"
    etag = admin.get(address)["ETag"]

    changed = admin.patch(
        address, {"keep_latest": 3, "unused_for_days": None}, format="json", headers={"If-Match": etag}
    )
    assert (changed.json()["keep_latest"], changed.json()["unused_for_days"]) == (3, None)
    late = admin.patch(address, {"keep_latest": 4}, format="json", headers={"If-Match": etag})
    assert late.status_code == 412
    assert admin.patch(address, {"keep_latest": 4}, format="json").status_code == 428


def test_a_plan_of_an_unknown_policy_is_refused_at_its_field(admin: Caller) -> None:
    for reference in (str(new_id()), "none"):
        assert pointers(admin.post(PLANS, {"policy": reference}, format="json")) == {"/policy"}


def test_plans_are_listed_by_state(admin: Caller) -> None:
    plan = approved_plan()
    services.make_plan(policy=plan.policy, actor=SYSTEM)

    (listed,) = admin.get(PLANS, {"state": "APPROVED"}).json()["results"]
    assert listed["id"] == str(plan.pk)


@pytest.mark.parametrize("step", ["approve", "discard"])
def test_a_step_of_a_plan_needs_a_reason(admin: Caller, step: str) -> None:
    plan = services.make_plan(policy=policy(), actor=SYSTEM)

    assert pointers(admin.post(f"{PLANS}/{plan.pk}/{step}", {}, format="json")) == {"/reason"}


def test_a_discarded_plan_is_not_applied(admin: Caller) -> None:
    address = f"{PLANS}/{approved_plan().pk}"
    admin.post(f"{address}/discard", {"reason": "no"}, format="json")

    assert admin.post(f"{address}/apply", format="json").status_code == 409


def test_the_rest_of_a_large_plan_is_left_to_a_worker(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        kernel()
    plan = approved_plan()
    queued: list[tuple[str, ...]] = []
    monkeypatch.setattr(retention, "enqueue_after_commit", lambda *arguments: queued.append(arguments))
    monkeypatch.setattr(retention, "BATCH", 1)
    response = admin.post(f"{PLANS}/{plan.pk}/apply", format="json")

    assert (response.status_code, response.json()["outcome"]) == (202, {"retired": 1})
    assert queued == [(services.APPLY_TASK, str(plan.pk), str(admin.user.pk))]


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("curator", 200)])
def test_plans_are_applied_by_those_who_may_write_the_library(caller: Any, role: str, status: int) -> None:
    plan = approved_plan()

    assert caller(role).post(f"{PLANS}/{plan.pk}/apply", format="json").status_code == status
    assert (RetentionPlan.objects.get().state == PlanState.APPLIED) is (status == 200)


class TestOneKernel:
    def test_is_retired_with_a_reason_and_a_successor(self, admin: Caller) -> None:
        row, better = kernel(), kernel()
        body = {"reason": "slow", "successor": str(better.pk)}
        response = admin.post(f"/api/v1/kernels/{row.pk}/retire", body, format="json")

        row.refresh_from_db()
        assert (response.status_code, row.state, row.successor_id) == (200, KernelState.RETIRED, better.pk)

    @pytest.mark.parametrize(("body", "pointer"), [({}, "/reason"), ({"reason": "x", "successor": "x"}, "/successor")])
    def test_is_not_retired_by_a_bad_request(self, admin: Caller, body: dict[str, Any], pointer: str) -> None:
        assert pointers(admin.post(f"/api/v1/kernels/{kernel().pk}/retire", body, format="json")) == {pointer}

    def test_that_is_protected_is_a_conflict_that_says_by_what(self, admin: Caller) -> None:
        row = kernel()
        Kernel.objects.filter(pk=row.pk).update(legal_hold=True)
        response = admin.post(f"/api/v1/kernels/{row.pk}/retire", {"reason": "old"}, format="json")

        assert (response.status_code, response.json()["code"]) == (409, "protected")
        assert "under legal hold" in response.json()["detail"]

    def test_is_explained(self, admin: Caller) -> None:
        row = kernel()
        Kernel.objects.filter(pk=row.pk).update(legal_hold=True)
        policy(is_enabled=True)
        address = f"/api/v1/kernels/{row.pk}/retention/explain"
        told = admin.get(address)

        (said,) = told.json()["policies"]
        assert (said["policy_name"], said["is_condemned"], said["when"]) == ("old", True, None)
        assert [found["rule"] for found in said["kept_by"]] == ["legal_hold"]
        assert [found["rule"] for found in said["criteria"]] == ["unused_for_days"]
        assert [found["rule"] for found in told.json()["protections"]] == ["legal_hold"]
        assert admin.get(address, headers={"If-None-Match": told["ETag"]}).status_code == 304

    def test_is_explained_although_a_policy_cannot_be_read(self, admin: Caller) -> None:
        RetentionPolicy.objects.filter(pk=policy().pk).update(match="no such (")
        (said,) = admin.get(f"/api/v1/kernels/{kernel().pk}/retention/explain").json()["policies"]

        assert (said["is_condemned"], said["criteria"], bool(said["fault"])) == (False, [], True)

    def test_moves_between_tiers_and_is_downloaded_from_each_but_the_archive(
        self, admin: Caller, object_storage: Any, django_capture_on_commit_callbacks: Any
    ) -> None:
        row = KernelFactory(state=KernelState.VALIDATED, data=b"weights")
        address = f"/api/v1/kernels/{row.pk}"
        found = {}
        for tier in ("cold", "archive", "warm", "hot"):
            with django_capture_on_commit_callbacks(execute=True):
                moved = admin.post(f"{address}/tier", {"tier": tier}, format="json")
            assert moved.json()["storage_tier"] == tier
            download = admin.get(f"{address}/binary")
            found[tier] = b"".join(download) if download.streaming else download.json()["code"]

        assert found == {"cold": b"weights", "archive": "archived", "warm": b"weights", "hot": b"weights"}

    @pytest.mark.parametrize("body", [{}, {"tier": "lukewarm"}, {"tier": 1}])
    def test_is_moved_to_known_tiers_only(self, admin: Caller, body: dict[str, Any]) -> None:
        assert pointers(admin.post(f"/api/v1/kernels/{kernel().pk}/tier", body, format="json")) == {"/tier"}


@pytest.mark.parametrize("path", [f"{POLICIES}/{new_id()}", f"{PLANS}/{new_id()}", f"{PLANS}/{new_id()}/items"])
def test_what_is_not_there_is_not_found(admin: Caller, path: str) -> None:
    assert admin.get(path).status_code == 404
