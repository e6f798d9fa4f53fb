"""For every address that writes (API, page, admin): how to call it for real, and the event that it owes.

    @write("POST /api/v1/runs/{id}/pause", "run.command")
    def _(world: World) -> Call:
        run = RunFactory(state=RunState.RUNNING)
        return Call(id=run.pk, body={"reason": "lunch"})

The function arranges rows and says what is sent; ``{id}`` in the path is the row's.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.roles import Role, Scope
from apps.audit import services as audit
from apps.audit.models import AuditReport
from apps.audit.watched import image
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import BlueprintVersion
from apps.checkpoints.models import Checkpoint, Location
from apps.core.actors import SYSTEM
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import KernelChunk
from apps.morphogenesis.protocols import Command
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, TrainingRun
from tests.contracts.audit_cases import (
    alias_of_a_kernel,
    begun_upload,
    cache_plan,
    declared_tag,
    report_of_an_empty_trail,
    retention_plan,
    retention_policy,
)
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
    EpochMetricFactory,
    KernelFactory,
    NotificationFactory,
    RunFactory,
    SilenceFactory,
    TokenFactory,
    UserFactory,
    residual_spec,
)


@dataclass(frozen=True, slots=True)
class World:
    """Who calls."""

    caller: User


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is sent. ``by`` is who the event names, where that is not the caller. ``needs_etag``: read it first.

    ``id`` stands for each ``{id}`` of the path; a tuple of ids for one after another.
    """

    id: Any = None
    body: Mapping[str, Any] = field(default_factory=dict)
    data: bytes = b""
    needs_etag: bool = False
    by: User | None = None


@dataclass(frozen=True, slots=True)
class Write:
    event: str
    arrange: Callable[[World], Call]


WRITES: dict[str, Write] = {}

EXEMPT = {
    "POST /api/v1/alert-rules/preview": "reads: a rule is too large for an URL",
    "POST /api/v1/kernels/search": "reads: its filter is too large for an URL",
    "POST /api/v1/metrics/samples": "samples are measurements, and their own record",
    "POST /api/v1/runs/{id}/checkpoints/uploads": "stages what no row knows of until its commit",
    "PUT /api/v1/runs/{id}/checkpoints/uploads/{id}/objects/sample": "stages what no row knows of until its commit",
    "POST /admin/logout/": "the session's end is an event through the signal that POST /logout tests",
    "POST /admin/login/": "leads to /login",
    "POST /admin/kernels/cacheoutbox/{id}/try_again/": "a queue: what its rows do when they are tried has its events",
}


def write(address: str, event: str) -> Callable[[Callable[[World], Call]], Callable[[World], Call]]:
    def register(arrange: Callable[[World], Call]) -> Callable[[World], Call]:
        WRITES[address] = Write(event=event, arrange=arrange)
        return arrange

    return register


SAFETENSORS = (2).to_bytes(8, "little") + b"{}"
GROWTH_OFF = {"task": "digits", "epochs": 1, "growth": {"enabled": False}}
DECISION = {
    "type": "decision", "sequence": 1, "epoch": 1, "step": 40, "action": "HOLD", "rule": "mine", "reason": "too early",
}  # fmt: skip


def paused_run(**values: Any) -> TrainingRun:
    run = RunFactory(state=RunState.PAUSED, **values)
    TrainingRun.objects.filter(pk=run.pk).update(command=Command.PAUSE)
    return run


# --- API: accounts and library


@write("POST /api/v1/tokens", "access.token_issued")
def _(world: World) -> Call:
    return Call(body={"name": "ci", "scopes": [Scope.RUNS_READ]})


@write("DELETE /api/v1/tokens/{id}", "access.token_revoked")
def _(world: World) -> Call:
    return Call(id=TokenFactory(user=world.caller).id)


@write("PATCH /api/v1/users/{id}", "access.role_changed")
def _(world: World) -> Call:
    return Call(id=UserFactory().pk, body={"role": Role.CURATOR, "reason": "promoted"}, needs_etag=True)


@write("POST /api/v1/blueprints", "blueprint.created")
def _(world: World) -> Call:
    return Call(body={"name": "mine", "tags": {"layer": "linear"}})


@write("PATCH /api/v1/blueprints/{id}", "blueprint.modified")
def _(world: World) -> Call:
    return Call(id=BlueprintFactory().pk, body={"title": "Better", "tags": {"a": 1}}, needs_etag=True)


@write("POST /api/v1/blueprints/{id}/versions/1/clone", "blueprint.created")
def _(world: World) -> Call:
    version = BlueprintVersionFactory(number=1)
    return Call(id=version.blueprint_id, body={"name": "copy"})


