"""For every service that writes: how to call it on real rows, and the event that it owes.

    @case("kernels.deprecate_kernel", "kernel.transition")
    def _(actor: Actor) -> Arranged:
        kernel = KernelFactory(state=KernelState.VALIDATED)
        return lambda: kernels.deprecate_kernel(kernel=kernel, reason="old", actor=actor), kernel

The function arranges rows and returns the call, and the subject of the event: a row, or a function from the call's
result to the row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from django.db import connection
from django.utils import timezone
from safetensors.torch import save_file

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.accounts.roles import Role, Scope
from apps.audit import keys
from apps.audit import services as audit
from apps.audit.keys import SigningKey, sign_note
from apps.audit.models import AuditKey, AuditReport
from apps.audit.verifier import EMPTY_ROOT
from apps.audit.verifier import Checkpoint as NoteOfCheckpoint
from apps.blueprints import services as blueprints
from apps.blueprints.lifecycle import VersionState
from apps.checkpoints import places
from apps.checkpoints import services as checkpoints
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind, Location, ObjectReference
from apps.checkpoints.services import archiving, exporting, garbage, jobs, loading, pinning, policies, rounds, uploads
from apps.checkpoints.services.rebuilding import rebuild
from apps.checkpoints.services.retention import expire_due
from apps.checkpoints.store.packs import digest_of
from apps.core.actors import SYSTEM, Actor
from apps.core.ids import new_id
from apps.core.lineage import LineageKind
from apps.kernels import services as kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import (
    CachePlan,
    CachePlanKind,
    KernelAlias,
    KernelChunk,
    RetentionPlan,
    RetentionPolicy,
    StorageTier,
    TagKey,
    TagType,
)
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action, Command, DecisionRecord, GraftOutcome, TransitionRecord
from apps.morphogenesis.settings import RunSettings
from apps.observability.models import Alert, AlertRule
from apps.observability.selectors.observing import Judged, Sighting, judge
from apps.observability.services import alerts, delivering, evaluating, notifying, routes, rules, silences
from apps.training import services as training
from apps.training.lifecycle import RunState
from apps.training.models import RecoveryCause, RunKind, RunLease, TrainingRun
from apps.training.services import uploads as run_uploads
from apps.training.services.recovery import end_recovery
from tests.support.alerting import measure
from tests.support.checkpoints import save
from tests.support.factories import (
    PASSWORD,
    AlertFactory,
    AlertRouteFactory,
    AlertRuleFactory,
    BlueprintFactory,
    BlueprintVersionFactory,
    CheckpointFactory,
    CheckpointJobFactory,
    CheckpointPolicyFactory,
    KernelFactory,
    NotificationFactory,
    RecoveryEventFactory,
    RunFactory,
    SeedFactory,
    SilenceFactory,
    SlotFactory,
    TokenFactory,
    UserFactory,
    residual_spec,
)

Arranged = tuple[Callable[[], Any], Any]
GROWTH_OFF = {"task": "digits", "epochs": 1, "growth": {"enabled": False}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``by`` is the kind of actor that a service without an ``actor`` names itself; "" means the caller's."""

    event: str
    arrange: Callable[[Actor], Arranged]
    by: str = ""


CASES: dict[str, Case] = {}

EXEMPT = {
    "audit.seal": "gives events their places in the tree; its checkpoint is signed and tells of itself",
    "audit.copy_checkpoints": "copies what is signed already",
    "audit.copy_name": "computes, writes nothing",
    "audit.partitions": "reads",
    "audit.closed_partitions": "reads",
    "audit.archivable_partitions": "reads",
    "audit.verified_size": "reads",
    "audit.archive_partition": "needs a month that is over, which only the owner can make (test_audit_archive.py)",
    "audit.record": "is what records",
    "audit.json_patch": "computes, writes nothing",
    "audit.committed": "puts a digest in the place of a name, for record",
    "audit.told": "puts digests in the place of names, for record",
    "audit.index_text": "its task records each partition (tests/integration/test_audit_search.py)",
    "audit.make_partitions": "its task records each partition (tests/integration/test_audit_partitions.py)",
    "kernels.hold_kernels": "use of a kernel is a sign of life, outside the net",
    "kernels.release_kernels": "use of a kernel is a sign of life, outside the net",
    "training.record_epoch": "measurements, thousands a run, are the run's own record",
    "training.extend_lease": "a heartbeat is a sign of life, outside the net",
    "training.verify_lease": "locks a lease, changes nothing",
    "training.hand_over": "the lease between two segments is a sign of life, outside the net",
    "training.mark_progress": "the lease is a sign of life, outside the net",
    "training.note_recovery": "how long the stages of a recovery took is outside the net",
    "training.check_restore": "refuses, writes nothing",
    "training.check_ours": "refuses, writes nothing",
    "checkpoints.register": "tells the process how work is done",
    "checkpoints.beat": "progress is a sign of life, outside the net",
    "checkpoints.begin_upload": "stages what no row knows of until its commit",
    "checkpoints.put_object": "stages what no row knows of until its commit",
    "checkpoints.collect_uploads": "removes what no row knows of",
    "checkpoints.collect_garbage": "objects and packs are how checkpoints are stored: outside the net",
    "checkpoints.mark": "objects are how checkpoints are stored: outside the net",
    "checkpoints.sweep": "objects are how checkpoints are stored: outside the net",
    "checkpoints.release_objects": "the service that lets a checkpoint go tells of it",
    "checkpoints.remove_manifests": "deletes files of checkpoints that have gone already",
    "checkpoints.compact": "where objects lie is outside the net",
    "checkpoints.note_broken": "objects are outside the net; the checkpoint is verified, which tells of it",
    "checkpoints.copy": "a copy changes nothing of what the checkpoint is",
    "checkpoints.put_pack": "where packs lie is outside the net",
    "checkpoints.fetch_pack": "where packs lie is outside the net",
    "checkpoints.load": "reads; where packs lie is outside the net",
    "checkpoints.read": "reads",
    "checkpoints.from_either_place": "reads; where packs lie is outside the net",
    "checkpoints.row_of": "computes, writes nothing",
    "checkpoints.add_objects": "objects are how checkpoints are stored: outside the net",
    "checkpoints.add_references": "objects are how checkpoints are stored: outside the net",
    "training.needed_to_go_on": "reads",
    "checkpoints.free": "where packs lie is outside the net",
    "checkpoints.free_archived": "where packs lie is outside the net",
    "checkpoints.told": "names what a storage did not do, for its callers",
    "checkpoints.copy_due": "tells of trouble only (tests/integration/test_checkpoint_archive.py)",
    "checkpoints.bring_back_needed": "where packs lie is outside the net",
    "training.begin_checkpoint_upload": "stages what no row knows of until its commit",
    "training.send_checkpoint_object": "stages what no row knows of until its commit",
    "observability.ingest": "samples are measurements, and their own record",
    "observability.collect": "samples are measurements, and their own record",
    "observability.readings": "computes, writes nothing",
    "observability.forget": "what a process remembers is no row",
    "observability.scan": "anomalies are what a detector computes from samples; they lead nowhere by themselves",
    "observability.roll_up": "averages and packed samples say what the samples said",
    "observability.deliver": "claims, then sends, then tells: in this order (tests/integration/test_alert_delivery.py)",
    "observability.build_rule": "checks, writes nothing",
    "observability.look_up": "asks name servers, writes nothing",
    "observability.database_now": "reads",
    "observability.notify": "notifications are their own log; the alerts that they tell of have their events",
}


