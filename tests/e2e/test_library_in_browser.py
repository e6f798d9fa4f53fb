"""The library's pages at two widths and in both themes, and its main path without a mouse."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone
from playwright.sync_api import expect

from apps.audit import services as audit
from apps.audit.watched import image
from apps.blueprints.models import BlueprintVersion, VersionLineage
from apps.blueprints.services import create_blueprint, submit_version
from apps.core.actors import SYSTEM
from apps.core.lineage import LineageKind
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelLineage, KernelVariant, RetentionPlan
from tests.e2e.conftest import Open
from tests.e2e.test_keyboard import tab_to
from tests.e2e.test_pages_in_browser import look_everywhere
from tests.support.factories import KernelFactory, residual_spec
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.e2e

DIGEST = hashlib.sha256(b"the outputs of both builds").hexdigest()
STAGES = [
    {"name": "identity", "passed": True, "duration_ms": 1.5, "measured": {"max_abs": 0.0}, "thresholds": {"max": 1e-5}},
    {"name": "determinism", "passed": True, "duration_ms": 2.06, "measured": {"digest": DIGEST}, "thresholds": {}},
]


@pytest.fixture
def paths(live_site: str) -> dict[str, str]:
    """Name -> path of every page of the library, over rows that fill them."""
    make_user(role="curator")
    kernel = fill_library()
    plan = fill_retirement()
    blueprint = kernel.blueprint_version.blueprint_id
    return {
        "list": "/library",
        "fault": "/library?q=parameters+%3E+100+and+stat+%3D+'x'",
        "found": "/library?q=operator+%3D+'residual'+and+state+%3D+'VALIDATED'&counts=1",
        "kernel": f"/library/kernels/{kernel.pk}",
        "blueprint": f"/library/blueprints/{blueprint}",
        "diff": f"/library/blueprints/{blueprint}/diff?from=1&to=2",
        "retirement": "/library/retirement",
        "plan": f"/library/retirement/plans/{plan.pk}",
        "plan-approve": f"/library/retirement/plans/{plan.pk}/approve",
    }


def fill_library() -> Kernel:
    """A blueprint of two versions with four kernels; the one that is returned has a past, a future and a record."""
    card = {"summary": "A two-layer perceptron added to a layer's output.", "use_when": "More depth is wanted."}
    blueprint = create_blueprint(
        name="residual_wide", title="Residual MLP, wide", card=card, tags={"family": "mlp"}, actor=SYSTEM
    )
    first = submit_version(blueprint=blueprint, spec=residual_spec(), actor=SYSTEM)
    second = submit_version(blueprint=blueprint, spec=_gated(), actor=SYSTEM)
    VersionLineage.objects.create(child=second, parent=first, kind=LineageKind.DERIVED)
    parents = [_kernel(first, f"residual_wide-v1-{hidden}", H=hidden) for hidden in (16, 24)]
    _kernel(first, "residual_wide-v1-32", H=32)
    kernel = _kernel(second, "residual_wide-v2-d8-h16", parents, tags={"arch": "mlp", "tier_wish": 2},
                     report={"compile": {"stages": STAGES}}, pipeline="aggressive")  # fmt: skip
    _kernel(second, "residual_wide-v2-distilled-for-small-hosts", [kernel], H=8, state=KernelState.REGISTERED)
    services.set_alias(kernel=kernel, name="prod", actor=SYSTEM, reason="the best so far")
    run = make_run(name="digits-wide", stories=())
    for number, gain in enumerate((0.041, 0.052), 1):
        services.record_field_report(
            kernel=kernel, run_id=run.pk, seed_number=number, actor=SYSTEM, task="digits", host="mlp",
            site="layers.0.residual", verdict="FOSSILIZED", parameters=300, train_flops=1_000, loss_before=0.3,
            loss_after=0.25, contribution=gain, contribution_low=gain - 0.02, contribution_high=gain + 0.02, rent=0.001,
        )  # fmt: skip
    return kernel


def fill_retirement() -> RetentionPlan:
    """A plan that would retire some kernels and keeps others."""
    policy = services.create_policy(
        name="unused", description="What no run has used for a month goes", unused_for_days=30, keep_best=1,
        metric="gain_mean", max_share=0.5, is_enabled=True, actor=SYSTEM,
    )  # fmt: skip
    services.create_policy(name="cap", storage_cap_bytes=1 << 30, match="operator = 'residual'", actor=SYSTEM)
    return services.make_plan(policy=policy, actor=SYSTEM, reason="monthly")


def _kernel(
    version: BlueprintVersion,
    name: str,
    parents: Sequence[Kernel] = (),
    state: str = KernelState.VALIDATED,
    **values: Any,
) -> Kernel:
    """Older than the grace of policies; what it came from and its variant are there at once, and one event tells it."""
    bindings = {**version.spec["symbols"], **{key: values.pop(key) for key in ("H",) if key in values}}
    compat = {"operator": "residual", "input": ["N", 8], "output": ["N", 8]}
    with transaction.atomic():
        kernel: Kernel = KernelFactory(
            blueprint_version=version, name=name, bindings=bindings, compat=compat, state=state, **values
        )
        Kernel.objects.filter(pk=kernel.pk).update(created_at=timezone.now() - timedelta(days=40))
        for parent in parents:
            KernelLineage.objects.create(child=kernel, parent=parent, kind=LineageKind.MERGED, weight=1 / len(parents))
        if kernel.pipeline == "aggressive":
            KernelVariant.objects.create(
                kernel=kernel, memory_format="contiguous", dtype="bfloat16", digest=DIGEST, size=900
            )
        audit.record(type="kernel.registered", subject=kernel, actor=SYSTEM, after=image(kernel))
    return kernel


def _gated() -> dict[str, Any]:
    """The residual MLP with a gate beside its first layer."""
    spec = residual_spec()
    first, act, last = spec["nodes"]
    gate = {"id": "gate", "op": "linear", "inputs": ["input"], "params": {"out_features": "H"}}
    both = {"id": "both", "op": "mul", "inputs": ["act", "gate"]}
    return {**spec, "nodes": [first, gate, act, both, {**last, "inputs": ["both"]}]}


def test_the_library_is_accessible_still_and_fits(open_window: Open, paths: dict[str, str]) -> None:
    assert look_everywhere(open_window, paths, area="library") == []


def test_a_retirement_is_found_planned_and_applied_with_the_keyboard_alone(
    open_window: Open, paths: dict[str, str]
) -> None:
    kernel = Kernel.objects.get(name="residual_wide-v1-32")
    visit = open_window()
    visit.log_in("ada")
    page = visit.go("/library")

    tab_to(page, "q")
    page.keyboard.type("kernel_name like '%v1-32' and op")
    expect(page.locator("#completions [role=option]").first).to_contain_text("operator")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.type("= res")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#q")).to_have_value("kernel_name like '%v1-32' and operator = 'residual' ")
    page.keyboard.press("Enter")
    page.wait_for_url("**/library?q=*")
    page.get_by_role("link", name="residual_wide-v1-32").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#retention")).to_contain_text("Would retire it now.")

    page.get_by_role("link", name="Make a plan of unused").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/plan")
    tab_to(page, "reason")
    page.keyboard.type("monthly tidying")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text("residual_wide-v1-32")

    tab_to(page, "plan-approve")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("no kernel is touched")
    tab_to(page, "reason")
    page.keyboard.type("looked at each")
    page.keyboard.press("Enter")
    expect(page.locator("#plan-apply")).to_be_visible()
    tab_to(page, "plan-apply")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("can be restored for 30 days")
    tab_to(page, "confirm")
    page.keyboard.press("Enter")

    expect(page.locator(".head .state")).to_have_text("applied")
    assert Kernel.objects.get(pk=kernel.pk).state == KernelState.RETIRED