@write("POST /api/v1/blueprints/{id}/versions/1/mutate", "blueprint.version_linked")
def _(world: World) -> Call:
    version = BlueprintVersionFactory(blueprint=BlueprintFactory(next_number=2), number=1)
    return Call(id=version.blueprint_id, body={"seed": 1})


@write("POST /api/v1/blueprints/{id}/versions/1/cross", "blueprint.version_linked")
def _(world: World) -> Call:
    version = BlueprintVersionFactory(blueprint=BlueprintFactory(next_number=2), number=1)
    return Call(id=version.blueprint_id, body={"other": str(BlueprintVersionFactory().pk), "seed": 1})


@write("POST /api/v1/blueprints/{id}/versions/1/lineage", "blueprint.version_linked")
def _(world: World) -> Call:
    version = BlueprintVersionFactory(number=1)
    return Call(id=version.blueprint_id, body={"parent": str(BlueprintVersionFactory().pk), "kind": "derived"})


@write("POST /api/v1/blueprints/{id}/versions", "blueprint.version_submitted")
def _(world: World) -> Call:
    return Call(id=BlueprintFactory().pk, body={"spec": residual_spec()})


@write("POST /api/v1/blueprints/propose", "blueprint.version_linked")
def _(world: World) -> Call:
    BlueprintVersionFactory(blueprint=BlueprintFactory(next_number=2), number=1)
    return Call(body={"seed": 1})


@write("POST /api/v1/kernels", "kernel.registered")
def _(world: World) -> Call:
    version = BlueprintVersionFactory(state=VersionState.SUBMITTED)
    return Call(body={"blueprint": str(version.blueprint_id), "tags": {"a": 1}})


@write("PUT /api/v1/kernels/{id}/binary", "kernel.uploaded")
def _(world: World) -> Call:
    return Call(id=KernelFactory(awaits_upload=True).pk, data=SAFETENSORS)


@write("PUT /api/v1/kernels/{id}/aliases/sample", "alias.set")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={"reason": "the best so far"})


@write("PUT /api/v1/kernels/{id}/blob", "kernel.uploaded")
def _(world: World) -> Call:
    digest = KernelFactory(state=KernelState.VALIDATED).digest
    return Call(id=KernelFactory(awaits_upload=True).pk, body={"digest": digest})


@write("PATCH /api/v1/kernels/{id}", "kernel.modified")
def _(world: World) -> Call:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    return Call(id=kernel.pk, body={"tags": {"arch": "mlp"}, "legal_hold": True}, needs_etag=True)


@write("POST /api/v1/kernels/{id}/deprecate", "kernel.transition")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={"reason": "slower than its successor"})


@write("POST /api/v1/kernels/{id}/quarantine", "kernel.quarantined")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={"reason": "doubtful bytes"})


@write("POST /api/v1/kernels/{id}/lineage", "kernel.linked")
def _(world: World) -> Call:
    return Call(id=KernelFactory().pk, body={"parent": str(KernelFactory().pk), "kind": "distilled"})


@write("PATCH /api/v1/blueprints/{id}/aliases/sample", "alias.protection_changed")
def _(world: World) -> Call:
    alias = alias_of_a_kernel("sample")
    return Call(id=alias.blueprint_id, body={"is_protected": True}, needs_etag=True)


@write("DELETE /api/v1/blueprints/{id}/aliases/sample", "alias.removed")
def _(world: World) -> Call:
    return Call(id=alias_of_a_kernel("sample").blueprint_id, needs_etag=True)


@write("POST /api/v1/tag-keys", "tag.declared")
def _(world: World) -> Call:
    return Call(body={"name": "arch", "type": "text", "choices": ["conv"]})


@write("PATCH /api/v1/tag-keys/{id}", "tag.changed")
def _(world: World) -> Call:
    return Call(id=declared_tag(SYSTEM).pk, body={"description": "what kind of layer"}, needs_etag=True)


@write("DELETE /api/v1/tag-keys/{id}", "tag.removed")
def _(world: World) -> Call:
    return Call(id=declared_tag(SYSTEM).pk, needs_etag=True)


# --- API: retirement and storage tiers


@write("POST /api/v1/retention/policies", "retention.policy_created")
def _(world: World) -> Call:
    return Call(body={"name": "unused", "unused_for_days": 90})


@write("PATCH /api/v1/retention/policies/{id}", "retention.policy_changed")
def _(world: World) -> Call:
    return Call(id=retention_policy(SYSTEM).pk, body={"unused_for_days": 30}, needs_etag=True)