def case(
    name: str, event: str, *, by: str = ""
) -> Callable[[Callable[[Actor], Arranged]], Callable[[Actor], Arranged]]:
    def register(arrange: Callable[[Actor], Arranged]) -> Callable[[Actor], Arranged]:
        CASES[name] = Case(event=event, arrange=arrange, by=by)
        return arrange

    return register


# --- accounts


@case("accounts.create_user", "access.user_created")
def _(actor: Actor) -> Arranged:
    return lambda: accounts.create_user(username="grace", actor=actor), lambda result: result[0]


@case("accounts.create_first_admin", "access.user_created")
def _(actor: Actor) -> Arranged:
    User.objects.filter(role=Role.ADMIN).update(is_active=False)
    return lambda: accounts.create_first_admin(actor=actor), lambda result: result[0]


@case("accounts.set_role", "access.role_changed")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return lambda: accounts.set_role(user=user, role=Role.CURATOR, reason="promoted", actor=actor), user


@case("accounts.erase_person", "access.account_closed")
def _(actor: Actor) -> Arranged:
    user = TokenFactory().user
    return lambda: accounts.erase_person(user=user, reason="left", actor=actor), user


@case("accounts.set_password", "access.password_changed")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return lambda: accounts.set_password(user=user, actor=actor), user


@case("accounts.renew_password_hash", "access.password_changed", by="system")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return lambda: accounts.renew_password_hash(user=user, password=PASSWORD), user


@case("accounts.issue_token", "access.token_issued")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return (
        lambda: accounts.issue_token(user=user, name="ci", scopes=[Scope.RUNS_READ], actor=actor),
        lambda result: result[0],
    )


@case("accounts.revoke_token", "access.token_revoked")
def _(actor: Actor) -> Arranged:
    token = TokenFactory()
    return lambda: accounts.revoke_token(token=token, actor=actor), token


@case("accounts.record_login", "access.login")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return lambda: accounts.record_login(user=user, actor=actor), user


@case("accounts.record_logout", "access.logout")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return lambda: accounts.record_logout(user=user, actor=actor), user


@case("accounts.record_refused_access", "access.refused")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return (
        lambda: accounts.record_refused_access(
            user=user, method="POST", route="api/v1/runs", reason="this needs the scope runs:write", actor=actor
        ),
        user,
    )


@case("accounts.record_refused_login", "access.login_refused", by="user")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return lambda: accounts.record_refused_login(username=user.username, address="192.0.2.1"), user


# --- audit: people and reports


@case("audit.verify_trail", "audit.verified")
def _(actor: Actor) -> Arranged:
    return lambda: audit.verify_trail(actor=actor), SimpleNamespace(id="audit")


@case("audit.record_export", "access.audit_exported")
def _(actor: Actor) -> Arranged:
    filters = {"family": ["kernel"]}
    return lambda: audit.record_export(format="csv", filters=filters, actor=actor), SimpleNamespace(id="audit")


@case("audit.accept_restored_trail", "audit.restored")
def _(actor: Actor) -> Arranged:
    """More was signed than the trail has: a backup was restored."""
    keys.remember(sign_note(NoteOfCheckpoint("log", 9, bytes(32)).text, SigningKey.make()))
    return lambda: audit.accept_restored_trail(actor=actor, reason="disk died"), SimpleNamespace(id="audit")


@case("audit.rotate_key", "audit.key_rotated")
def _(actor: Actor) -> Arranged:
    ring = keys.load() or keys.make_first()
    return (
        lambda: audit.rotate_key(actor=actor, reason="yearly"),
        lambda result: SimpleNamespace(id=(keys.load() or ring).current.id),
    )


@case("audit.erase_person", "access.person_erased")
def _(actor: Actor) -> Arranged:
    user = UserFactory()
    return lambda: audit.erase_person(user_id=user.pk, reason="left", actor=actor), lambda person: person


@case("audit.request_report", "report.requested")
def _(actor: Actor) -> Arranged:
    return lambda: audit.request_report(kind="access", parameters={}, actor=actor), lambda report: report


def report_of_an_empty_trail(actor: Actor) -> AuditReport:
    """Of a time before the first event: it needs nothing sealed, which a transaction that rolls back cannot have."""
    key = (keys.load() or keys.make_first()).current
    past = datetime(2020, 1, 1, tzinfo=UTC)
    AuditKey.objects.get_or_create(pk=key.id, defaults={"verifier": str(key.verifier), "admitted_at": past})
    with connection.cursor() as cursor:
        cursor.execute("SELECT esper_audit_add_checkpoint(0, %s, %s, '', %s)", [past, EMPTY_ROOT, key.id])
    return audit.request_report(kind="access", parameters={}, as_of=past, actor=actor)


