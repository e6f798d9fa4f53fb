"""Retirement in the browser: policies in words, plans that are looked at, and steps that say what they will do."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.dashboards.selectors import retention
from apps.kernels import services
from apps.kernels.lifecycle import KernelState, PlanState
from apps.kernels.models import Kernel, RetentionItem, RetentionPlan, RetentionPolicy
from tests.support import tables
from tests.support.factories import KernelFactory
from tests.support.run_rows import make_user

pytestmark = pytest.mark.django_db


def logged_in(role: str) -> Client:
    client = Client()
    client.force_login(make_user(f"a-{role}", role=role))
    return client


@pytest.fixture
def client() -> Client:
    return logged_in("curator")


def make_policy(**settings: Any) -> RetentionPolicy:
    return services.create_policy(
        **{"name": "unused", "unused_for_days": 30, "max_share": 1.0, "actor": SYSTEM, **settings}
    )


def old_kernel(**values: Any) -> Kernel:
    kernel: Kernel = KernelFactory(state=KernelState.VALIDATED, **values)
    Kernel.objects.filter(pk=kernel.pk).update(created_at=timezone.now() - timedelta(days=60))
    return kernel


def make_plan(count: int = 1, **settings: Any) -> RetentionPlan:
    for _ in range(count):
        old_kernel()
    return services.make_plan(policy=make_policy(**settings), actor=SYSTEM)


def approved_plan() -> RetentionPlan:
    return services.approve_plan(plan=make_plan(), reason="seen", actor=SYSTEM)


def test_without_a_policy_the_page_teaches_how_to_make_one(client: Client) -> None:
    assert "POST /api/v1/retention/policies" in client.get("/library/retirement").content.decode()


def test_a_policy_reads_as_a_sentence(client: Client) -> None:
    make_policy(metric="gain_mean", metric_below=0.5, keep_best=3, max_bytes=2048, match="risk > 0.5")

    page = client.get("/library/retirement").content.decode()

    assert "unused for 30 days, and gain_mean below 0.5, and not among the best 3 by gain_mean" in page
    assert "at most 100\xa0% of the kernels in use a plan; at most 2.0\xa0KiB a plan; none younger than 7 days" in page
    assert "risk &gt; 0.5" in page


def test_only_a_plan_that_waits_expires(client: Client) -> None:
    services.discard_plan(plan=make_plan(), reason="not now", actor=SYSTEM)

    page = client.get("/library/retirement").content.decode()

    assert '<td role="cell" data-label="Expires" class="right nowrap muted">—</td>' in page


def test_a_plan_is_made_and_leads_to_its_review(client: Client) -> None:
    kernel, policy = old_kernel(), make_policy()

    response = client.post(f"/library/retirement/policies/{policy.pk}/plan", {"reason": "monthly"})

    plan = RetentionPlan.objects.get()
    assert response["Location"] == f"/library/retirement/plans/{plan.pk}"
    assert kernel.name in client.get(response["Location"]).content.decode()


def test_a_review_says_what_is_kept_and_why(client: Client) -> None:
    kept = old_kernel()
    Kernel.objects.filter(pk=kept.pk).update(legal_hold=True)
    plan = make_plan()

    page = client.get(f"/library/retirement/plans/{plan.pk}").content.decode()

    assert '<dt class="right">1</dt><dd>under legal hold</dd>' in page
    assert "last used" in page or "made 2" in page


def test_every_guard_and_protection_has_its_words() -> None:
    assert retention.kept_for("alias_unread") == "whether alias protects them could not be read"
    assert retention.kept_for("live_run") == "held by a run"


@pytest.mark.parametrize("step", ["approve", "discard"])
def test_a_step_without_a_reason_is_not_taken(client: Client, step: str) -> None:
    plan = make_plan()

    response = client.post(f"/library/retirement/plans/{plan.pk}/{step}", {"reason": "  "})

    assert response.status_code == 422
    assert 'aria-invalid="true"' in response.content.decode()
    plan.refresh_from_db()
    assert plan.state == PlanState.PLANNED


def test_a_plan_is_approved_then_applied(client: Client) -> None:
    plan = make_plan(count=2)

    client.post(f"/library/retirement/plans/{plan.pk}/approve", {"reason": "seen"})
    client.post(f"/library/retirement/plans/{plan.pk}/apply")

    plan.refresh_from_db()
    assert (plan.state, plan.outcome) == (PlanState.APPLIED, {"retired": 2})


def test_a_plan_is_discarded_with_a_reason(client: Client) -> None:
    plan = make_plan()

    client.post(f"/library/retirement/plans/{plan.pk}/discard", {"reason": "too much"})

    plan.refresh_from_db()
    assert plan.state == PlanState.DISCARDED


def test_the_preview_of_applying_finds_out_what_would_happen_now_and_changes_nothing(client: Client) -> None:
    plan = approved_plan()
    held = old_kernel()
    RetentionItem.objects.create(plan=plan, kernel=held, row_version=1, reason="planted", bytes=1)
    Kernel.objects.filter(pk=held.pk).update(legal_hold=True)
    before = tables.beside_the_trail()

    page = client.get(f"/library/retirement/plans/{plan.pk}/apply").content.decode()

    assert "1 kernel is retired" in page
    assert "1 stays: something protects it now" in page
    assert tables.beside_the_trail() == before


def test_a_step_that_is_refused_says_why(client: Client) -> None:
    plan = make_plan()

    response = client.post(f"/library/retirement/plans/{plan.pk}/apply")

    assert response.status_code == 409
    assert "only an APPROVED one is applied" in response.content.decode()


def test_an_expired_plan_can_only_be_discarded(client: Client) -> None:
    plan = make_plan()
    RetentionPlan.objects.filter(pk=plan.pk).update(expires_at=timezone.now())

    page = client.get(f"/library/retirement/plans/{plan.pk}").content.decode()

    assert "It has expired" in page
    assert "plan-approve" not in page
    assert "plan-discard" in page


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_who_may_not_write_the_library_sees_a_plan_and_no_buttons(role: str) -> None:
    plan, client = make_plan(), logged_in(role)

    page = client.get(f"/library/retirement/plans/{plan.pk}")

    assert page.status_code == 200
    assert "plan-approve" not in page.content.decode()
    for path in (f"plans/{plan.pk}/approve", f"plans/{plan.pk}/apply", f"policies/{plan.policy_id}/plan"):
        assert client.post(f"/library/retirement/{path}", {"reason": "x"}).status_code == 403


def test_the_items_of_a_large_plan_are_paged_without_loss(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ITEMS_SHOWN", 2)
    plan = make_plan(count=5)

    seen, after = [], None
    while True:
        portrait = retention.plan_portrait(plan.pk, after=after)
        assert portrait is not None
        seen += [item.kernel_id for item in portrait.items]
        after = portrait.next_after
        if after is None:
            break

    assert sorted(seen) == sorted(Kernel.objects.values_list("pk", flat=True))


def test_the_pages_of_retirement_ask_equally_often_for_many_rows(client: Client) -> None:
    def asked(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            client.get(path)
        return len(captured)

    small, large = make_plan(), make_plan(count=6, name="other")
    few = asked("/library/retirement")
    for number in range(4):
        services.make_plan(policy=make_policy(name=f"more-{number}"), actor=SYSTEM)

    assert asked("/library/retirement") == few <= 6
    paths = [f"/library/retirement/plans/{plan.pk}" for plan in (small, large)]
    assert len({asked(path) for path in paths}) == 1


def test_a_kernel_says_what_keeps_it_and_what_condemns_it(client: Client) -> None:
    kernel = old_kernel()
    make_policy()
    fresh = KernelFactory(state=KernelState.VALIDATED)

    said = client.get(f"/library/kernels/{kernel.pk}/retention").content.decode()
    spared = client.get(f"/library/kernels/{fresh.pk}/retention", headers={"HX-Request": "true"}).content.decode()

    assert "Would retire it now." in said
    assert "<strong>condemned</strong>: made" in said
    assert "<strong>spared</strong>: made" in spared
    assert "<html" not in spared


def test_a_policy_that_cannot_be_read_condemns_nothing_and_says_so(client: Client) -> None:
    kernel, policy = old_kernel(), make_policy()
    RetentionPolicy.objects.filter(pk=policy.pk).update(match="no such thing")

    page = client.get(f"/library/kernels/{kernel.pk}/retention").content.decode()

    assert "Condemns nothing: position 1" in page
    assert client.post(f"/library/retirement/policies/{policy.pk}/plan").status_code == 409


def test_a_plan_that_a_worker_goes_on_with_says_so(client: Client) -> None:
    plan = make_plan(count=2)
    services.approve_plan(plan=plan, reason="seen", actor=SYSTEM)
    services.apply_plan(plan=plan, actor=SYSTEM, most=1)

    assert "1 of them are still to be looked at" in client.get(f"/library/retirement/plans/{plan.pk}").content.decode()


def test_what_does_not_exist_is_not_found(client: Client) -> None:
    nothing = "01a20a70-2988-776d-9050-9998b8fb74a9"

    for path in (f"plans/{nothing}", f"plans/{nothing}/apply", f"policies/{nothing}/plan"):
        assert client.get(f"/library/retirement/{path}").status_code == 404
    assert client.get(f"/library/kernels/{nothing}/retention").status_code == 404