@write("POST /api/v1/retention/plans", "retention.planned")
def _(world: World) -> Call:
    return Call(body={"policy": retention_policy(SYSTEM).name})


@write("POST /api/v1/retention/plans/{id}/approve", "retention.transition")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM).pk, body={"reason": "looked at"})


@write("POST /api/v1/retention/plans/{id}/apply", "retention.applied")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM, approved=True).pk)


@write("POST /api/v1/retention/plans/{id}/discard", "retention.transition")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM).pk, body={"reason": "no"})


@write("POST /api/v1/cache/optimize", "cache.planned")
def _(world: World) -> Call:
    return Call(body={"reason": "monthly"})


@write("POST /api/v1/cache/plans/{id}/apply", "cache.applying")
def _(world: World) -> Call:
    return Call(id=cache_plan(SYSTEM).pk)


@write("POST /api/v1/cache/plans/{id}/cancel", "cache.cancelled")
def _(world: World) -> Call:
    return Call(id=cache_plan(SYSTEM).pk, body={"reason": "no"})


@write("DELETE /api/v1/operations/{id}", "cache.cancelled")
def _(world: World) -> Call:
    return Call(id=cache_plan(SYSTEM, applying=True).pk)


@write("POST /api/v1/kernels/{id}/retire", "kernel.retired")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={"reason": "old"})


@write("POST /api/v1/kernels/{id}/restore", "kernel.restored")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.RETIRED).pk)


@write("POST /api/v1/kernels/{id}/tier", "kernel.tier_changed")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={"tier": "hot"})


# --- API: runs


@write("POST /api/v1/runs", "run.created")
def _(world: World) -> Call:
    return Call(body={"settings": GROWTH_OFF})


@write("POST /api/v1/runs/{id}/pause", "run.command")
def _(world: World) -> Call:
    return Call(id=RunFactory(state=RunState.RUNNING).pk)


@write("POST /api/v1/runs/{id}/resume", "run.command")
def _(world: World) -> Call:
    return Call(id=paused_run().pk)


@write("POST /api/v1/runs/{id}/stop", "run.command")
def _(world: World) -> Call:
    return Call(id=RunFactory(state=RunState.RUNNING).pk)


@write("POST /api/v1/runs/{id}/heartbeat", "run.transition")
def _(world: World) -> Call:
    return Call(id=RunFactory(kind=RunKind.EXTERNAL, state=RunState.QUEUED).pk, body={"holder": "client"})


@write("POST /api/v1/runs/{id}/events", "adaptation.decision")
def _(world: World) -> Call:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
    return Call(id=run.pk, body={"fencing_token": 0, "events": [DECISION]})


@write("POST /api/v1/runs/{id}/finish", "run.transition")
def _(world: World) -> Call:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
    return Call(id=run.pk, body={"fencing_token": 0, "state": "COMPLETED"})


# --- API: checkpoints


@write("POST /api/v1/checkpoints", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(body={"run": str(RunFactory(state=RunState.RUNNING).pk), "reason": "before the holiday"})


@write("POST /api/v1/checkpoints/{id}/verify", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk)


@write("POST /api/v1/checkpoints/{id}/restore", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory(run_id=paused_run().pk).pk)


@write("POST /api/v1/checkpoints/{id}/replay", "checkpoint_job.requested")
def _(world: World) -> Call:
    run = RunFactory(state=RunState.PAUSED)
    EpochMetricFactory(run=run, epoch=2, step=80)
    return Call(id=CheckpointFactory(run_id=run.pk, step=40).pk, body={"step": 60})


@write("POST /api/v1/checkpoints/{id}/archive", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk)


@write("POST /api/v1/checkpoints/{id}/recall", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory(location="ARCHIVED").pk)


@write("POST /api/v1/checkpoints/{id}/pin", "checkpoint.pinned")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk, body={"reason": "for the paper"})


@write("POST /api/v1/checkpoints/{id}/unpin", "checkpoint.unpinned")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory(pinned=True).pk)


@write("POST /api/v1/checkpoint-policies", "checkpoint_policy.created")
def _(world: World) -> Call:
    return Call(body={"keep_last": 5, "reason": "we have room"})


@write("PATCH /api/v1/checkpoint-policies/{id}", "checkpoint_policy.changed")
def _(world: World) -> Call:
    return Call(id=CheckpointPolicyFactory().pk, body={"keep_days": 30}, needs_etag=True)


@write("DELETE /api/v1/checkpoint-policies/{id}", "checkpoint_policy.removed")
def _(world: World) -> Call:
    return Call(id=CheckpointPolicyFactory().pk, needs_etag=True)