@case("audit.write_report", "report.written", by="worker")
def _(actor: Actor) -> Arranged:
    """The tree that it is answered from is chosen first: whoever repeats it gives the same answer."""
    report = report_of_an_empty_trail(actor)
    return lambda: audit.write_report(report=report), report


@case("audit.reproduce_report", "report.reproduced")
def _(actor: Actor) -> Arranged:
    report = audit.write_report(report=report_of_an_empty_trail(actor))
    return lambda: audit.reproduce_report(report=report, actor=actor), report


# --- blueprints


@case("blueprints.create_blueprint", "blueprint.created")
def _(actor: Actor) -> Arranged:
    return lambda: blueprints.create_blueprint(name="mine", actor=actor), lambda blueprint: blueprint


@case("blueprints.update_blueprint", "blueprint.modified")
def _(actor: Actor) -> Arranged:
    blueprint = BlueprintFactory()
    return lambda: blueprints.update_blueprint(blueprint=blueprint, tags={"a": 1}, actor=actor), blueprint


@case("blueprints.submit_version", "blueprint.version_submitted")
def _(actor: Actor) -> Arranged:
    blueprint = BlueprintFactory()
    return (
        lambda: blueprints.submit_version(blueprint=blueprint, spec=residual_spec(), actor=actor),
        lambda version: version,
    )


@case("blueprints.move_version", "blueprint.version_transition")
def _(actor: Actor) -> Arranged:
    version = BlueprintVersionFactory(state=VersionState.SUBMITTED)
    return (
        lambda: blueprints.move_version(version=version, to=VersionState.COMPILING, actor=actor, reason="compiling"),
        version,
    )


@case("blueprints.find_or_submit_version", "blueprint.version_submitted")
def _(actor: Actor) -> Arranged:
    blueprint = BlueprintFactory()
    return (
        lambda: blueprints.find_or_submit_version(blueprint=blueprint, spec=residual_spec(), actor=actor),
        lambda submission: submission.version,
    )


@case("blueprints.clone_blueprint", "blueprint.created")
def _(actor: Actor) -> Arranged:
    version = BlueprintVersionFactory()
    return (
        lambda: blueprints.clone_blueprint(version=version, name="copy", actor=actor),
        lambda blueprint: blueprint,
    )


@case("blueprints.mutate_version", "blueprint.version_linked")
def _(actor: Actor) -> Arranged:
    blueprint = BlueprintFactory(next_number=2)
    version = BlueprintVersionFactory(blueprint=blueprint, number=1)
    return (
        lambda: blueprints.mutate_version(version=version, seed=1, actor=actor),
        lambda submission: submission.version,
    )


@case("blueprints.cross_versions", "blueprint.version_linked")
def _(actor: Actor) -> Arranged:
    left = BlueprintVersionFactory(blueprint=BlueprintFactory(next_number=2), number=1)
    right = BlueprintVersionFactory()
    return (
        lambda: blueprints.cross_versions(left=left, right=right, seed=1, actor=actor),
        lambda submission: submission.version,
    )


@case("blueprints.link_versions", "blueprint.version_linked")
def _(actor: Actor) -> Arranged:
    child, parent = BlueprintVersionFactory(), BlueprintVersionFactory()
    return lambda: blueprints.link_versions(child=child, parent=parent, kind=LineageKind.DERIVED, actor=actor), child


@case("blueprints.load_core_library", "blueprint.version_submitted")
def _(actor: Actor) -> Arranged:
    return lambda: blueprints.load_core_library(actor=actor), lambda versions: versions[-1]


@case("blueprints.load_starter_library", "blueprint.version_submitted")
def _(actor: Actor) -> Arranged:
    return lambda: blueprints.load_starter_library(actor=actor), lambda versions: versions[-1]


# --- kernels


@case("kernels.register_kernel", "kernel.registered")
def _(actor: Actor) -> Arranged:
    version = BlueprintVersionFactory()
    return lambda: kernels.register_kernel(version=version, actor=actor), lambda kernel: kernel


@case("kernels.ensure_kernel", "kernel.registered")
def _(actor: Actor) -> Arranged:
    version = BlueprintVersionFactory()
    return lambda: kernels.ensure_kernel(version=version, bindings={}, actor=actor), lambda kernel: kernel


@case("kernels.process_kernel", "kernel.validated")
def _(actor: Actor) -> Arranged:
    """Compiles and validates for real, in the sandbox."""
    kernel = kernels.register_kernel(version=BlueprintVersionFactory(), actor=actor)
    return lambda: kernels.process_kernel(kernel=kernel, actor=actor), kernel


@case("kernels.grade_kernels", "kernel.graded")
def _(actor: Actor) -> Arranged:
    """The smallest and fastest of a cohort of five."""
    cohort = [
        KernelFactory(
            state=KernelState.VALIDATED,
            hardware={"profile": "one"},
            metrics={"relative_per_mflop": 1.0 + number, "bytes": 1000 + number},
        )
        for number in range(5)
    ]
    return lambda: kernels.grade_kernels(actor=actor), cohort[0]


@case("kernels.upload_binary", "kernel.uploaded")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(awaits_upload=True)
    return lambda: kernels.upload_binary(kernel=kernel, data=b"bytes", actor=actor), kernel


def declared_tag(actor: Actor) -> TagKey:
    return kernels.declare_tag(name="arch", type=TagType.TEXT, choices=["conv", "attn"], actor=actor)


@case("kernels.declare_tag", "tag.declared")
def _(actor: Actor) -> Arranged:
    return lambda: declared_tag(actor), lambda key: key


@case("kernels.update_tag", "tag.changed")
def _(actor: Actor) -> Arranged:
    key = declared_tag(actor)
    return lambda: kernels.update_tag(tag_key=key, choices=["conv"], actor=actor), key


