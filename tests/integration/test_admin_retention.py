"""The admin of retirement: policies and plans, by forms and steps."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import User
from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.lifecycle import KernelState, PlanState
from apps.kernels.models import RetentionPlan, RetentionPolicy
from tests.support.curating import DAY, LIST, YES, curator, kernel_in, messages_of, url_of

__all__ = ["curator"]

pytestmark = pytest.mark.django_db


class TestRetirement:
    def policy(self, **settings: Any) -> RetentionPolicy:
        criteria = {"unused_for_days": 0, "grace_days": 0, "max_share": 1.0, **settings}
        return services.create_policy(name="unused", actor=SYSTEM, **criteria)

    def test_a_policy_without_a_criterion_is_refused_at_its_field(self, client: Client, curator: User) -> None:
        guards = {"max_share": "0.2", "grace_days": "7", "purge_after_days": "30"}

        answer = client.post("/admin/kernels/retentionpolicy/add/", {**guards, "name": "empty", "reason": "try"})

        assert answer.context["adminform"].form.errors["unused_for_days"][0].startswith("set at least one of")
        assert not RetentionPolicy.objects.exists()

    def test_a_match_that_does_not_parse_is_refused_at_its_field(self, client: Client, curator: User) -> None:
        policy = {"max_share": "0.2", "grace_days": "7", "purge_after_days": "30", "unused_for_days": "9"}

        answer = client.post(
            "/admin/kernels/retentionpolicy/add/", {**policy, "name": "odd", "match": "tags.a ==", "reason": "try"}
        )

        assert answer.status_code == 200
        assert answer.context["adminform"].form.errors

    def test_a_change_to_a_policy_that_changed_since_it_was_shown_is_refused(
        self, client: Client, curator: User
    ) -> None:
        policy = self.policy()
        page = client.get(url_of(policy))
        services.update_policy(policy=policy, unused_for_days=9, actor=SYSTEM)

        shown = page.context["adminform"].form["shown"].value()
        data = {"unused_for_days": "5", "max_share": "1", "grace_days": "0", "purge_after_days": "30", "reason": "x"}
        answer = client.post(url_of(policy), {**data, "shown": shown})

        policy.refresh_from_db()
        assert 'name="shown"' in page.content.decode()
        assert answer.context["adminform"].form.non_field_errors() == [
            "it has changed since this page was shown: look again"
        ]
        assert policy.unused_for_days == 9

    def test_a_plan_is_previewed_made_approved_and_applied(self, client: Client, curator: User) -> None:
        kernel, pinned = kernel_in(), kernel_in(pinned_until=timezone.now() + DAY)
        policy = self.policy()

        (effect,) = client.get(url_of(policy, "make_plan")).context["effects"]
        made = client.post(url_of(policy, "make_plan"), YES)
        plan = RetentionPlan.objects.get()
        client.post(url_of(plan, "approve"), YES)
        (told,) = client.get(url_of(plan, "apply")).context["effects"]
        applied = client.post(url_of(plan, "apply"), {"confirmed": "1"})

        kernel.refresh_from_db(), pinned.refresh_from_db()
        assert effect.events == ("lists 1 kernels to retire; their purge would free 2.0 KiB", "leaves out 1: pinned")
        assert made.headers["Location"] == url_of(plan)
        assert told.events == ("1 retired",)
        assert f"{plan}: 1 retired" in messages_of(applied)
        assert (kernel.state, pinned.state) == (KernelState.RETIRED, KernelState.VALIDATED)

    def test_a_plan_for_a_selection_lists_what_the_policy_condemns_of_it(self, client: Client, curator: User) -> None:
        policy = self.policy()
        gone, pinned, rejected = kernel_in(), kernel_in(pinned_until=timezone.now() + DAY), kernel_in("REJECTED")
        kernel_in()  # not selected
        keys = [str(kernel.pk) for kernel in (gone, pinned, rejected)]
        answers = {"policy": str(policy.pk), "reason": "tidy"}
        selection = {"action": "plan_retirement_selected", "_selected_action": keys, **answers}

        (effect,) = client.post(LIST, {**selection, "preview": "1"}).context["effects"]
        made = client.post(LIST, {**selection, "confirmed": "1"})

        plan = RetentionPlan.objects.get()
        assert effect.events[1:] == ("leaves out 1: pinned", "leaves out 1: not condemned")
        assert [item.kernel for item in plan.items.all()] == [gone]
        assert messages_of(made) == {f"3 selected: {plan} lists 1 of them"}

    def test_a_plan_that_is_not_approved_is_not_applied(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        plan = services.make_plan(policy=self.policy(), actor=SYSTEM)

        answer = client.post(url_of(plan, "apply"), {"confirmed": "1"})

        kernel.refresh_from_db()
        assert answer.context["form"].non_field_errors() == [
            "the plan is PLANNED: only an APPROVED one is applied; approve it first"
        ]
        assert kernel.state == KernelState.VALIDATED

    @pytest.mark.parametrize(
        ("state", "offered"),
        [
            (PlanState.PLANNED, {"approve", "discard"}),
            (PlanState.APPROVED, {"apply", "discard"}),
            (PlanState.APPLIED, set()),
            (PlanState.DISCARDED, set()),
        ],
    )
    def test_a_plan_offers_what_its_state_allows(
        self, client: Client, curator: User, state: str, offered: set[str]
    ) -> None:
        plan = services.make_plan(policy=self.policy(), actor=SYSTEM)
        steps = {
            PlanState.APPROVED: [services.approve_plan],
            PlanState.APPLIED: [services.approve_plan, _applied],
            PlanState.DISCARDED: [services.discard_plan],
        }
        for step in steps.get(PlanState(state), []):
            step(plan=plan, reason="test", actor=SYSTEM)

        assert {button["path"].split("/")[-2] for button in client.get(url_of(plan)).context["buttons"]} == offered


def _applied(*, plan: RetentionPlan, reason: str, actor: Any) -> RetentionPlan:
    return services.apply_plan(plan=plan, actor=actor)
