"""What the services do to every kind of asset, replayed: their events are the rows."""

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.accounts.roles import Role, Scope
from apps.audit import services as audit
from apps.audit.projections import state_of
from apps.audit.replay import replay, subject_models
from apps.blueprints import services as blueprints
from apps.checkpoints.models import JobKind
from apps.checkpoints.services import archiving, jobs, pinning, policies
from apps.checkpoints.services.retention import expire_due
from apps.core.actors import SYSTEM
from apps.core.lineage import LineageKind
from apps.kernels import services as kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CachePlanKind, Kernel, StorageTier, TagType
from apps.morphogenesis.lifecycle import Gate, SeedState
from apps.morphogenesis.protocols import Action, DecisionRecord, GraftOutcome, TransitionRecord
from apps.observability.models import Alert
from apps.observability.services import alerts, evaluating, notifying, routes, rules, silences
from apps.training import services as training
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.support.alerting import CPU, measure
from tests.support.audit import own_home
from tests.support.checkpoints import checkpoint_folder, save
from tests.support.factories import residual_spec

__all__ = ["checkpoint_folder", "own_home"]
pytestmark = pytest.mark.usefixtures("committed_db", "home", "checkpoint_folder")

SETTINGS = {"task": "digits", "host": "mlp", "epochs": 4, "growth": {"enabled": False}}
OUTCOME = {
    "site": "hidden.0",
    "verdict": SeedState.FOSSILIZED,
    "parameters": 300,
    "train_flops": 10**16,
    "loss_before": 0.1 + 0.2,
    "loss_after": 1e-17,
    "contribution": 0.05,
    "contribution_low": None,
    "contribution_high": 1e22,
    "rent": 0.0,
    "accuracy_difference": -0.0,
    "mcnemar_p": 0.04,
}


def people() -> User:
    accounts.create_first_admin(actor=SYSTEM)
    user, _ = accounts.create_user(username="ada", email="ada@example.org", role=Role.CURATOR, actor=SYSTEM)
    user = accounts.set_role(user=user, role=Role.ADMIN, reason="promoted", actor=SYSTEM)
    accounts.issue_token(user=user, name="kept", scopes=[Scope.RUNS_READ], actor=SYSTEM)
    lost, _ = accounts.issue_token(user=user, name="lost", scopes=[Scope.RUNS_READ], actor=SYSTEM, lifetime=None)
    accounts.revoke_token(token=lost, actor=SYSTEM, reason="lost")
    accounts.record_login(user=user, actor=SYSTEM)
    return user


def library() -> Kernel:
    """A kernel that was built and validated in the sandbox, beside an uploaded one that was rejected."""
    blueprint = blueprints.create_blueprint(name="mine", title="First", tags={"width": 1.5}, actor=SYSTEM)
    blueprint = blueprints.update_blueprint(blueprint=blueprint, title="Second", tags={"width": [True]}, actor=SYSTEM)
    version = blueprints.submit_version(blueprint=blueprint, spec=residual_spec(), actor=SYSTEM)
    kernel = kernels.register_kernel(version=version, actor=SYSTEM, tags={"a": 1e16})
    kernel = kernels.process_kernel(kernel=kernel, actor=SYSTEM)
    assert kernel.state == KernelState.VALIDATED
    other = kernels.register_kernel(version=version, bindings={"D": 4, "H": 4}, awaits_upload=True, actor=SYSTEM)
    kernels.upload_binary(kernel=other, data=b"not an artefact", actor=SYSTEM)
    kernels.process_kernel(kernel=other, actor=SYSTEM)
    return kernel


def transition(kernel: Kernel, sequence: int, source: SeedState, target: SeedState, **values: Any) -> TransitionRecord:
    values = {"seed": 1, "site": "hidden.0", "operator": "residual", "kernel": kernel.digest, "gate": Gate.G0} | values
    return TransitionRecord(
        sequence=sequence, epoch=1, step=10, source=source, target=target, reason="measured", alpha=0.1, **values
    )