@case("kernels.remove_tag", "tag.removed")
def _(actor: Actor) -> Arranged:
    key = declared_tag(actor)
    return lambda: kernels.remove_tag(tag_key=key, actor=actor), key


@case("kernels.quarantine_kernel", "kernel.quarantined")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    return lambda: kernels.quarantine_kernel(kernel=kernel, reason="bad bytes", actor=actor), kernel


@case("kernels.deprecate_kernel", "kernel.transition")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    return lambda: kernels.deprecate_kernel(kernel=kernel, reason="old", actor=actor), kernel


def outcome_values() -> dict[str, Any]:
    return {
        "site": "layers.0.width",
        "verdict": SeedState.FOSSILIZED,
        "parameters": 300,
        "train_flops": 1_000_000,
        "loss_before": 0.3,
        "loss_after": 0.25,
        "contribution": 0.05,
        "contribution_low": 0.02,
        "contribution_high": 0.08,
        "rent": 0.0002,
        "accuracy_difference": 0.01,
        "mcnemar_p": 0.04,
    }


@case("kernels.attach_blob", "kernel.uploaded")
def _(actor: Actor) -> Arranged:
    kernel, other = KernelFactory(awaits_upload=True), KernelFactory(state=KernelState.VALIDATED)
    return lambda: kernels.attach_blob(kernel=kernel, digest=other.digest, actor=actor), kernel


@case("kernels.update_kernel", "kernel.modified")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    until = timezone.now() + timedelta(days=30)
    return lambda: kernels.update_kernel(kernel=kernel, actor=actor, tags={"arch": "mlp"}, pinned_until=until), kernel


@case("kernels.link_kernels", "kernel.linked")
def _(actor: Actor) -> Arranged:
    child, parent = KernelFactory(), KernelFactory()
    return lambda: kernels.link_kernels(child=child, parent=parent, kind=LineageKind.DERIVED, actor=actor), child


def alias_of_a_kernel(name: str = "candidate") -> KernelAlias:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    return kernels.set_alias(kernel=kernel, name=name, actor=SYSTEM)


@case("kernels.set_alias", "alias.set")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    return lambda: kernels.set_alias(kernel=kernel, name="prod", actor=actor), lambda alias: alias


@case("kernels.remove_alias", "alias.removed")
def _(actor: Actor) -> Arranged:
    alias = alias_of_a_kernel()
    return lambda: kernels.remove_alias(alias=alias, actor=actor), alias


@case("kernels.protect_alias", "alias.protection_changed")
def _(actor: Actor) -> Arranged:
    alias = alias_of_a_kernel()
    return lambda: kernels.protect_alias(alias=alias, actor=actor), alias


@case("kernels.unprotect_alias", "alias.protection_changed")
def _(actor: Actor) -> Arranged:
    alias = alias_of_a_kernel("prod")
    return lambda: kernels.unprotect_alias(alias=alias, reason="over", actor=actor), alias


@case("kernels.record_field_report", "kernel.field_report")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    values = {**outcome_values(), "task": "digits", "host": "mlp"}
    return (
        lambda: kernels.record_field_report(kernel=kernel, run_id=new_id(), seed_number=1, actor=actor, **values),
        kernel,
    )


# --- kernels: retirement and storage tiers


def retention_policy(actor: Actor) -> RetentionPolicy:
    return kernels.create_policy(name="unused", unused_for_days=0, grace_days=0, max_share=1.0, actor=actor)


def retention_plan(actor: Actor, *, approved: bool = False) -> RetentionPlan:
    """Of one kernel."""
    KernelFactory(state=KernelState.VALIDATED)
    plan = kernels.make_plan(policy=retention_policy(actor), actor=actor)
    return kernels.approve_plan(plan=plan, reason="looked at", actor=actor) if approved else plan


@case("kernels.create_policy", "retention.policy_created")
def _(actor: Actor) -> Arranged:
    return lambda: retention_policy(actor), lambda policy: policy


@case("kernels.update_policy", "retention.policy_changed")
def _(actor: Actor) -> Arranged:
    policy = retention_policy(actor)
    return lambda: kernels.update_policy(policy=policy, unused_for_days=30, actor=actor), policy


@case("kernels.make_plan", "retention.planned")
def _(actor: Actor) -> Arranged:
    KernelFactory(state=KernelState.VALIDATED)
    policy = retention_policy(actor)
    return lambda: kernels.make_plan(policy=policy, actor=actor), lambda plan: plan


@case("kernels.approve_plan", "retention.transition")
def _(actor: Actor) -> Arranged:
    plan = retention_plan(actor)
    return lambda: kernels.approve_plan(plan=plan, reason="looked at", actor=actor), plan


@case("kernels.discard_plan", "retention.transition")
def _(actor: Actor) -> Arranged:
    plan = retention_plan(actor)
    return lambda: kernels.discard_plan(plan=plan, reason="no", actor=actor), plan


@case("kernels.apply_plan", "retention.applied")
def _(actor: Actor) -> Arranged:
    plan = retention_plan(actor, approved=True)
    return lambda: kernels.apply_plan(plan=plan, actor=actor), plan


# --- kernels: plans of the cache


def cache_plan(actor: Actor, *, applying: bool = False) -> CachePlan:
    """Of one kernel that is hot without being read."""
    KernelFactory(state=KernelState.VALIDATED, storage_tier=StorageTier.HOT)
    plan = kernels.plan_cache(kind=CachePlanKind.OPTIMISE, actor=actor)
    return kernels.apply_cache_plan(plan=plan, actor=actor) if applying else plan


@case("kernels.plan_cache", "cache.planned")
def _(actor: Actor) -> Arranged:
    KernelFactory(state=KernelState.VALIDATED, storage_tier=StorageTier.HOT)
    return lambda: kernels.plan_cache(kind=CachePlanKind.OPTIMISE, actor=actor), lambda plan: plan


