"""The admin of the cache: plans by steps, the queue of what is owed, the reads; kernels that are put into L2."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.cache.segments import TierAway
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import CachePlanState
from apps.kernels.models import BlobAccess, CacheOutbox, CachePlan, Kernel, StorageTier
from tests.support import caching, tables
from tests.support.curating import LIST, YES, curator, kernel_in, messages_of, url_of
from tests.support.objects import object_storage

__all__ = ["curator", "object_storage"]

pytestmark = pytest.mark.django_db

PLANS = "/admin/kernels/cacheplan/"
CONFIRMED = {"confirmed": "1"}


def offered(client: Client, row: Any) -> set[str]:
    return {button["path"].split("/")[-2] for button in client.get(url_of(row)).context["buttons"]}


def in_l2(kernel: Kernel) -> bool:
    redis = tiers().redis
    assert redis is not None
    return redis.has(kernel.digest or "")


class TestPlans:
    def test_a_plan_is_previewed_then_applied(self, client: Client, curator: User) -> None:
        plan = caching.planned()

        (effect,) = client.get(url_of(plan, "apply")).context["effects"]
        plan.refresh_from_db()
        before = plan.state
        answer = client.post(url_of(plan, "apply"), YES)

        plan.refresh_from_db()
        assert effect.events[0].startswith("began to move the bytes of: state becomes APPLYING")
        assert (before, plan.state) == (CachePlanState.PLANNED, CachePlanState.APPLYING)
        assert messages_of(answer) == {f"{plan}: a worker makes its moves now"}
        assert AuditEvent.objects.get(type="cache.applying").reason == "because"

    def test_an_expired_plan_is_refused_with_the_reason(self, client: Client, curator: User) -> None:
        plan = caching.planned()
        caching.expire(plan)

        (effect,) = client.get(url_of(plan, "apply")).context["effects"]

        assert "the plan has expired" in effect.refusal

    def test_several_plans_are_cancelled_at_once(self, client: Client, curator: User) -> None:
        plans = [caching.planned(), caching.planned()]
        selection = {"action": "cancel_selected", "_selected_action": [str(plan.pk) for plan in plans]}

        client.post(PLANS, {**selection, **YES})

        assert set(CachePlan.objects.values_list("state", flat=True)) == {CachePlanState.CANCELLED}

    @pytest.mark.parametrize(
        ("make", "buttons"),
        [
            (caching.planned, {"apply", "cancel"}),
            (caching.applying, {"cancel"}),
            (caching.carried_out, set()),
        ],
    )
    def test_a_plan_offers_what_its_state_allows(
        self, client: Client, curator: User, make: Any, buttons: set[str]
    ) -> None:
        assert offered(client, make()) == buttons

    def test_a_plan_shows_its_moves_and_what_came_of_them(self, client: Client, curator: User) -> None:
        plan = caching.carried_out(moves=2)

        page = client.get(url_of(plan)).content.decode()
        row = client.get(PLANS).content.decode()

        assert page.count("warm to hot, 2.0 KiB (10.0 decayed reads: at least 4)") == 2
        assert "hot: 0 B, 4.0 KiB" in page
        assert "2 of 2" in row
        assert "2 moved, 4.0 KiB" in row
        assert f'href="/cache/plans/{plan.pk}"' in page

    @pytest.mark.usefixtures("object_storage")
    def test_what_was_left_stands_there_with_its_reason(self, client: Client, curator: User) -> None:
        plan = caching.applying()
        kernel = Kernel.objects.get(pk=plan.moves[0]["kernel"])
        services.change_tier(kernel=kernel, tier=StorageTier.HOT, actor=SYSTEM)
        services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM)
        services.carry_out_cache_plan(plan=plan, actor=SYSTEM)

        assert f"{kernel.name}: it is cold now" in client.get(url_of(plan)).content.decode()


class TestQueue:
    def failed(self) -> CacheOutbox:
        later = timezone.now() + timedelta(minutes=9)
        return CacheOutbox.objects.create(kind="copy", key="a" * 64, due_at=later, attempts=5, error="storage is away")

    def test_a_row_shows_how_often_it_failed_and_why(self, client: Client, curator: User) -> None:
        self.failed()

        page = client.get("/admin/kernels/cacheoutbox/?q=storage").content.decode()

        assert "storage is away" in page

    def test_a_row_about_a_kernel_leads_to_it(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        CacheOutbox.objects.all().delete()
        row = CacheOutbox.objects.create(kind="changed", key=str(kernel.pk), due_at=timezone.now())

        pages = [client.get(address).content.decode() for address in ("/admin/kernels/cacheoutbox/", url_of(row))]

        assert [f'href="{url_of(kernel)}"' in page for page in pages] == [True, True]

    def test_a_row_that_failed_is_due_at_once_when_a_person_says_so(self, client: Client, curator: User) -> None:
        row = self.failed()
        (effect,) = client.get(url_of(row, "try_again")).context["effects"]

        answer = client.post(url_of(row, "try_again"), CONFIRMED)

        row.refresh_from_db()
        assert effect.events[0].startswith("due now instead of at ")
        assert row.due_at <= timezone.now()
        assert row.attempts == 5
        assert messages_of(answer) == {f"{row}: is tried again within seconds"}

    def test_several_rows_are_tried_again_at_once(self, client: Client, curator: User) -> None:
        rows = [self.failed(), self.failed()]
        keys = [str(row.pk) for row in rows]

        client.post(
            "/admin/kernels/cacheoutbox/",
            {"action": "try_again_selected", "_selected_action": keys, **CONFIRMED},
        )

        assert CacheOutbox.objects.filter(due_at__lte=timezone.now()).count() >= 2

    def test_a_row_that_was_done_meanwhile_is_not_made_anew(self, client: Client, curator: User) -> None:
        row = self.failed()
        address = url_of(row, "try_again")
        row.delete()

        assert client.post(address, CONFIRMED).status_code == 302
        assert not CacheOutbox.objects.filter(key="a" * 64).exists()


def test_reads_are_listed_the_most_read_first_and_lead_to_the_kernels(client: Client, curator: User) -> None:
    seldom, often = caching.kernel(reads=2), caching.kernel(reads=30)

    listed = client.get("/admin/kernels/blobaccess/").context["cl"].result_list
    page = client.get(f"/admin/kernels/blobaccess/{often.digest}/change/")

    assert [row.digest for row in listed] == [often.digest, seldom.digest]
    assert f"digest__exact={often.digest}" in page.context["neighbours"][0].url
    assert BlobAccess.objects.count() == 2


class TestWarmingKernels:
    def test_chosen_kernels_are_put_into_l2_after_a_preview_that_puts_nothing_there(
        self, client: Client, curator: User
    ) -> None:
        kernels = [kernel_in(), kernel_in()]
        keys = [str(kernel.pk) for kernel in kernels]
        selection = {"action": "warm_selected", "_selected_action": keys}
        before = tables.beside_the_trail()

        effects = client.post(LIST, {**selection, "preview": "1"}).context["effects"]
        shown = [in_l2(kernel) for kernel in kernels]
        answer = client.post(LIST, {**selection, **CONFIRMED})

        assert {effect.events for effect in effects} == {("puts 2.0 KiB into L2, unless they are there",)}
        assert shown == [False, False]
        assert [in_l2(kernel) for kernel in kernels] == [True, True]
        assert messages_of(answer) == {f"{kernel}: 2.0 KiB are in L2 now" for kernel in kernels}
        assert tables.beside_the_trail() == before

    @pytest.mark.usefixtures("object_storage")
    def test_a_kernel_whose_bytes_are_in_the_object_storage_is_refused(self, client: Client, curator: User) -> None:
        kernel = kernel_in()
        services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM)

        (effect,) = client.get(url_of(kernel, "warm")).context["effects"]

        assert "it is cold: L2 is filled from the database" in effect.refusal

    def test_an_l2_that_is_away_is_told(self, client: Client, curator: User, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel = kernel_in()

        def away(self: object, digest: str, index: int) -> None:
            raise TierAway("connection refused")

        monkeypatch.setattr(type(tiers().redis), "acquire", away)

        answer = client.post(url_of(kernel, "warm"), CONFIRMED)

        assert answer.context["form"].non_field_errors() == ["L2 does not answer: connection refused"]