def growth(kernel: Kernel) -> TrainingRun:
    """A run that germinated a seed, paused, went on and ended."""
    run = training.create_run(settings=SETTINGS, actor=SYSTEM)
    training.claim_run(run_id=run.pk, holder="worker-1")
    training.freeze_library(run=run, fencing_token=1)
    at = {"run_id": run.pk, "fencing_token": 1}
    decision = DecisionRecord(sequence=1, epoch=1, step=40, action=Action.HOLD, rule="window", reason="too early")
    training.record_decision(**at, record=decision)
    moves = [SeedState.DORMANT, SeedState.GERMINATED, SeedState.TRAINING]
    for number, (source, target) in enumerate(pairwise(moves), start=2):
        training.record_transition(**at, record=transition(kernel, number, source, target))
    training.record_outcome(
        **at, record=GraftOutcome(sequence=9, epoch=3, seed=1, kernel=kernel.digest or "", **OUTCOME)
    )
    training.pause_run(run=run, actor=SYSTEM)
    training.finish_run(**at, state=RunState.PAUSED, reason="asked to")
    training.resume_run(run=run, actor=SYSTEM)
    training.claim_run(run_id=run.pk, holder="worker-2")
    training.finish_run(
        run_id=run.pk, fencing_token=2, state=RunState.FAILED, reason="the loss diverged", failure="nan"
    )
    return run


def keeping(run: TrainingRun) -> None:
    """Two checkpoints of a run that is over: one goes by a policy that came and changed, the other moves to the object
    storage and back, is pinned, verified in vain, and the run is set back to it."""
    policy = policies.create_policy(run_id=run.pk, keep_last=3, actor=SYSTEM)
    policies.remove_policy(policy=policies.create_policy(actor=SYSTEM), actor=SYSTEM)
    policies.change_policy(policy=policy, keep_last=1, keep_days=0, keep_best=0, actor=SYSTEM)
    save(run.pk, 40)
    newest = save(run.pk, 80)
    assert expire_due(run_id=run.pk, actor=SYSTEM).checkpoints == 1
    newest = archiving.archive(checkpoint=newest, actor=SYSTEM)
    newest = archiving.recall(checkpoint=newest, actor=SYSTEM)
    pinning.pin(checkpoint=newest, actor=SYSTEM)
    job = jobs.request_job(kind=JobKind.VERIFY, checkpoint=newest, actor=SYSTEM)
    jobs.cancel_job(job=job, actor=SYSTEM)
    training.restore_run(run=run, checkpoint=newest, actor=SYSTEM)


def routing() -> None:
    """A route that changed and got another secret, beside one that came and went."""
    hook = {"channel": "webhook", "target": "https://93.184.215.14/hook", "actor": SYSTEM}
    route, _ = routes.create_route(name="ops", **hook)
    route = routes.change_route(route=route, group_by=["host"], matchers=[], send_resolved=False, actor=SYSTEM)
    routes.rotate_secret(route=route, actor=SYSTEM)
    notifying.send_test(route=route, actor=SYSTEM)
    other, _ = routes.create_route(name="unwanted", **hook)
    routes.remove_route(route=other, actor=SYSTEM)


def alerting() -> None:
    """Rules that came with the platform, one of which was changed and reset; one that fired, was acknowledged, silenced
    and changed; and one that came and went."""
    shipped = rules.install_shipped(actor=SYSTEM)[0]
    shipped = rules.change_rule(rule=shipped, enabled=False, labels={"team": "ml"}, actor=SYSTEM)
    rules.reset_rule(rule=shipped, actor=SYSTEM)
    measure(0.97, host="mill")
    limit = {"op": ">", "value": 0.1 + 0.2}
    rule = rules.create_rule(name="Busy", kind="threshold", metric=CPU, parameters=limit, actor=SYSTEM)
    evaluating.evaluate()
    alert = Alert.objects.get(rule_id=rule.pk)
    alerts.acknowledge(alert=alert, note="it is the fan", actor=SYSTEM)
    silence = silences.silence_alert(alert=alert, duration=timedelta(hours=1), comment="new fan", actor=SYSTEM)
    silences.end_silence(silence=silence, actor=SYSTEM)
    rules.change_rule(rule=rule, parameters={"op": ">", "value": 1e16}, for_seconds=60, actor=SYSTEM)
    unwanted = rules.create_rule(name="Other", kind="plateau", metric=CPU, parameters={}, actor=SYSTEM)
    rules.remove_rule(rule=unwanted, actor=SYSTEM)