OF_MILL = [{"label": "host", "op": "=", "value": "mill"}]
NEW_RULE = {"name": "Busy", "kind": "threshold", "metric": "load", "parameters": {"op": ">", "value": 8}}


@write("POST /api/v1/alerts/{id}/acknowledge", "alert.acknowledged")
def _(world: World) -> Call:
    return Call(id=AlertFactory().pk, body={"note": "it is the fan"})


@write("POST /api/v1/alerts/{id}/silence", "silence.created")
def _(world: World) -> Call:
    return Call(id=AlertFactory().pk, body={"hours": 1, "comment": "new disk"})


@write("POST /api/v1/alert-rules", "alert_rule.created")
def _(world: World) -> Call:
    return Call(body={**NEW_RULE, "reason": "mill is slow"})


@write("PATCH /api/v1/alert-rules/{id}", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory().pk, body={"enabled": False}, needs_etag=True)


@write("DELETE /api/v1/alert-rules/{id}", "alert_rule.removed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory().pk, needs_etag=True)


@write("POST /api/v1/alert-rules/{id}/reset", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory(shipped="disk-nearly-full").pk)


@write("POST /api/v1/silences", "silence.created")
def _(world: World) -> Call:
    return Call(body={"matchers": OF_MILL, "duration_seconds": 600, "comment": "new disk"})


@write("POST /api/v1/silences/{id}/end", "silence.ended")
def _(world: World) -> Call:
    return Call(id=SilenceFactory().pk)


@write("POST /api/v1/alert-routes", "alert_route.created")
def _(world: World) -> Call:
    return Call(body={"name": "ops", "channel": "webhook", "target": "https://93.184.215.14/hook"})


@write("PATCH /api/v1/alert-routes/{id}", "alert_route.changed")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk, body={"group_by": ["alertname"]}, needs_etag=True)


@write("DELETE /api/v1/alert-routes/{id}", "alert_route.removed")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk, needs_etag=True)


@write("POST /api/v1/alert-routes/{id}/test", "alert_route.tested")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk)


@write("POST /api/v1/alert-routes/{id}/rotate-secret", "alert_route.secret_rotated")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk, body={"reason": "it leaked"})


@write("POST /api/v1/notifications/{id}/retry", "notification.retried")
def _(world: World) -> Call:
    return Call(id=NotificationFactory(route_id=AlertRouteFactory().pk, state="FAILED").pk)


@write("POST /api/v1/runs/{id}/checkpoints/uploads/{id}/commit", "checkpoint.committed")
def _(world: World) -> Call:
    run = RunFactory(kind=RunKind.EXTERNAL, state=RunState.RUNNING)
    return Call(id=(run.pk, begun_upload(run).id), body={"fencing_token": 0})


# --- Pages


@write("POST /runs/new", "run.created")
def _(world: World) -> Call:
    return Call(body={"task": "digits", "host": "mlp", "epochs": "2", "seed": "1"})


@write("POST /runs/{id}/pause", "run.command")
def _(world: World) -> Call:
    return Call(id=RunFactory(state=RunState.RUNNING).pk)


@write("POST /runs/{id}/resume", "run.command")
def _(world: World) -> Call:
    return Call(id=paused_run().pk)


@write("POST /runs/{id}/stop", "run.command")
def _(world: World) -> Call:
    return Call(id=RunFactory(state=RunState.RUNNING).pk, body={"reason": "enough"})


@write("POST /login", "access.login")
def _(world: World) -> Call:
    user = UserFactory()
    return Call(body={"username": user.username, "password": PASSWORD}, by=user)


@write("POST /logout", "access.logout")
def _(world: World) -> Call:
    return Call()


# --- Admin: forms, and each button


@write("POST /admin/accounts/user/add/", "access.user_created")
def _(world: World) -> Call:
    return Call(body={"username": "grace", "email": "grace@example.org", "role": Role.CURATOR})


@write("POST /admin/accounts/user/{id}/set_role/", "access.role_changed")
def _(world: World) -> Call:
    return Call(id=UserFactory().pk, body={"role": Role.OPERATOR, "reason": "on call", "confirmed": "1"})


@write("POST /admin/accounts/user/{id}/erase/", "access.person_erased")
def _(world: World) -> Call:
    return Call(id=UserFactory(email="x@example.org").pk, body={"reason": "asked to", "confirmed": "1"})


@write("POST /admin/accounts/apitoken/add/", "access.token_issued")
def _(world: World) -> Call:
    user = UserFactory(role=Role.OPERATOR)
    return Call(body={"user": str(user.pk), "name": "ci", "scopes": ["runs:read"], "days": "7"})


