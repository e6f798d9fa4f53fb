"""The library's pages at two widths and in both themes, and its main path without a mouse."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.blueprints.models import VersionLineage
from apps.blueprints.services import create_blueprint, submit_version
from apps.core.actors import SYSTEM
from apps.core.lineage import LineageKind
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelLineage, KernelVariant, RetentionPlan
from tests.e2e.conftest import Open
from tests.e2e.test_pages_in_browser import SIZES, _look
from tests.support.factories import KernelFactory, residual_spec
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.e2e

STAGES = [
    {"name": "identity", "passed": True, "duration_ms": 1.5, "measured": {"max_abs": 0.0}, "thresholds": {"max": 1e-5}},
    {"name": "determinism", "passed": True, "duration_ms": 2.06, "measured": {"digest": "ab" * 32}, "thresholds": {}},
]


@pytest.fixture
def paths(live_site: str) -> dict[str, str]:
    """Name -> path of every page of the library, over rows that fill them."""
    make_user(role="curator")
    kernel = fill_library()
    blueprint = kernel.blueprint_version.blueprint_id
    plan = fill_retirement()
    return {
        "library": "/library",
        "retirement": "/library/retirement",
        "plan": f"/library/retirement/plans/{plan.pk}",
        "plan-approve": f"/library/retirement/plans/{plan.pk}/approve",
        "plan-make": f"/library/retirement/policies/{plan.policy_id}/plan",
        "retention": f"/library/kernels/{kernel.pk}/retention",
        "kernel": f"/library/kernels/{kernel.pk}",
        "blueprint": f"/library/blueprints/{blueprint}",
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
    kernel = _kernel(second, "residual_wide-v2-d8-h16", tags={"arch": "mlp", "tier_wish": 2}, risk=0.18,
                     risk_confidence=0.62, report={"compile": {"stages": STAGES}}, pipeline="aggressive")  # fmt: skip
    child = _kernel(second, "residual_wide-v2-distilled-for-small-hosts", H=8, state=KernelState.REGISTERED)
    for parent, weight in zip(parents, (0.7, 0.3), strict=True):
        KernelLineage.objects.create(child=kernel, parent=parent, kind=LineageKind.MERGED, weight=weight)
    KernelLineage.objects.create(child=child, parent=kernel, kind=LineageKind.DISTILLED)
    KernelVariant.objects.create(
        kernel=kernel, memory_format="contiguous", dtype="bfloat16", digest="cd" * 32, size=900
    )
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


def _kernel(version: Any, name: str, state: str = KernelState.VALIDATED, **values: Any) -> Kernel:
    bindings = {**version.spec["symbols"], **{key: values.pop(key) for key in ("H",) if key in values}}
    compat = {"operator": "residual", "input": ["N", 8], "output": ["N", 8]}
    kernel: Kernel = KernelFactory(
        blueprint_version=version, name=name, bindings=bindings, compat=compat, state=state, **values
    )
    Kernel.objects.filter(pk=kernel.pk).update(created_at=timezone.now() - timedelta(days=40))
    return kernel


def _gated() -> dict[str, Any]:
    """The residual MLP with a gate beside its first layer."""
    spec = residual_spec()
    first, act, last = spec["nodes"]
    gate = {"id": "gate", "op": "linear", "inputs": ["input"], "params": {"out_features": "H"}}
    both = {"id": "both", "op": "mul", "inputs": ["act", "gate"]}
    return {**spec, "nodes": [first, gate, act, both, {**last, "inputs": ["both"]}]}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_library_is_accessible_still_and_fits(
    size: str, theme: str, open_window: Open, paths: dict[str, str]
) -> None:
    width, height = SIZES[size]
    visit = open_window(width=width, height=height, theme=theme)
    visit.log_in("ada")

    findings: list[str] = []
    for name, path in paths.items():
        findings += _look(visit, f"library-{name}", path, f"{size}-{theme}")
        visit.keep(f"library-{name}-{size}-{theme}-full", full=True)

    assert findings == []