def curation(kernel: Kernel) -> None:
    """Another kernel with a tag, a successor and an alias that moved on; then ``kernel`` is retired by a plan, brought
    back, quarantined, retired again and purged."""
    other = kernels.register_kernel(version=kernel.blueprint_version, bindings={"D": 8, "H": 4}, actor=SYSTEM)
    other = kernels.process_kernel(kernel=other, actor=SYSTEM)
    tag = kernels.declare_tag(name="arch", type=TagType.TEXT, actor=SYSTEM)
    kernels.update_tag(tag_key=tag, choices=["mlp"], actor=SYSTEM)
    until = timezone.now() + timedelta(days=1)
    kernels.update_kernel(kernel=other, tags={"arch": "mlp"}, pinned_until=until, legal_hold=True, actor=SYSTEM)
    kernels.link_kernels(child=kernel, parent=other, kind=LineageKind.DISTILLED, weight=0.5, actor=SYSTEM)
    kernels.change_tier(kernel=other, tier=StorageTier.HOT, actor=SYSTEM)
    moves = kernels.plan_cache(kind=CachePlanKind.OPTIMISE, actor=SYSTEM)
    kernels.cancel_cache_plan(plan=moves, reason="not now", actor=SYSTEM)
    for target in (kernel, other):
        alias = kernels.set_alias(kernel=target, name="prod", reason="better", actor=SYSTEM)
    kernels.unprotect_alias(alias=alias, reason="none is good", actor=SYSTEM)
    kernels.remove_alias(alias=alias, actor=SYSTEM)
    kernels.deprecate_kernel(kernel=kernel, reason="old", actor=SYSTEM)
    policy = kernels.create_policy(name="all", older_than_days=0, grace_days=0, actor=SYSTEM)
    policy = kernels.update_policy(policy=policy, max_share=1.0, actor=SYSTEM)
    plan, unwanted = (kernels.make_plan(policy=policy, actor=SYSTEM) for _ in range(2))
    kernels.discard_plan(plan=unwanted, reason="one is enough", actor=SYSTEM)
    kernels.apply_plan(plan=kernels.approve_plan(plan=plan, reason="looked at", actor=SYSTEM), actor=SYSTEM)
    kernel = kernels.restore_kernel(kernel=Kernel.objects.get(pk=kernel.pk), actor=SYSTEM)
    kernels.quarantine_kernel(kernel=kernel, reason="odd", actor=SYSTEM)
    kernels.retire_kernel(kernel=kernel, reason="odd", successor=other, restorable_for=timedelta(0), actor=SYSTEM)
    kernels.purge_kernel(kernel=kernel, actor=SYSTEM)


def test_the_events_of_every_kind_of_asset_are_its_rows() -> None:
    people()
    kernel = library()
    keeping(growth(kernel))
    curation(kernel)
    routing()
    alerting()

    unsealed = replay()
    audit.seal()
    sealed = replay()

    assert list(map(str, unsealed.differences)) == []
    assert list(map(str, sealed.differences)) == []
    assert unsealed.subjects == sealed.subjects
    assert set(sealed.subjects) == set(subject_models()) - {"report"}


def test_what_was_rolled_back_is_in_neither() -> None:
    accounts.create_first_admin(actor=SYSTEM)
    with transaction.atomic():
        blueprints.create_blueprint(name="mine", actor=SYSTEM)
        transaction.set_rollback(True)

    assert replay().is_equal


def test_a_person_who_was_erased_is_counted_and_their_account_is_compared() -> None:
    user = people()
    accounts.erase_person(user=user, actor=SYSTEM, reason="they asked")

    found = replay()

    assert found.differences == []
    assert found.erased == 1


def test_a_revoked_token_is_gone_in_both() -> None:
    user = people()
    token, _ = accounts.issue_token(user=user, name="ci", scopes=[Scope.RUNS_READ], actor=SYSTEM)
    accounts.revoke_token(token=token, actor=SYSTEM)

    past = state_of("token", str(token.id))

    assert past is not None
    assert not past.exists
    assert replay(kinds=["token"]).is_equal