@write("POST /admin/accounts/apitoken/{id}/revoke/", "access.token_revoked")
def _(world: World) -> Call:
    return Call(id=TokenFactory().id, body={"reason": "leaked", "confirmed": "1"})


@write("POST /admin/blueprints/blueprint/add/", "blueprint.created")
def _(world: World) -> Call:
    return Call(body={"name": "mine", "title": "", "card": "{}", "tags": "{}"})


@write("POST /admin/blueprints/blueprint/{id}/change/", "blueprint.modified")
def _(world: World) -> Call:
    return Call(id=BlueprintFactory().pk, body={"title": "T", "card": "{}", "tags": '{"a": 1}', "reason": "clearer"})


@write("POST /admin/blueprints/blueprint/{id}/submit_version/", "blueprint.version_submitted")
def _(world: World) -> Call:
    return Call(id=BlueprintFactory().pk, body={"spec": json.dumps(residual_spec())})


def numbered_version() -> BlueprintVersion:
    """A version that another can follow."""
    return BlueprintVersionFactory(blueprint=BlueprintFactory(next_number=2), number=1)


@write("POST /admin/blueprints/blueprintversion/{id}/clone/", "blueprint.created")
def _(world: World) -> Call:
    return Call(id=BlueprintVersionFactory().pk, body={"name": "copy"})


@write("POST /admin/blueprints/blueprintversion/{id}/mutate/", "blueprint.version_linked")
def _(world: World) -> Call:
    return Call(id=numbered_version().pk, body={"seed": "1"})


@write("POST /admin/blueprints/blueprintversion/{id}/cross/", "blueprint.version_linked")
def _(world: World) -> Call:
    return Call(id=numbered_version().pk, body={"seed": "1", "other": str(BlueprintVersionFactory().pk)})


@write("POST /admin/kernels/kernel/{id}/deprecate/", "kernel.transition")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={"reason": "old", "confirmed": "1"})


@write("POST /admin/kernels/kernel/{id}/quarantine/", "kernel.quarantined")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={"reason": "bad", "confirmed": "1"})


YES = {"reason": "because", "confirmed": "1"}


@write("POST /admin/kernels/kernel/{id}/retire/", "kernel.retired")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body=YES)


@write("POST /admin/kernels/kernel/{id}/restore/", "kernel.restored")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.RETIRED).pk, body=YES)


@write("POST /admin/kernels/kernel/{id}/verify/", "kernel.quarantined")
def _(world: World) -> Call:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    KernelChunk.objects.filter(blob_id=kernel.digest).update(data=b"other bytes")
    return Call(id=kernel.pk, body=YES)


@write("POST /admin/kernels/kernel/{id}/move_tier/", "kernel.tier_changed")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={**YES, "tier": "hot"})


@write("POST /admin/kernels/kernel/{id}/set_alias/", "alias.set")
def _(world: World) -> Call:
    return Call(id=KernelFactory(state=KernelState.VALIDATED).pk, body={**YES, "name": "prod"})


@write("POST /admin/kernels/kernelalias/{id}/protect/", "alias.protection_changed")
def _(world: World) -> Call:
    return Call(id=alias_of_a_kernel().pk, body=YES)


@write("POST /admin/kernels/kernelalias/{id}/unprotect/", "alias.protection_changed")
def _(world: World) -> Call:
    return Call(id=alias_of_a_kernel("prod").pk, body=YES)


@write("POST /admin/kernels/kernelalias/{id}/remove/", "alias.removed")
def _(world: World) -> Call:
    return Call(id=alias_of_a_kernel().pk, body=YES)


@write("POST /admin/kernels/kernel/{id}/tag/", "kernel.modified")
def _(world: World) -> Call:
    return Call(id=KernelFactory().pk, body={**YES, "tags": '{"arch": "mlp"}'})


@write("POST /admin/kernels/kernel/{id}/pin/", "kernel.modified")
def _(world: World) -> Call:
    return Call(id=KernelFactory().pk, body={**YES, "pinned_until": f"{timezone.now() + timedelta(days=30):%Y-%m-%d}"})


@write("POST /admin/kernels/kernel/{id}/unpin/", "kernel.modified")
def _(world: World) -> Call:
    return Call(id=KernelFactory(pinned_until=timezone.now() + timedelta(days=1)).pk, body=YES)


@write("POST /admin/kernels/kernel/{id}/hold/", "kernel.modified")
def _(world: World) -> Call:
    return Call(id=KernelFactory().pk, body=YES)


