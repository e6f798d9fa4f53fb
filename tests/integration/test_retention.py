"""Plans of retirement change nothing, and apply to what has not changed since; protections hold."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.core.ids import new_id
from apps.core.lineage import LineageKind
from apps.kernels import services, tasks
from apps.kernels.cache import KernelStore
from apps.kernels.lifecycle import KernelState, PlanState
from apps.kernels.models import Kernel, KernelAlias, KernelLineage, KernelVariant, RetentionPlan
from apps.kernels.retention import facts
from apps.kernels.retention.explaining import explain
from tests.support import tables
from tests.support.factories import BlueprintFactory
from tests.support.retention import approved_plan, kernel, planned, policy, retired, state_of

pytestmark = pytest.mark.django_db


def plan_of(**settings: Any) -> RetentionPlan:
    return services.make_plan(policy=policy(**settings), actor=SYSTEM)


def outcomes(plan: RetentionPlan) -> dict[Any, str]:
    return dict(plan.items.values_list("kernel_id", "outcome"))


# --- Policies


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({}, "/unused_for_days"),
        ({"metric_below": 0.5}, "/metric"),
        ({"keep_best": 3}, "/metric"),
        ({"unused_for_days": -1}, "/unused_for_days"),
        ({"unused_for_days": 2**31 - 1}, "/unused_for_days"),
        ({"unused_for_days": 1, "max_share": 1.5}, "/max_share"),
        ({"risk_above": 2.0}, "/risk_above"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_and_its_field_named(settings: dict[str, Any], pointer: str) -> None:
    with pytest.raises(Invalid) as refusal:
        services.create_policy(name="p", actor=SYSTEM, **settings)
    assert refusal.value.errors[0].pointer == pointer


def test_a_match_that_does_not_parse_is_refused_at_its_field() -> None:
    with pytest.raises(Invalid, match="position") as refusal:
        services.create_policy(name="p", unused_for_days=1, match="tags.arch =", actor=SYSTEM)
    assert refusal.value.errors[0].pointer == "/match"


def test_a_policy_that_stays_as_it_was_is_no_event() -> None:
    row = policy(unused_for_days=90)

    services.update_policy(policy=row, unused_for_days=90, actor=SYSTEM)
    assert not AuditEvent.objects.filter(type="retention.policy_changed").exists()


# --- Plans


def test_a_plan_changes_nothing_but_itself() -> None:
    kernel()
    row = policy()
    before = tables.beside_the_trail()

    services.make_plan(policy=row, actor=SYSTEM)

    changed = {name for name, digest in tables.beside_the_trail().items() if digest != before[name]}
    assert changed == {"kernels_retentionplan", "kernels_retentionitem"}


def test_a_plan_names_each_kernel_with_its_version_reason_and_bytes() -> None:
    row = kernel(unused=91, data=b"x" * 10)
    (item,) = plan_of().items.all()

    assert (item.kernel_id, item.row_version, item.bytes) == (row.pk, row.row_version, 10)
    assert "last used" in item.reason


def test_only_kernels_in_use_are_planned() -> None:
    kept = [kernel(state=state) for state in (KernelState.UPLOADED, KernelState.REJECTED, KernelState.RETIRED)]
    goes = [kernel(state=state) for state in (KernelState.VALIDATED, KernelState.DEPRECATED)]

    assert planned(plan_of()) == {row.pk for row in goes}
    assert len(kept) == 3


def test_only_what_matches_is_planned_and_ranked() -> None:
    old, _, new = (kernel(tags={"arch": arch}) for arch in ("conv", "attn", "conv"))

    assert planned(plan_of(match="tags.arch = 'conv'", keep_latest=1)) == {old.pk}
    assert new.pk


def test_the_newest_are_spared() -> None:
    rows = [kernel() for _ in range(4)]

    assert planned(plan_of(keep_latest=2)) == {row.pk for row in rows[:2]}


def test_the_best_by_a_metric_are_spared_and_a_kernel_without_it_is_the_worst() -> None:
    best, good, unknown = (kernel(metrics=metrics) for metrics in ({"gain": 10}, {"gain": 9.5}, {"gain": "high"}))

    assert planned(plan_of(metric="gain", keep_best=1)) == {good.pk, unknown.pk}
    assert best.pk


def test_a_metric_below_its_bound_condemns_and_a_missing_one_does_not() -> None:
    low = kernel(metrics={"gain": 0.1})
    kernel(metrics={"gain": 0.2})
    kernel(metrics={})

    assert planned(plan_of(metric="gain", metric_below=0.2)) == {low.pk}


def test_the_storage_cap_condemns_the_least_recently_used_until_the_rest_fits() -> None:
    rows = [kernel(unused=days, data=bytes([days]) * 40) for days in (3, 1, 2)]

    assert planned(plan_of(storage_cap_bytes=100)) == {rows[0].pk}


def test_bytes_count_once_and_only_where_nothing_else_refers_to_them() -> None:
    shared, others = b"s" * 100, b"o" * 10
    kernel(data=shared), kernel(data=shared), kernel(data=others)
    kernel(data=others, unused=1)

    assert plan_of().byte_count == 100


def test_bytes_of_variants_count_with_their_kernel() -> None:
    row = kernel(data=b"k" * 10)
    digest = KernelStore().put(b"v" * 5)
    KernelVariant.objects.create(kernel=row, memory_format="contiguous", dtype="float16", digest=digest, size=5)

    assert plan_of().byte_count == 15


class TestGuards:
    def test_the_share_bounds_a_plan_and_the_longest_unused_go_first(self) -> None:
        rows = [kernel(unused=days) for days in (100, 300, 200, 150)]
        plan = plan_of(max_share=0.5)

        assert planned(plan) == {rows[1].pk, rows[2].pk}
        assert plan.kept == {"max_share": 2}

    def test_the_bytes_bound_a_plan(self) -> None:
        rows = [kernel(unused=days, data=bytes([days]) * 60) for days in (200, 100)]
        plan = plan_of(max_bytes=100)

        assert planned(plan) == {rows[0].pk}
        assert plan.kept == {"max_bytes": 1}


def hold(row: Kernel) -> None:
    Kernel.objects.filter(pk=row.pk).update(legal_hold=True)


def pin(row: Kernel) -> None:
    Kernel.objects.filter(pk=row.pk).update(pinned_until=timezone.now() + timedelta(days=1))


def name_it(row: Kernel) -> None:
    KernelAlias.objects.create(blueprint=BlueprintFactory(), name="prod", kernel=row, is_protected=True)


def run_with(row: Kernel) -> None:
    services.hold_kernels(kernels=[row], run_id=new_id())


def descend(row: Kernel) -> None:
    """A retired child, and its child in use."""
    child, grandchild = kernel(state=KernelState.RETIRED), kernel(age=0, unused=0)
    for lower, upper in ((child, row), (grandchild, child)):
        KernelLineage.objects.create(child=lower, parent=upper, kind=LineageKind.DERIVED)


def succeed(row: Kernel) -> None:
    old = kernel(state=KernelState.RETIRED)
    Kernel.objects.filter(pk=old.pk).update(successor=row)


PROTECTIONS: dict[str, Callable[[Kernel], None]] = {
    "legal_hold": hold,
    "pinned": pin,
    "alias": name_it,
    "live_run": run_with,
    "live_descendant": descend,
    "successor": succeed,
}


class TestProtections:
    @pytest.mark.parametrize("rule", PROTECTIONS)
    def test_keep_a_kernel_out_of_a_plan_and_are_counted(self, rule: str) -> None:
        PROTECTIONS[rule](kernel())
        plan = plan_of()

        assert (planned(plan), plan.kept) == (set(), {rule: 1})

    @pytest.mark.parametrize("rule", PROTECTIONS)
    def test_that_come_after_the_plan_keep_the_kernel_all_the_same(self, rule: str) -> None:
        row = kernel()
        plan = approved_plan()
        PROTECTIONS[rule](row)
        plan = services.apply_plan(plan=plan, actor=SYSTEM)

        assert (state_of(row), plan.outcome) == (KernelState.VALIDATED, {"protected": 1})

    @pytest.mark.parametrize("rule", PROTECTIONS)
    def test_keep_a_kernel_from_being_retired_by_hand(self, rule: str) -> None:
        row = kernel()
        PROTECTIONS[rule](row)

        with pytest.raises(Conflict) as refusal:
            services.retire_kernel(kernel=row, reason="old", actor=SYSTEM)
        assert refusal.value.code == "protected"

    @pytest.mark.parametrize("rule", PROTECTIONS)
    def test_keep_a_retired_kernel_from_the_purge(self, rule: str) -> None:
        row = retired()
        PROTECTIONS[rule](row)
        tasks.purge_retired()

        assert state_of(row) == KernelState.RETIRED

    @pytest.mark.parametrize("lookup", facts.LOOKUPS)
    def test_that_cannot_be_read_keep_everything(self, lookup: str, monkeypatch: pytest.MonkeyPatch) -> None:
        kernel()
        monkeypatch.setitem(facts.LOOKUPS, lookup, "SELECT 1 / 0")
        plan = plan_of()

        assert (planned(plan), plan.kept) == (set(), {f"{lookup}_unread": 1})

    def test_that_cannot_be_read_during_the_application_keep_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        row = kernel()
        plan = approved_plan()
        monkeypatch.setitem(facts.LOOKUPS, "live_run", "SELECT no_such_column")
        plan = services.apply_plan(plan=plan, actor=SYSTEM)

        assert (state_of(row), plan.outcome) == (KernelState.VALIDATED, {"protected": 1})

    def test_end_with_the_run(self) -> None:
        row, run_id = kernel(), new_id()
        services.hold_kernels(kernels=[row], run_id=run_id)
        services.release_kernels(run_id=run_id)

        assert planned(plan_of()) == {row.pk}


# --- Applying


def test_applying_retires_what_the_plan_names_and_says_when_it_is_purged() -> None:
    row = kernel()
    plan = services.apply_plan(plan=approved_plan(policy(purge_after_days=10)), actor=SYSTEM)

    row.refresh_from_db()
    assert (plan.state, plan.outcome) == (PlanState.APPLIED, {"retired": 1})
    assert row.state == KernelState.RETIRED
    assert row.retired_at is not None
    assert row.purge_after == row.retired_at + timedelta(days=10)


def test_each_kernel_of_a_plan_gets_its_events_with_the_reason() -> None:
    row = kernel()
    services.apply_plan(plan=approved_plan(), actor=SYSTEM)

    events = AuditEvent.objects.filter(subject_id=str(row.pk)).order_by("id")
    assert [event.type for event in events] == ["kernel.transition", "kernel.retired"]
    assert events[1].reason.startswith("old: made ")


def test_a_kernel_that_was_changed_since_is_left_alone() -> None:
    row = kernel()
    plan = approved_plan()
    services.deprecate_kernel(kernel=row, reason="slow", actor=SYSTEM)
    plan = services.apply_plan(plan=plan, actor=SYSTEM)

    assert (state_of(row), plan.outcome) == (KernelState.DEPRECATED, {"changed": 1})


def test_a_kernel_that_was_used_since_is_left_alone() -> None:
    row = kernel()
    plan = approved_plan()
    Kernel.objects.filter(pk=row.pk).update(last_used_at=timezone.now())
    plan = services.apply_plan(plan=plan, actor=SYSTEM)

    assert (state_of(row), plan.outcome) == (KernelState.VALIDATED, {"changed": 1})


def test_a_plan_of_many_is_applied_in_batches_and_goes_on_where_it_stopped() -> None:
    rows = [kernel() for _ in range(5)]
    plan = services.apply_plan(plan=approved_plan(), actor=SYSTEM, most=2)
    assert (plan.state, plan.outcome) == (PlanState.APPROVED, {"retired": 2})

    for _ in range(2):
        plan = services.apply_plan(plan=plan, actor=SYSTEM, most=2)
    assert (plan.state, plan.outcome) == (PlanState.APPLIED, {"retired": 5})
    assert {state_of(row) for row in rows} == {KernelState.RETIRED}


def test_an_applied_plan_is_left_as_it_is() -> None:
    kernel()
    plan = services.apply_plan(plan=approved_plan(), actor=SYSTEM)

    assert services.apply_plan(plan=plan, actor=SYSTEM).row_version == plan.row_version


def test_an_empty_plan_can_be_applied() -> None:
    assert services.apply_plan(plan=approved_plan(), actor=SYSTEM).state == PlanState.APPLIED


def test_a_plan_that_nobody_approved_is_not_applied() -> None:
    row = kernel()

    with pytest.raises(Conflict, match="only an APPROVED one"):
        services.apply_plan(plan=plan_of(), actor=SYSTEM)
    assert state_of(row) == KernelState.VALIDATED


def expired(plan: RetentionPlan) -> RetentionPlan:
    RetentionPlan.objects.filter(pk=plan.pk).update(expires_at=timezone.now())
    return plan


def test_an_expired_plan_is_not_approved() -> None:
    with pytest.raises(Conflict, match="expired"):
        services.approve_plan(plan=expired(plan_of()), reason="looked at", actor=SYSTEM)


def test_an_expired_plan_is_not_applied() -> None:
    with pytest.raises(Conflict, match="expired"):
        services.apply_plan(plan=expired(approved_plan()), actor=SYSTEM)


def test_a_plan_needs_a_reason_to_be_approved() -> None:
    with pytest.raises(Invalid, match="is needed"):
        services.approve_plan(plan=plan_of(), reason=" ", actor=SYSTEM)


# --- Beat


def test_beat_plans_for_enabled_policies_and_applies_nothing() -> None:
    row = kernel()
    policy(name="on", is_enabled=True)
    policy(name="off")
    tasks.plan_retention()

    assert [plan.policy.name for plan in RetentionPlan.objects.all()] == ["on"]
    assert state_of(row) == KernelState.VALIDATED


def test_beat_discards_plans_that_have_expired() -> None:
    plan, current = expired(plan_of()), plan_of(name="other")
    tasks.settle_plans()

    plan.refresh_from_db(), current.refresh_from_db()
    assert (plan.state, current.state) == (PlanState.DISCARDED, PlanState.PLANNED)


def test_beat_goes_on_with_a_plan_whose_application_was_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        kernel()
    plan = services.apply_plan(plan=approved_plan(), actor=SYSTEM, most=1)
    RetentionPlan.objects.filter(pk=plan.pk).update(updated_at=timezone.now() - timedelta(hours=1))
    monkeypatch.setattr(tasks, "enqueue", lambda name, plan_id: tasks.apply_plan(plan_id))
    tasks.settle_plans()

    plan.refresh_from_db()
    assert (plan.state, plan.outcome) == (PlanState.APPLIED, {"retired": 2})


# --- Explaining


def test_a_kernel_is_explained_by_every_policy_and_goes_by_the_enabled_ones() -> None:
    row = kernel(age=80)
    policy(name="soon", is_enabled=True)
    policy(name="now", unused_for_days=10)
    told = explain(row, timezone.now())

    assert [(said.policy.name, said.verdict and said.verdict.goes) for said in told.policies] == [
        ("now", True),
        ("soon", False),
    ]
    assert told.when == row.created_at + timedelta(days=90)


def test_each_policy_more_costs_an_explanation_one_statement(django_assert_num_queries: Any) -> None:
    row, now = kernel(), timezone.now()
    for number in range(3):
        policy(name=f"old{number}")
        with django_assert_num_queries(4 + number + 1):  # policies, protections in a savepoint, and each policy
            explain(row, now)


def test_a_retired_kernel_is_explained_by_its_purge() -> None:
    row = retired(over=False)

    assert explain(row, timezone.now()).when == row.purge_after


def test_the_plan_and_the_explanation_agree_on_every_kernel() -> None:
    """Both ask the one predicate: whatever the kernels are like."""
    rows = [kernel(unused=days, metrics={"gain": days}, risk=None) for days in (10, 95, 120, 200, 300)]
    hold(rows[2])
    name_it(rows[3])
    row = policy(metric="gain", keep_best=1, unused_for_days=90)
    plan = services.make_plan(policy=row, actor=SYSTEM)

    def goes(known: Kernel) -> bool:
        (said,) = explain(known, timezone.now()).policies
        return said.verdict is not None and said.verdict.goes

    assert {known.pk for known in Kernel.objects.all() if goes(known)} == planned(plan) == {rows[1].pk}


# --- By command


def test_the_command_goes_from_a_plan_to_retired_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    row = kernel()
    policy(name="old")
    call_command("retention", "plan", "old")
    plan = RetentionPlan.objects.get()
    call_command("retention", "approve", str(plan.pk), "--reason", "looked at")
    call_command("retention", "apply", str(plan.pk), "--json")

    assert '"outcome": {"retired": 1}' in capsys.readouterr().out.splitlines()[-1]
    assert state_of(row) == KernelState.RETIRED


def test_the_command_explains_a_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    row = kernel()
    hold(row)
    policy(name="old")
    call_command("retention", "explain", str(row.pk))

    out = capsys.readouterr().out
    assert "never, as things are" in out
    assert "kept by legal_hold: under legal hold" in out


@pytest.mark.parametrize("arguments", [("plan", "none"), ("approve", str(new_id())), ("explain", "x")])
def test_the_command_says_what_it_does_not_find(arguments: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match="there is no"):
        call_command("retention", *arguments)