@case("kernels.apply_cache_plan", "cache.applying")
def _(actor: Actor) -> Arranged:
    plan = cache_plan(actor)
    return lambda: kernels.apply_cache_plan(plan=plan, actor=actor), plan


@case("kernels.carry_out_cache_plan", "cache.applied")
def _(actor: Actor) -> Arranged:
    plan = cache_plan(actor, applying=True)
    return lambda: kernels.carry_out_cache_plan(plan=plan, actor=actor), plan


@case("kernels.cancel_cache_plan", "cache.cancelled")
def _(actor: Actor) -> Arranged:
    plan = cache_plan(actor)
    return lambda: kernels.cancel_cache_plan(plan=plan, reason="no", actor=actor), plan


@case("kernels.fail_cache_plan", "cache.failed")
def _(actor: Actor) -> Arranged:
    plan = cache_plan(actor, applying=True)
    return lambda: kernels.fail_cache_plan(plan=plan, problem="out of room", actor=actor), plan


# --- kernels: the end of one


@case("kernels.retire_kernel", "kernel.retired")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    return lambda: kernels.retire_kernel(kernel=kernel, reason="old", actor=actor), kernel


@case("kernels.restore_kernel", "kernel.restored")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.RETIRED)
    return lambda: kernels.restore_kernel(kernel=kernel, actor=actor), kernel


@case("kernels.purge_kernel", "kernel.purged")
def _(actor: Actor) -> Arranged:
    past = timezone.now() - timedelta(days=1)
    kernel = KernelFactory(state=KernelState.RETIRED, retired_at=past, purge_after=past)
    return lambda: kernels.purge_kernel(kernel=kernel, actor=actor), kernel


@case("kernels.verify_kernel", "kernel.quarantined")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    KernelChunk.objects.filter(blob_id=kernel.digest).update(data=b"other bytes")
    return lambda: kernels.verify_kernel(kernel=kernel, reason="asked", actor=actor), kernel


@case("kernels.change_tier", "kernel.tier_changed")
def _(actor: Actor) -> Arranged:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    return lambda: kernels.change_tier(kernel=kernel, tier=StorageTier.HOT, actor=actor), kernel


# --- checkpoints


@case("checkpoints.load_latest", "checkpoint.transition")
def _(actor: Actor) -> Arranged:
    """Reading writes where the files of a checkpoint are not what it says: it is quarantined."""
    broken = CheckpointFactory(state=CheckpointState.COMMITTED)
    return lambda: checkpoints.load_latest(run_id=broken.run_id, actor=actor), broken


@case("checkpoints.verify", "checkpoint.transition")
def _(actor: Actor) -> Arranged:
    """One that was set aside while its storage lied: it is right again."""
    checkpoint = save()
    loading.quarantine(checkpoint=checkpoint, problem="the storage lied", actor=SYSTEM)
    checkpoint.refresh_from_db()
    return lambda: loading.verify(checkpoint=checkpoint, actor=actor), checkpoint


@case("checkpoints.quarantine", "checkpoint.transition")
def _(actor: Actor) -> Arranged:
    checkpoint = save()
    return lambda: loading.quarantine(
        checkpoint=checkpoint, problem="it computes other logits", actor=actor
    ), checkpoint


@case("checkpoints.expire_first_format", "checkpoint.transition")
def _(actor: Actor) -> Arranged:
    old = CheckpointFactory(state=CheckpointState.COMMITTED, format="safetensors+json/1")
    return lambda: loading.expire_first_format(run_id=old.run_id, actor=actor), old


@case("checkpoints.rebuild", "checkpoint.rebuilt")
def _(actor: Actor) -> Arranged:
    """The row was lost, and the files are whole."""
    checkpoint = save()
    found = SimpleNamespace(id=checkpoint.pk)
    ObjectReference.objects.filter(checkpoint=checkpoint).delete()
    checkpoint.delete()
    return lambda: rebuild(actor=actor), lambda _: found


@case("checkpoints.expire_abandoned", "checkpoint.transition")
def _(actor: Actor) -> Arranged:
    stale = CheckpointFactory(state=CheckpointState.STAGING)
    Checkpoint.objects.filter(pk=stale.pk).update(created_at=timezone.now() - timedelta(days=1))
    return lambda: garbage.expire_abandoned(actor=actor), stale


ONLY_THE_NEWEST = {"keep_last": 1, "keep_days": 0, "keep_best": 0}


@case("checkpoints.expire_due", "checkpoint.transition")
def _(actor: Actor) -> Arranged:
    run_id = CheckpointPolicyFactory(run_id=new_id(), **ONLY_THE_NEWEST).run_id
    oldest, _ = [CheckpointFactory(run_id=run_id, step=step) for step in (40, 80)]
    return lambda: expire_due(run_id=run_id, actor=actor), oldest


@case("checkpoints.archive", "checkpoint.moved")
def _(actor: Actor) -> Arranged:
    checkpoint = save()
    return lambda: archiving.archive(checkpoint=checkpoint, actor=actor), checkpoint


@case("checkpoints.recall", "checkpoint.moved")
def _(actor: Actor) -> Arranged:
    """One that was on its way to the object storage: its files are in the folder still."""
    checkpoint = save()
    Checkpoint.objects.filter(pk=checkpoint.pk).update(location=Location.UPLOADING)
    return lambda: archiving.recall(checkpoint=checkpoint, actor=actor), checkpoint


@case("checkpoints.archive_due", "checkpoint.moved", by="system")
def _(actor: Actor) -> Arranged:
    run_id = CheckpointPolicyFactory(run_id=new_id(), archive_after_hours=0).run_id
    older, _ = save(run_id, 40), save(run_id, 80)
    return rounds.archive_due, older


@case("checkpoints.scrub", "checkpoint.transition", by="system")
def _(actor: Actor) -> Arranged:
    """One whose files are gone: it is set aside."""
    broken = CheckpointFactory(store_id=places.folder().identity)
    return rounds.scrub, broken