@write("POST /admin/kernels/kernel/{id}/lift_hold/", "kernel.modified")
def _(world: World) -> Call:
    return Call(id=KernelFactory(legal_hold=True).pk, body=YES)


@write("POST /admin/kernels/kernel/{id}/name_successor/", "kernel.modified")
def _(world: World) -> Call:
    successor = KernelFactory(state=KernelState.VALIDATED)
    return Call(id=KernelFactory().pk, body={**YES, "successor": str(successor.pk)})


POLICY = {"unused_for_days": "30", "max_share": "0.2", "grace_days": "7", "purge_after_days": "30", "reason": "tidy"}


@write("POST /admin/kernels/tagkey/add/", "tag.declared")
def _(world: World) -> Call:
    return Call(body={"name": "arch", "type": "text", "choices": "conv\nattn"})


@write("POST /admin/kernels/tagkey/{id}/change/", "tag.changed")
def _(world: World) -> Call:
    return Call(id=declared_tag(SYSTEM).pk, body={"choices": "conv", "description": "its family", "reason": "clearer"})


@write("POST /admin/kernels/tagkey/{id}/remove/", "tag.removed")
def _(world: World) -> Call:
    return Call(id=declared_tag(SYSTEM).pk, body=YES)


@write("POST /admin/kernels/retentionpolicy/add/", "retention.policy_created")
def _(world: World) -> Call:
    return Call(body={**POLICY, "name": "unused"})


@write("POST /admin/kernels/retentionpolicy/{id}/change/", "retention.policy_changed")
def _(world: World) -> Call:
    return Call(id=retention_policy(SYSTEM).pk, body=POLICY)


@write("POST /admin/kernels/retentionpolicy/{id}/make_plan/", "retention.planned")
def _(world: World) -> Call:
    return Call(id=retention_policy(SYSTEM).pk, body=YES)


@write("POST /admin/kernels/retentionplan/{id}/approve/", "retention.transition")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM).pk, body=YES)


@write("POST /admin/kernels/retentionplan/{id}/apply/", "retention.applied")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM, approved=True).pk, body={"confirmed": "1"})


@write("POST /admin/kernels/retentionplan/{id}/discard/", "retention.transition")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM).pk, body=YES)


@write("POST /admin/training/trainingrun/{id}/pause/", "run.command")
def _(world: World) -> Call:
    return Call(id=RunFactory(state=RunState.RUNNING).pk, body={"reason": "lunch", "confirmed": "1"})


@write("POST /admin/training/trainingrun/{id}/resume/", "run.command")
def _(world: World) -> Call:
    return Call(id=paused_run().pk, body={"reason": "back", "confirmed": "1"})


@write("POST /admin/training/trainingrun/{id}/stop/", "run.command")
def _(world: World) -> Call:
    return Call(id=RunFactory(state=RunState.RUNNING).pk, body={"reason": "enough", "confirmed": "1"})


# --- The trail itself


@write("POST /api/v1/audit/reports", "report.requested")
def _(world: World) -> Call:
    return Call(body={"kind": "access"})


@write("POST /api/v1/audit/reports/{id}/reproduce", "report.reproduced")
def _(world: World) -> Call:
    return Call(id=written_report().pk)


@write("POST /audit/reports", "report.requested")
def _(world: World) -> Call:
    return Call(body={"kind": "access"})


@write("POST /audit/reports/{id}/reproduce", "report.reproduced")
def _(world: World) -> Call:
    return Call(id=written_report().pk)


@write("POST /library/kernels/{id}/statement", "report.requested")
def _(world: World) -> Call:
    kernel = KernelFactory()
    with transaction.atomic():
        audit.record(type="kernel.registered", subject=kernel, actor=SYSTEM, after=image(kernel))
    return Call(id=kernel.pk)


@write("POST /library/retirement/policies/{id}/plan", "retention.planned")
def _(world: World) -> Call:
    return Call(id=retention_policy(SYSTEM).pk, body={"reason": "monthly"})


@write("POST /library/retirement/plans/{id}/approve", "retention.transition")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM).pk, body={"reason": "looked at"})


@write("POST /library/retirement/plans/{id}/apply", "retention.applied")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM, approved=True).pk)


@write("POST /library/retirement/plans/{id}/discard", "retention.transition")
def _(world: World) -> Call:
    return Call(id=retention_plan(SYSTEM).pk, body={"reason": "no"})


@write("POST /cache/optimise", "cache.planned")
def _(world: World) -> Call:
    return Call(body={"reason": "monthly"})


@write("POST /cache/warm", "cache.planned")
def _(world: World) -> Call:
    return Call()


