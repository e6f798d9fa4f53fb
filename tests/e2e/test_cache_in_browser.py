"""The page of the cache and its plans at two widths and in both themes, and its main path without a mouse."""

import random

import pytest
from playwright.sync_api import expect

from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.cache import KernelStore, accesses, fleet, mover
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import CachePlanState, KernelState
from apps.kernels.models import CachePlan, CachePlanKind, Kernel, KernelUse, StorageTier
from apps.training.lifecycle import RunState
from tests.e2e.conftest import Open
from tests.e2e.test_keyboard import tab_to
from tests.e2e.test_pages_in_browser import look_everywhere
from tests.support.factories import KernelFactory
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.e2e

SIZES_KIB = (12, 24, 40, 64, 96, 160, 256, 384, 640, 1024, 2560, 5120)
NAMES = ("residual_mlp", "widen_linear", "residual_conv", "attention_head", "gated_mlp", "bottleneck")


@pytest.fixture
def paths(live_site: str) -> dict[str, str]:
    """Name -> path of every page of the cache, over kernels that were read, moved and held."""
    make_user(role="curator")
    kernels = fill_cache()
    done = services.plan_cache(kind=CachePlanKind.OPTIMISE, actor=SYSTEM, reason="after the reads of the morning")
    services.apply_cache_plan(plan=done, actor=SYSTEM)
    services.carry_out_cache_plan(plan=done, actor=SYSTEM)
    read(kernels[-3:], times=6)
    open_ = services.plan_cache(kind=CachePlanKind.OPTIMISE, actor=SYSTEM, reason="weekly")
    return {
        "now": "/cache",
        "week": "/cache?window=7d",
        "table": "/cache/latencies/l1?window=total",
        "optimise": "/cache/optimise",
        "warm": "/cache/warm",
        "plan": f"/cache/plans/{open_.pk}",
        "plan-done": f"/cache/plans/{done.pk}",
        "plan-apply": f"/cache/plans/{open_.pk}/apply",
    }


def fill_cache() -> list[Kernel]:
    """Twelve kernels of which few are read often, as it is; one lies in the object storage, two are held by a run."""
    random.seed(5)
    kernels = [
        KernelFactory(
            state=KernelState.VALIDATED,
            name=f"{NAMES[number % len(NAMES)]}-v{1 + number // 6}-d{8 << number % 4}",
            data=random.randbytes(kib << 10),
        )
        for number, kib in enumerate(SIZES_KIB)
    ]
    run = make_run(name="digits-live", state=RunState.RUNNING, done=9, stories=())
    for kernel in kernels[2:4]:
        KernelUse.objects.create(kernel=kernel, run_id=run.pk)
    mover.move(kernels[9], to=StorageTier.COLD, actor=SYSTEM, reason="not read for 90 days")
    redis = tiers().redis
    assert redis is not None
    for kernel in kernels[5:8]:  # as if L2 had dropped them for others
        redis.drop(kernel.digest or "")
    for rank, kernel in enumerate(kernels, 1):
        read([kernel], times=1 + 60 // rank**2)
    return kernels


def read(kernels: list[Kernel], *, times: int) -> None:
    """Real reads of this process; the platform hears of them at once."""
    for kernel in kernels:
        for _ in range(times):
            KernelStore().get(kernel.digest or "")
    fleet.publish()
    accesses.publish()
    accesses.flush()


def test_the_cache_is_accessible_still_and_fits(open_window: Open, paths: dict[str, str]) -> None:
    assert look_everywhere(open_window, paths, area="cache") == []


def test_an_optimisation_is_planned_applied_and_followed_with_the_keyboard_alone(
    open_window: Open, paths: dict[str, str]
) -> None:
    visit = open_window()
    visit.log_in("ada")
    page = visit.go("/cache")

    tab_to(page, "cache-optimise")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("no byte is moved")
    tab_to(page, "reason")
    page.keyboard.type("before the night")
    page.keyboard.press("Enter")
    page.wait_for_url("**/cache/plans/*")
    expect(page.locator("main")).to_contain_text("decayed reads: at least 4")

    tab_to(page, "plan-apply")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("from warm to hot")
    tab_to(page, "confirm")
    page.keyboard.press("Enter")
    expect(page.locator(".head .state")).to_have_text("moving")

    plan = CachePlan.objects.get(state=CachePlanState.APPLYING)
    services.carry_out_cache_plan(plan=plan, actor=SYSTEM)
    expect(page.locator(".head .state")).to_have_text("applied")
    expect(page.locator("#plan-progress")).to_have_text(f"{len(plan.moves)} of {len(plan.moves)}")


def test_the_table_of_a_chart_opens_beside_it_and_the_numbers_keep_coming(
    open_window: Open, paths: dict[str, str]
) -> None:
    visit = open_window()
    visit.log_in("ada")
    page = visit.go("/cache?window=total")
    hits = page.locator("#tiers tbody tr").first.locator("td").nth(2)
    before = hits.inner_text()

    page.click("#table-l1")
    expect(page.locator("dialog[open] table")).to_be_visible()
    page.keyboard.press("Escape")
    read([Kernel.objects.get(name="residual_mlp-v1-d8")], times=9)

    expect(hits).not_to_have_text(before, timeout=15_000)