@case("checkpoints.create_policy", "checkpoint_policy.created")
def _(actor: Actor) -> Arranged:
    return lambda: policies.create_policy(run_id=new_id(), keep_last=5, actor=actor), lambda policy: policy


@case("checkpoints.change_policy", "checkpoint_policy.changed")
def _(actor: Actor) -> Arranged:
    policy = CheckpointPolicyFactory()
    return lambda: policies.change_policy(policy=policy, keep_last=5, actor=actor), policy


@case("checkpoints.remove_policy", "checkpoint_policy.removed")
def _(actor: Actor) -> Arranged:
    policy = CheckpointPolicyFactory()
    return lambda: policies.remove_policy(policy=policy, actor=actor), policy


# --- observability: rules, alerts, silences


def busy_host() -> AlertRule:
    """A rule that a stored sample meets."""
    measure(0.97, host="mill")
    rule: AlertRule = AlertRuleFactory()
    return rule


def sighting_of(rule: AlertRule) -> Sighting:
    (judged,) = judge([rule], timezone.now())
    return judged.sightings[0]


OF_MILL = [{"label": "host", "op": "=", "value": "mill"}]
NEW_RULE = {"name": "Busy", "metric": "esper_host_cpu_ratio", "kind": "non_finite", "parameters": {}}


@case("observability.create_rule", "alert_rule.created")
def _(actor: Actor) -> Arranged:
    return lambda: rules.create_rule(**NEW_RULE, actor=actor), lambda rule: rule


@case("observability.change_rule", "alert_rule.changed")
def _(actor: Actor) -> Arranged:
    """What it fires is resolved with it."""
    rule = AlertRuleFactory()
    AlertFactory(rule_id=rule.pk)
    return lambda: rules.change_rule(rule=rule, enabled=False, actor=actor), rule


@case("observability.remove_rule", "alert_rule.removed")
def _(actor: Actor) -> Arranged:
    rule = AlertRuleFactory()
    return lambda: rules.remove_rule(rule=rule, actor=actor), rule


@case("observability.reset_rule", "alert_rule.changed")
def _(actor: Actor) -> Arranged:
    rule = AlertRuleFactory(shipped="disk-nearly-full")
    return lambda: rules.reset_rule(rule=rule, actor=actor), rule


@case("observability.install_shipped", "alert_rule.created")
def _(actor: Actor) -> Arranged:
    return lambda: rules.install_shipped(actor=actor), lambda installed: installed[-1]


@case("observability.evaluate", "alert.fired", by="system")
def _(actor: Actor) -> Arranged:
    busy_host()
    return evaluating.evaluate, lambda _: Alert.objects.get()


@case("observability.apply", "alert.fired", by="system")
def _(actor: Actor) -> Arranged:
    rule = busy_host()
    judged = Judged(rule=rule, sightings=[sighting_of(rule)])
    return lambda: evaluating.apply(judged=judged, now=timezone.now()), lambda _: Alert.objects.get()


@case("observability.begin", "alert.fired", by="system")
def _(actor: Actor) -> Arranged:
    rule = busy_host()
    sighting = sighting_of(rule)
    return lambda: alerts.begin(rule=rule, sighting=sighting, now=timezone.now()), lambda alert: alert


@case("observability.fire", "alert.fired", by="system")
def _(actor: Actor) -> Arranged:
    rule = busy_host()
    verdict = sighting_of(rule).verdict
    alert = AlertFactory(state="PENDING", rule_id=rule.pk)
    return lambda: alerts.fire(alert=alert, rule=rule, verdict=verdict, now=timezone.now()), alert


@case("observability.resolve", "alert.resolved")
def _(actor: Actor) -> Arranged:
    alert = AlertFactory()
    return lambda: alerts.resolve(alert=alert, because="over", now=timezone.now(), actor=actor), alert


@case("observability.resolve_all", "alert.resolved")
def _(actor: Actor) -> Arranged:
    alert = AlertFactory()
    return lambda: alerts.resolve_all(alerts=[alert], because="over", now=timezone.now(), actor=actor), alert


@case("observability.acknowledge", "alert.acknowledged")
def _(actor: Actor) -> Arranged:
    alert = AlertFactory()
    return lambda: alerts.acknowledge(alert=alert, note="it is the fan", actor=actor), alert


@case("observability.create_silence", "silence.created")
def _(actor: Actor) -> Arranged:
    settings = {"matchers": OF_MILL, "duration": timedelta(hours=1), "comment": "new disk"}
    return lambda: silences.create_silence(**settings, actor=actor), lambda silence: silence


@case("observability.silence_alert", "silence.created")
def _(actor: Actor) -> Arranged:
    settings = {"alert": AlertFactory(), "duration": timedelta(hours=1), "comment": "new disk"}
    return lambda: silences.silence_alert(**settings, actor=actor), lambda silence: silence


@case("observability.end_silence", "silence.ended")
def _(actor: Actor) -> Arranged:
    silence = SilenceFactory()
    return lambda: silences.end_silence(silence=silence, actor=actor), silence


# --- observability: routes


@case("observability.create_route", "alert_route.created")
def _(actor: Actor) -> Arranged:
    hook = {"channel": "webhook", "target": "https://93.184.215.14/hook"}
    return lambda: routes.create_route(name="ops", **hook, actor=actor), lambda result: result[0]


@case("observability.change_route", "alert_route.changed")
def _(actor: Actor) -> Arranged:
    route = AlertRouteFactory()
    return lambda: routes.change_route(route=route, group_by=["alertname"], actor=actor), route


@case("observability.rotate_secret", "alert_route.secret_rotated")
def _(actor: Actor) -> Arranged:
    route = AlertRouteFactory()
    return lambda: routes.rotate_secret(route=route, actor=actor), route


@case("observability.remove_route", "alert_route.removed")
def _(actor: Actor) -> Arranged:
    route = AlertRouteFactory()
    return lambda: routes.remove_route(route=route, actor=actor), route