@write("POST /cache/plans/{id}/apply", "cache.applying")
def _(world: World) -> Call:
    return Call(id=cache_plan(SYSTEM).pk, body={"reason": "looked at"})


@write("POST /cache/plans/{id}/cancel", "cache.cancelled")
def _(world: World) -> Call:
    return Call(id=cache_plan(SYSTEM).pk)


@write("POST /admin/kernels/cacheplan/{id}/apply/", "cache.applying")
def _(world: World) -> Call:
    return Call(id=cache_plan(SYSTEM).pk, body=YES)


@write("POST /admin/kernels/cacheplan/{id}/cancel/", "cache.cancelled")
def _(world: World) -> Call:
    return Call(id=cache_plan(SYSTEM).pk, body=YES)


def written_report() -> AuditReport:
    return audit.write_report(report=report_of_an_empty_trail(SYSTEM))


# --- Checkpoints, on their pages and in the admin


def paused_run_with_checkpoint(**values: Any) -> Checkpoint:
    run = RunFactory(state=RunState.PAUSED)
    EpochMetricFactory(run=run, epoch=2, step=80)
    return CheckpointFactory(run_id=run.pk, **values)


@write("POST /checkpoints/{id}/restore", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=paused_run_with_checkpoint().pk, body={"reason": "it went astray"})


@write("POST /checkpoints/{id}/replay", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=paused_run_with_checkpoint().pk, body={"step": 60})


@write("POST /checkpoints/{id}/verify", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk)


@write("POST /checkpoints/{id}/archive", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk)


@write("POST /checkpoints/{id}/recall", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory(location=Location.ARCHIVED).pk)


@write("POST /checkpoints/{id}/pin", "checkpoint.pinned")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk, body={"reason": "the paper needs it"})


@write("POST /checkpoints/{id}/unpin", "checkpoint.unpinned")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory(pinned=True).pk)


@write("POST /checkpoints/jobs/{id}/cancel", "checkpoint_job.transition")
def _(world: World) -> Call:
    return Call(id=CheckpointJobFactory().pk)


@write("POST /runs/{id}/save", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=RunFactory(state=RunState.RUNNING).pk, body={"reason": "before the night"})


@write("POST /admin/checkpoints/checkpoint/{id}/verify/", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk, body=YES)


@write("POST /admin/checkpoints/checkpoint/{id}/archive/", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk, body=YES)


@write("POST /admin/checkpoints/checkpoint/{id}/recall/", "checkpoint_job.requested")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory(location=Location.ARCHIVED).pk, body=YES)


@write("POST /admin/checkpoints/checkpoint/{id}/pin/", "checkpoint.pinned")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory().pk, body=YES)


@write("POST /admin/checkpoints/checkpoint/{id}/unpin/", "checkpoint.unpinned")
def _(world: World) -> Call:
    return Call(id=CheckpointFactory(pinned=True).pk, body=YES)


@write("POST /admin/checkpoints/checkpointjob/{id}/cancel/", "checkpoint_job.transition")
def _(world: World) -> Call:
    return Call(id=CheckpointJobFactory().pk, body=YES)


CHECKPOINT_POLICY = {
    "schedule": "auto", "interval_seconds": 600, "keep_last": 5, "keep_days": 14, "keep_daily": 0, "keep_weekly": 4,
    "keep_monthly": 0, "keep_best": 2, "best_metric": "validation_loss", "best_is_lowest": "on", "reason": "because",
}  # fmt: skip


@write("POST /admin/checkpoints/checkpointpolicy/add/", "checkpoint_policy.created")
def _(world: World) -> Call:
    return Call(body={**CHECKPOINT_POLICY, "run": str(RunFactory().pk)})


@write("POST /admin/checkpoints/checkpointpolicy/{id}/change/", "checkpoint_policy.changed")
def _(world: World) -> Call:
    return Call(id=CheckpointPolicyFactory().pk, body=CHECKPOINT_POLICY)


@write("POST /admin/checkpoints/checkpointpolicy/{id}/remove/", "checkpoint_policy.removed")
def _(world: World) -> Call:
    return Call(id=CheckpointPolicyFactory().pk, body=YES)


@write("POST /admin/observability/alert/{id}/acknowledge/", "alert.acknowledged")
def _(world: World) -> Call:
    return Call(id=AlertFactory().pk, body=YES)


@write("POST /admin/observability/alert/{id}/silence/", "silence.created")
def _(world: World) -> Call:
    return Call(id=AlertFactory().pk, body={**YES, "hours": 2})


