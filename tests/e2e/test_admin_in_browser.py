"""The admin of assets in a real browser: the queue, a step with answers, at two widths."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CacheOutbox, Kernel, KernelAlias
from tests.e2e.conftest import Open
from tests.support import caching, factories
from tests.support.run_rows import make_user

pytestmark = pytest.mark.e2e

SIZES = {"wide": (1440, 900), "phone": (390, 844)}


@pytest.fixture
def kernel(live_site: str) -> Kernel:
    """One to be named, among others that wait for a person; ``cleo`` is a curator."""
    make_user(username="cleo", role="curator")
    soon = timezone.now() + timedelta(days=1)
    factories.KernelFactory(state=KernelState.QUARANTINED)
    factories.KernelFactory(state=KernelState.REJECTED, rejection="identity: the output differs by 0.3")
    factories.KernelFactory(state=KernelState.DEPRECATED, tags={"arch": "mlp"})
    factories.KernelFactory(state=KernelState.RETIRED, purge_after=soon)
    risky = factories.KernelFactory(state=KernelState.VALIDATED, risk=0.71, risk_confidence=0.64)
    services.set_alias(kernel=risky, name="prod", actor=SYSTEM)
    services.create_policy(name="unused", unused_for_days=0, grace_days=0, max_share=1.0, actor=SYSTEM)
    return factories.KernelFactory(state=KernelState.VALIDATED, name="residual-mlp-v1-d8-h16")


def test_from_the_queue_to_a_kernel_that_has_an_alias(open_window: Open, kernel: Kernel) -> None:
    visit = open_window()
    visit.log_in("cleo")
    page = visit.go("/admin/kernels/kernel/")

    page.get_by_role("link", name="No alias 1").click()
    page.get_by_role("link", name=kernel.name).click()
    page.get_by_role("link", name="Set an alias").click()
    page.get_by_label("Name").fill("prod")
    page.get_by_label("Reason").fill("the best one")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("pointed at a kernel the alias")).to_be_visible()
    page.get_by_role("button", name="Set an alias").click()

    expect(page.get_by_text(f"{kernel}: has the alias")).to_be_visible()
    assert KernelAlias.objects.get(kernel=kernel).name == "prod"


@pytest.mark.parametrize("size", SIZES)
def test_lists_rows_and_steps_fit_their_window(size: str, open_window: Open, kernel: Kernel) -> None:
    width, height = SIZES[size]
    visit = open_window(width=width, height=height)
    visit.log_in("cleo")
    row = f"/admin/kernels/kernel/{kernel.pk}"
    plan = caching.planned(moves=3)
    caching.carried_out(moves=2)
    owed = CacheOutbox.objects.create(
        kind="copy", key=kernel.digest, due_at=timezone.now(), attempts=3, error="the object storage does not answer"
    )
    paths = {
        "queue": "/admin/kernels/kernel/?waits=risky",
        "kernels": "/admin/kernels/kernel/",
        "kernel": f"{row}/change/",
        "retire": f"{row}/retire/",
        "tag": f"{row}/tag/",
        "policy": "/admin/kernels/retentionpolicy/add/",
        "cache-plans": "/admin/kernels/cacheplan/",
        "cache-plan": f"/admin/kernels/cacheplan/{plan.pk}/change/",
        "cache-apply": f"/admin/kernels/cacheplan/{plan.pk}/apply/",
        "cache-outbox": "/admin/kernels/cacheoutbox/",
        "cache-again": f"/admin/kernels/cacheoutbox/{owed.pk}/try_again/",
        "cache-reads": "/admin/kernels/blobaccess/",
    }

    wider = {}
    for name, path in paths.items():
        visit.go(path)
        visit.keep(f"admin-{name}-{size}", full=True)
        if visit.overflow() > 0:
            wider[name] = visit.overflow()

    assert wider == {}