@case("observability.send_test", "alert_route.tested")
def _(actor: Actor) -> Arranged:
    route = AlertRouteFactory()
    return lambda: notifying.send_test(route=route, actor=actor), route


@case("observability.retry_notification", "notification.retried")
def _(actor: Actor) -> Arranged:
    given_up = NotificationFactory(route_id=AlertRouteFactory().pk, state="FAILED")
    return lambda: delivering.retry_notification(notification=given_up, actor=actor), given_up


# --- training: people


@case("training.create_run", "run.created")
def _(actor: Actor) -> Arranged:
    return lambda: training.create_run(settings=GROWTH_OFF, actor=actor), lambda run: run


@case("training.create_external_run", "run.created")
def _(actor: Actor) -> Arranged:
    return (
        lambda: training.create_external_run(task="mine", host="mine", epochs=2, actor=actor),
        lambda run: run,
    )


@case("training.create_control", "run.created")
def _(actor: Actor) -> Arranged:
    grown = RunFactory(state=RunState.COMPLETED, result={"topology": {"host": "mlp"}})
    return lambda: training.create_control(run=grown, actor=actor), lambda run: run


@case("training.ensure_library", "kernel.registered")
def _(actor: Actor) -> Arranged:
    settings = RunSettings.from_mapping({"task": "digits"})
    return lambda: training.ensure_library(settings=settings, actor=actor), lambda found: found[0]


@case("training.pause_run", "run.command")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    return lambda: training.pause_run(run=run, actor=actor), run


@case("training.resume_run", "run.command")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.PAUSED)
    TrainingRun.objects.filter(pk=run.pk).update(command=Command.PAUSE)
    return lambda: training.resume_run(run=run, actor=actor), run


@case("training.stop_run", "run.command")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    return lambda: training.stop_run(run=run, actor=actor), run


@case("training.move_run", "run.transition")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.QUEUED)
    return lambda: training.move_run(run=run, to=RunState.CANCELLED, actor=actor, reason="not needed"), run


# --- training: the worker that holds a run (factories give RUNNING runs the fencing token 0)


@case("training.claim_run", "run.transition")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.QUEUED)
    return lambda: training.claim_run(run_id=run.pk, holder="worker", actor=actor), run


@case("training.freeze_library", "run.library_frozen", by="worker")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING, library=None, settings=RunSettings.from_mapping(GROWTH_OFF).to_dict())
    return lambda: training.freeze_library(run=run, fencing_token=0), run


@case("training.finish_run", "run.transition")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    return (
        lambda: training.finish_run(
            run_id=run.pk, fencing_token=0, state=RunState.FAILED, reason="the loss diverged", actor=actor
        ),
        run,
    )


@case("training.give_up_lease", "run.faulted", by="worker")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    return lambda: training.give_up_lease(run_id=run.pk, fencing_token=0, why="the store is away"), run


@case("training.recover_orphans", "run.recovered", by="system")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    expired = timezone.now() - timedelta(seconds=1)
    RunLease.objects.filter(run=run).update(holder="lost", expires_at=expired)
    return training.recover_orphans, run


# --- training: how runs come back


@case("training.restore_run", "run.restored")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.PAUSED)
    checkpoint = CheckpointFactory(run_id=run.pk)
    return lambda: training.restore_run(run=run, checkpoint=checkpoint, actor=actor), run


@case("training.open_recovery", "recovery.begun")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    return lambda: training.open_recovery(run=run, cause=RecoveryCause.LEASE, actor=actor), lambda opened: opened


@case("training.resume_recovery", "recovery.resumed")
def _(actor: Actor) -> Arranged:
    recovery = RecoveryEventFactory()
    return (
        lambda: training.resume_recovery(run_id=recovery.run_id, holder="worker", fencing_token=1, actor=actor),
        recovery,
    )


@case("training.end_recovery", "recovery.failed")
def _(actor: Actor) -> Arranged:
    recovery = RecoveryEventFactory()
    return (
        lambda: end_recovery(run=recovery.run, to=RunState.FAILED, reason="it diverged", actor=actor),
        recovery,
    )


# --- training: what the engine reports


@case("training.record_decision", "adaptation.decision")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    record = DecisionRecord(sequence=1, epoch=1, step=40, action=Action.HOLD, rule="window", reason="too early")
    return lambda: training.record_decision(run_id=run.pk, fencing_token=0, record=record, actor=actor), run


@case("training.record_transition", "seed.transition")
def _(actor: Actor) -> Arranged:
    run = RunFactory(state=RunState.RUNNING)
    seed = SeedFactory(run=run, slot=SlotFactory(run=run, site="layers.0"), state=SeedState.GERMINATED)
    record = TransitionRecord(
        sequence=1,
        epoch=1,
        step=40,
        seed=seed.number,
        site="layers.0",
        operator=seed.operator,
        kernel=seed.kernel_digest,
        source=SeedState.GERMINATED,
        target=SeedState.TRAINING,
        reason="the next epoch began",
    )
    return lambda: training.record_transition(run_id=run.pk, fencing_token=0, record=record, actor=actor), seed


@case("training.record_outcome", "kernel.field_report")
def _(actor: Actor) -> Arranged:
    run, kernel = RunFactory(state=RunState.RUNNING), KernelFactory(state=KernelState.VALIDATED)
    seed = SeedFactory(run=run, kernel_id=kernel.pk, kernel_digest=kernel.digest)
    record = GraftOutcome(sequence=1, epoch=3, seed=seed.number, kernel=kernel.digest, **outcome_values())
    return lambda: training.record_outcome(run_id=run.pk, fencing_token=0, record=record, actor=actor), kernel


# --- training: clients with a loop of their own


@case("training.external_heartbeat", "run.transition")
def _(actor: Actor) -> Arranged:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.QUEUED)
    return (
        lambda: training.external_heartbeat(run=run, holder="client", fencing_token=None, actor=actor),
        run,
    )