ALERT_RULE = {
    "name": "Busy", "description": "", "severity": "warning", "enabled": "on", "kind": "threshold", "metric": "load",
    "matchers": "", "parameters": '{"op": ">", "value": 8}', "for_seconds": 60, "keep_firing_seconds": 0,
    "summary": "", "remedy": "", "labels": "", "inhibited_by": "", "reason": "because",
}  # fmt: skip


@write("POST /admin/observability/alertrule/add/", "alert_rule.created")
def _(world: World) -> Call:
    return Call(body=ALERT_RULE)


@write("POST /admin/observability/alertrule/{id}/change/", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory().pk, body=ALERT_RULE)


@write("POST /admin/observability/alertrule/{id}/enable/", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory(enabled=False).pk, body=YES)


@write("POST /admin/observability/alertrule/{id}/disable/", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory().pk, body=YES)


@write("POST /admin/observability/alertrule/{id}/reset/", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory(shipped="disk-nearly-full").pk, body=YES)


@write("POST /admin/observability/alertrule/{id}/remove/", "alert_rule.removed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory().pk, body=YES)


@write("POST /admin/observability/silence/add/", "silence.created")
def _(world: World) -> Call:
    return Call(body={"matchers": json.dumps(OF_MILL), "hours": 2, "comment": "new disk"})


@write("POST /admin/observability/silence/{id}/end/", "silence.ended")
def _(world: World) -> Call:
    return Call(id=SilenceFactory().pk, body=YES)


ALERT_ROUTE = {
    "name": "operators", "target": "https://93.184.215.14/hook", "matchers": "[]", "group_by": "alertname",
    "group_wait_seconds": 30, "group_interval_seconds": 300, "repeat_interval_seconds": 3600, "enabled": "on",
    "reason": "because",
}  # fmt: skip


@write("POST /admin/observability/alertroute/add/", "alert_route.created")
def _(world: World) -> Call:
    return Call(body={**ALERT_ROUTE, "channel": "webhook"})


@write("POST /admin/observability/alertroute/{id}/change/", "alert_route.changed")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk, body=ALERT_ROUTE)


@write("POST /admin/observability/alertroute/{id}/test/", "alert_route.tested")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk, body=YES)


@write("POST /admin/observability/alertroute/{id}/rotate_secret/", "alert_route.secret_rotated")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk, body=YES)


@write("POST /admin/observability/alertroute/{id}/remove/", "alert_route.removed")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk, body=YES)


@write("POST /admin/observability/notification/{id}/retry/", "notification.retried")
def _(world: World) -> Call:
    return Call(id=NotificationFactory(route_id=AlertRouteFactory().pk, state="FAILED").pk, body=YES)


# --- Alerts, on their pages


@write("POST /alerts/{id}/acknowledge", "alert.acknowledged")
def _(world: World) -> Call:
    return Call(id=AlertFactory().pk, body={"note": "I look at it"})


@write("POST /alerts/{id}/silence", "silence.created")
def _(world: World) -> Call:
    return Call(id=AlertFactory().pk, body={"label": ["host"], "hours": "4", "comment": "a new disk"})


@write("POST /alerts/silences/new", "silence.created")
def _(world: World) -> Call:
    return Call(body={"matchers": "host=mill", "hours": "4", "comment": "a new disk"})


@write("POST /alerts/silences/{id}/end", "silence.ended")
def _(world: World) -> Call:
    return Call(id=SilenceFactory().pk)


@write("POST /alerts/rules/{id}", "alert_rule.changed")
def _(world: World) -> Call:
    rule = AlertRuleFactory()
    given = {f"parameter_{name}": value for name, value in rule.parameters.items()}
    return Call(
        id=rule.pk,
        body={**given, "severity": "critical", "for_seconds": 60, "keep_firing_seconds": 0, "enabled": "on"},
    )


@write("POST /alerts/rules/{id}/enable", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory(enabled=False).pk)


@write("POST /alerts/rules/{id}/disable", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory().pk)


@write("POST /alerts/rules/{id}/reset", "alert_rule.changed")
def _(world: World) -> Call:
    return Call(id=AlertRuleFactory(shipped="disk-nearly-full").pk)


@write("POST /alerts/routes/{id}/test", "alert_route.tested")
def _(world: World) -> Call:
    return Call(id=AlertRouteFactory().pk)


@write("POST /alerts/messages/{id}/retry", "notification.retried")
def _(world: World) -> Call:
    route = AlertRouteFactory()
    return Call(id=NotificationFactory(route_id=route.pk, state="FAILED", problem="no answer").pk)