@case("training.external_events", "adaptation.decision")
def _(actor: Actor) -> Arranged:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
    event = {
        "type": "decision",
        "sequence": 1,
        "epoch": 1,
        "step": 40,
        "action": "HOLD",
        "rule": "mine",
        "reason": "too early",
    }
    return lambda: training.external_events(run=run, fencing_token=0, events=[event], actor=actor), run


@case("training.external_finish", "run.transition")
def _(actor: Actor) -> Arranged:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
    return lambda: training.external_finish(run=run, fencing_token=0, state="COMPLETED", actor=actor), run


# --- checkpoints: work, pins, and what clients send


def checkpoint_job(state: str = JobState.PENDING, kind: str = JobKind.VERIFY, **values: Any) -> CheckpointJob:
    return CheckpointJobFactory(state=state, kind=kind, checkpoint=save(), **values)


@case("checkpoints.request_job", "checkpoint_job.requested")
def _(actor: Actor) -> Arranged:
    checkpoint = CheckpointFactory()
    return (
        lambda: jobs.request_job(kind=JobKind.VERIFY, checkpoint=checkpoint, actor=actor),
        lambda job: job,
    )


@case("checkpoints.cancel_job", "checkpoint_job.transition")
def _(actor: Actor) -> Arranged:
    job = CheckpointJobFactory()
    return lambda: jobs.cancel_job(job=job, actor=actor), job


@case("checkpoints.start_job", "checkpoint_job.transition")
def _(actor: Actor) -> Arranged:
    job = CheckpointJobFactory()
    return lambda: jobs.start_job(job, actor=actor), job


@case("checkpoints.finish_job", "checkpoint_job.transition")
def _(actor: Actor) -> Arranged:
    job = CheckpointJobFactory(state=JobState.RUNNING)
    return lambda: jobs.finish_job(job, result={"bytes": 1}, actor=actor), job


@case("checkpoints.fail_job", "checkpoint_job.transition")
def _(actor: Actor) -> Arranged:
    job = CheckpointJobFactory(state=JobState.RUNNING)
    return lambda: jobs.fail_job(job, "out of room", actor=actor), job


@case("checkpoints.run_job", "checkpoint_job.transition")
def _(actor: Actor) -> Arranged:
    job = checkpoint_job()
    return lambda: jobs.run_job(job_id=job.pk, actor=actor), job


@case("checkpoints.continue_jobs", "checkpoint_job.transition")
def _(actor: Actor) -> Arranged:
    """A save of a run that is not there any more: nobody will do it."""
    job = CheckpointJobFactory(kind=JobKind.CREATE, checkpoint=None)
    CheckpointJob.objects.filter(pk=job.pk).update(updated_at=timezone.now() - timedelta(minutes=5))
    return lambda: jobs.continue_jobs(actor=actor), job


@case("checkpoints.pin", "checkpoint.pinned")
def _(actor: Actor) -> Arranged:
    checkpoint = CheckpointFactory()
    return lambda: pinning.pin(checkpoint=checkpoint, actor=actor), checkpoint


@case("checkpoints.unpin", "checkpoint.unpinned")
def _(actor: Actor) -> Arranged:
    checkpoint = CheckpointFactory(pinned=True)
    return lambda: pinning.unpin(checkpoint=checkpoint, actor=actor), checkpoint


ONE_NUMBER = bytes(4)


def begun_upload(run: TrainingRun) -> Any:
    """An upload of one tensor, all of which has been sent."""
    digest = digest_of(ONE_NUMBER)
    leaf = {"dtype": "float32", "shape": [1], "parts": [[digest, 0, 4]]}
    document = {"epoch": 1, "step": 40, "components": {"net": {"tree": {"$leaf": 0}, "leaves": [leaf]}}}
    begun = uploads.begin_upload(run_id=run.pk, workspace_id=run.workspace.pk, document=document)
    uploads.put_object(run_id=run.pk, upload_id=begun.id, digest=digest, data=ONE_NUMBER)
    return begun


@case("checkpoints.commit_upload", "checkpoint.committed")
def _(actor: Actor) -> Arranged:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
    begun = begun_upload(run)
    return (
        lambda: uploads.commit_upload(
            run_id=run.pk,
            workspace_id=run.workspace.pk,
            upload_id=begun.id,
            fencing_token=0,
            guard=lambda: None,
            actor=actor,
        ),
        lambda checkpoint: checkpoint,
    )


@case("training.commit_checkpoint_upload", "checkpoint.committed")
def _(actor: Actor) -> Arranged:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
    begun = begun_upload(run)
    return (
        lambda: run_uploads.commit_checkpoint_upload(run=run, upload_id=begun.id, fencing_token=0, actor=actor),
        lambda checkpoint: checkpoint,
    )


@case("checkpoints.export_checkpoint", "checkpoint.exported")
def _(actor: Actor) -> Arranged:
    checkpoint = save()
    path = new_file()
    return (
        lambda: exporting.export_checkpoint(
            checkpoint=checkpoint, path=path, format=exporting.Format.SAFETENSORS, actor=actor
        ),
        checkpoint,
    )


def new_file() -> Path:
    """A name that nothing has, in a folder that goes with the tests."""
    root = places.folder().root
    root.mkdir(parents=True, exist_ok=True)
    return root / f"{new_id()}.safetensors"


def plain_file() -> Path:
    path = new_file()
    save_file({"w": torch.ones(2)}, path)
    return path


@case("checkpoints.import_checkpoint", "checkpoint.committed")
def _(actor: Actor) -> Arranged:
    run, path = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING), plain_file()
    return (
        lambda: exporting.import_checkpoint(
            path=path,
            run_id=run.pk,
            workspace_id=run.workspace.pk,
            fencing_token=0,
            guard=lambda: None,
            actor=actor,
        ),
        lambda checkpoint: checkpoint,
    )


@case("training.import_run_checkpoint", "checkpoint.committed")
def _(actor: Actor) -> Arranged:
    run, path = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING), plain_file()
    return (
        lambda: run_uploads.import_run_checkpoint(run=run, path=path, fencing_token=0, actor=actor),
        lambda checkpoint: checkpoint,
    )
