"""Rows for tests, as valid as the services make them but without their audit events and queues.

    user = UserFactory(role="operator")
    kernel = KernelFactory(state=KernelState.VALIDATED)      # walks the life cycle: the database checks each move
    token = TokenFactory(user=user, scopes=["runs:read"])    # token.secret is what a client sends

Everything is a function of a sequence number: no randomness.
"""

import hashlib
from collections import deque
from datetime import timedelta
from typing import Any, Generic, TypeVar

import factory
from django.contrib.auth.hashers import make_password
from django.utils import timezone
from factory.django import DjangoModelFactory

from apps.accounts.models import ApiToken, User, Workspace, default_workspace_id
from apps.accounts.roles import Role, Scope
from apps.audit.models import AuditEvent
from apps.blueprints import spec as grammar
from apps.blueprints.lifecycle import VERSION_LIFECYCLE, VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, JOB_LIFECYCLE, CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, CheckpointPolicy, JobKind, Pack, StoredObject
from apps.core.ids import new_id
from apps.core.lifecycle import Lifecycle
from apps.kernels.cache import KernelStore
from apps.kernels.lifecycle import KERNEL_LIFECYCLE, KernelState
from apps.kernels.models import FieldReport, Kernel
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action
from apps.morphogenesis.settings import RunSettings
from apps.observability.lifecycle import ALERT_LIFECYCLE, NOTIFICATION_LIFECYCLE, AlertState, NotificationState
from apps.observability.models import Alert, AlertRoute, AlertRule, Notification, RuleKind, Silence
from apps.training.lifecycle import RECOVERY_LIFECYCLE, RUN_LIFECYCLE, SEED_LIFECYCLE, RecoveryState, RunState
from apps.training.models import (
    Decision,
    EpochMetric,
    RecoveryCause,
    RecoveryEvent,
    RunKind,
    RunLease,
    Seed,
    SeedSlot,
    SeedTransition,
    TrainingRun,
)

M = TypeVar("M")
PASSWORD = "correct horse battery"
LIFECYCLES: dict[type[Any], Lifecycle] = {
    BlueprintVersion: VERSION_LIFECYCLE,
    Alert: ALERT_LIFECYCLE,
    Checkpoint: CHECKPOINT_LIFECYCLE,
    CheckpointJob: JOB_LIFECYCLE,
    Kernel: KERNEL_LIFECYCLE,
    Notification: NOTIFICATION_LIFECYCLE,
    RecoveryEvent: RECOVERY_LIFECYCLE,
    Seed: SEED_LIFECYCLE,
    TrainingRun: RUN_LIFECYCLE,
}


def residual_spec(width: int = 8, hidden: int = 16) -> dict[str, Any]:
    """A residual MLP blueprint: symbols D (width) and H (hidden)."""
    return {
        "version": 1,
        "operator": "residual",
        "symbols": {"D": width, "H": hidden},
        "input": ["N", "D"],
        "nodes": [
            {"id": "fc1", "op": "linear", "inputs": ["input"], "params": {"out_features": "H"}},
            {"id": "act", "op": "relu", "inputs": ["fc1"]},
            {"id": "fc2", "op": "linear", "inputs": ["act"], "params": {"out_features": "D", "init": "zeros"}},
        ],
        "output": "fc2",
    }


class Factory(DjangoModelFactory, Generic[M]):
    """A factory whose rows may be asked for in any state of their life cycle."""

    class Meta:
        abstract = True

    @classmethod
    def _create(cls, model_class: type[Any], *args: Any, **kwargs: Any) -> Any:
        if model_class not in LIFECYCLES:
            return super()._create(model_class, *args, **kwargs)
        born, *moves = path_to(LIFECYCLES[model_class], str(kwargs["state"]))
        row = super()._create(model_class, *args, **{**kwargs, "state": born})
        for row.state in moves:
            model_class.objects.filter(pk=row.pk).update(state=row.state)
        return row


def path_to(lifecycle: Lifecycle, state: str) -> list[str]:
    """The shortest way from an initial state."""
    paths = deque([start] for start in sorted(lifecycle.initial))
    while paths:
        path = paths.popleft()
        if path[-1] == state:
            return path
        followers = sorted(lifecycle.transitions.get(path[-1], frozenset()) - set(path))
        paths.extend([*path, following] for following in followers)
    raise ValueError(f"a {lifecycle.name} never gets {state}")


def workspace() -> Workspace:
    return Workspace.objects.get(pk=default_workspace_id())


class UserFactory(Factory[User]):
    username = factory.Sequence(lambda n: f"user{n}")
    role = Role.VIEWER
    is_staff = factory.LazyAttribute(lambda user: user.role != Role.VIEWER)
    password = factory.LazyFunction(lambda: make_password(PASSWORD))

    class Meta:
        model = User


class TokenFactory(Factory[ApiToken]):
    """``token.secret`` is the bearer token. All scopes by default; the user's role cuts them down."""

    user = factory.SubFactory(UserFactory, role=Role.ADMIN)
    name = factory.Sequence(lambda n: f"token{n}")
    scopes = factory.LazyFunction(lambda: [str(scope) for scope in Scope])
    expiry = timedelta(days=1)

    class Meta:
        model = ApiToken

    @classmethod
    def _create(cls, model_class: type[Any], *args: Any, **kwargs: Any) -> Any:
        token, token_secret = model_class.objects.create(kwargs.pop("user"), expiry=kwargs.pop("expiry"), **kwargs)
        token.secret = token_secret
        return token


class BlueprintFactory(Factory[Blueprint]):
    name = factory.Sequence(lambda n: f"blueprint-{n}")
    title = "A blueprint"
    workspace = factory.LazyFunction(workspace)

    class Meta:
        model = Blueprint


class BlueprintVersionFactory(Factory[BlueprintVersion]):
    blueprint = factory.SubFactory(BlueprintFactory)
    number = factory.Sequence(lambda n: n + 1)
    spec = factory.Sequence(lambda n: residual_spec(hidden=16 + n))
    digest = factory.LazyAttribute(lambda version: grammar.digest(version.spec))
    operator = factory.LazyAttribute(lambda version: grammar.parse(version.spec).operator)
    parameters = factory.LazyAttribute(lambda version: grammar.parse(version.spec).parameters)
    state = VersionState.SUBMITTED

    class Meta:
        model = BlueprintVersion


class KernelFactory(Factory[Kernel]):
    """With ``data`` it has those bytes, stored; a VALIDATED kernel always has some."""

    blueprint_version = factory.SubFactory(BlueprintVersionFactory)
    workspace = factory.LazyFunction(workspace)
    name = factory.Sequence(lambda n: f"kernel-{n}")
    bindings = factory.LazyAttribute(lambda kernel: dict(kernel.blueprint_version.spec["symbols"]))
    operator = factory.LazyAttribute(lambda kernel: kernel.blueprint_version.operator)
    parameters = factory.LazyAttribute(lambda kernel: kernel.blueprint_version.parameters)
    state = KernelState.REGISTERED

    class Meta:
        model = Kernel

    @classmethod
    def _create(cls, model_class: type[Any], *args: Any, **kwargs: Any) -> Any:
        data = kwargs.pop("data", None)
        if data is None and kwargs["state"] not in {KernelState.REGISTERED, KernelState.REJECTED}:
            data = hashlib.sha256(kwargs["name"].encode()).digest() * 64
        if kwargs["state"] in {KernelState.VALIDATED, KernelState.DEPRECATED, KernelState.RETIRED}:
            kwargs.setdefault("report", {"validation": {}})  # it came so far once: a restored one is VALIDATED again
        if data is not None:
            kwargs |= {"digest": KernelStore().put(data), "size": len(data)}
        return super()._create(model_class, *args, **kwargs)


class RunFactory(Factory[TrainingRun]):
    """With its lease; RUNNING ones are held by nobody until a test claims them."""

    name = factory.Sequence(lambda n: f"run {n}")
    kind = RunKind.INTERNAL
    task = "digits"
    host = "mlp"
    seed = factory.Sequence(lambda n: n)
    epochs = 3
    settings = factory.LazyAttribute(
        lambda run: RunSettings.from_mapping({"seed": run.seed, "epochs": run.epochs}).to_dict()
    )
    library = factory.LazyFunction(list)
    state = RunState.QUEUED
    wants_control = False
    workspace = factory.LazyFunction(workspace)

    class Meta:
        model = TrainingRun

    @classmethod
    def _create(cls, model_class: type[Any], *args: Any, **kwargs: Any) -> Any:
        run = super()._create(model_class, *args, **kwargs)
        RunLease.objects.create(run=run)
        return run


class EpochMetricFactory(Factory[EpochMetric]):
    run = factory.SubFactory(RunFactory)
    epoch = factory.Sequence(lambda n: n + 1)
    step = factory.LazyAttribute(lambda metric: metric.epoch * 40)
    train_loss = factory.LazyAttribute(lambda metric: 2.0 / (metric.epoch + 1))
    validation_loss = factory.LazyAttribute(lambda metric: 2.1 / (metric.epoch + 1))
    validation_accuracy = factory.LazyAttribute(lambda metric: 1.0 - 1.0 / (metric.epoch + 1))
    parameters = 1_000
    train_flops = factory.LazyAttribute(lambda metric: metric.epoch * 1_000_000)
    learning_rate = 1e-3

    class Meta:
        model = EpochMetric


class SlotFactory(Factory[SeedSlot]):
    run = factory.SubFactory(RunFactory)
    site = factory.Sequence(lambda n: f"layers.{n}.width")

    class Meta:
        model = SeedSlot


class SeedFactory(Factory[Seed]):
    run = factory.SubFactory(RunFactory)
    slot = factory.SubFactory(SlotFactory, run=factory.SelfAttribute("..run"))
    number = factory.Sequence(lambda n: n + 1)
    operator = "residual"
    kernel_digest = "0" * 64
    kernel_name = "residual_mlp-v1"
    state = SeedState.DORMANT
    germinated_epoch = 1

    class Meta:
        model = Seed


class SeedTransitionFactory(Factory[SeedTransition]):
    seed = factory.SubFactory(SeedFactory)
    run = factory.SelfAttribute("seed.run")
    sequence = factory.Sequence(lambda n: n + 1)
    epoch = 1
    step = 40
    source = SeedState.DORMANT
    target = SeedState.GERMINATED
    gate = "G0"
    reason = "the function is preserved at birth"
    measured = factory.LazyFunction(lambda: {"max_output_difference": 0.0})
    thresholds = factory.LazyFunction(lambda: {"identity_tolerance": 1e-5})

    class Meta:
        model = SeedTransition


class DecisionFactory(Factory[Decision]):
    run = factory.SubFactory(RunFactory)
    sequence = factory.Sequence(lambda n: n + 1)
    epoch = 1
    step = 40
    action = Action.GERMINATE
    rule = "trigger"
    reason = "the training loss improves too slowly"
    site = "layers.0.width"

    class Meta:
        model = Decision


class CheckpointFactory(Factory[Checkpoint]):
    workspace = factory.LazyFunction(workspace)
    run_id = factory.LazyFunction(new_id)
    epoch = 1
    step = 40
    fencing_token = 1
    name = factory.LazyAttribute(lambda checkpoint: f"checkpoints/{checkpoint.run_id}/{new_id()}")
    format = "safetensors+json/1"
    state = CheckpointState.COMMITTED

    class Meta:
        model = Checkpoint


class PackFactory(Factory[Pack]):
    workspace = factory.LazyFunction(workspace)
    store_id = factory.LazyFunction(new_id)
    digest = factory.Sequence(lambda n: f"{n:064x}")
    size = 4096

    class Meta:
        model = Pack


class StoredObjectFactory(Factory[StoredObject]):
    """Objects of one pack lie one after another if the test says where; no bytes are written."""

    workspace = factory.LazyFunction(workspace)
    pack = factory.SubFactory(PackFactory)
    digest = factory.Sequence(lambda n: f"{n:064x}")
    offset = 24
    stored_size = 800
    raw_size = 1000
    encoding = "blosc2"
    itemsize = 4
    checksum = "0" * 32

    class Meta:
        model = StoredObject


class CheckpointPolicyFactory(Factory[CheckpointPolicy]):
    workspace = factory.LazyFunction(workspace)

    class Meta:
        model = CheckpointPolicy


class CheckpointJobFactory(Factory[CheckpointJob]):
    workspace = factory.LazyFunction(workspace)
    kind = JobKind.VERIFY
    checkpoint = factory.SubFactory(CheckpointFactory)
    run_id = factory.LazyAttribute(lambda job: job.checkpoint.run_id if job.checkpoint else new_id())
    state = JobState.PENDING

    class Meta:
        model = CheckpointJob


class RecoveryEventFactory(Factory[RecoveryEvent]):
    workspace = factory.LazyFunction(workspace)
    run = factory.SubFactory(RunFactory)
    cause = RecoveryCause.LEASE
    state = RecoveryState.OPEN

    class Meta:
        model = RecoveryEvent


class AlertRuleFactory(Factory[AlertRule]):
    """Above 0.9 fires at once."""

    workspace = factory.LazyFunction(workspace)
    name = factory.Sequence(lambda n: f"rule {n}")
    kind = RuleKind.THRESHOLD
    metric = "esper_host_cpu_ratio"
    parameters = factory.LazyFunction(
        lambda: {"op": ">", "value": 0.9, "reading": "last", "window_seconds": 300, "least_samples": 1}
    )

    class Meta:
        model = AlertRule


class AlertFactory(Factory[Alert]):
    """One that fires since five minutes."""

    workspace = factory.LazyFunction(workspace)
    rule_id = factory.LazyFunction(new_id)
    rule_name = "A host is busy"
    fingerprint = factory.Sequence(lambda n: f"{n:064x}")
    state = AlertState.FIRING
    severity = "warning"
    metric = "esper_host_cpu_ratio"
    labels = factory.LazyAttribute(
        lambda alert: {
            "alertname": alert.rule_name,
            "severity": alert.severity,
            "host": f"host-{alert.fingerprint[-4:]}",
        }
    )
    summary = "The processors are busy: 0.97"
    threshold = 0.9
    value = 0.97
    started_at = factory.LazyFunction(lambda: timezone.now() - timedelta(minutes=5))
    fired_at = factory.LazyAttribute(lambda alert: alert.started_at if alert.state != AlertState.PENDING else None)
    last_true_at = factory.LazyFunction(timezone.now)
    last_seen_at = factory.LazyFunction(timezone.now)

    class Meta:
        model = Alert


class SilenceFactory(Factory[Silence]):
    """One that holds for an hour."""

    workspace = factory.LazyFunction(workspace)
    matchers = factory.LazyFunction(lambda: [{"label": "host", "op": "=", "value": "mill"}])
    starts_at = factory.LazyFunction(lambda: timezone.now() - timedelta(minutes=1))
    ends_at = factory.LazyFunction(lambda: timezone.now() + timedelta(hours=1))
    comment = "the host gets a new disk"

    class Meta:
        model = Silence


class AlertRouteFactory(Factory[AlertRoute]):
    """A webhook that hears of everything at once."""

    workspace = factory.LazyFunction(workspace)
    name = factory.Sequence(lambda n: f"route {n}")
    channel = "webhook"
    target = "https://hooks.example.org/alerts"
    secret = "a-secret-of-the-tests"
    group_wait_seconds = 0

    class Meta:
        model = AlertRoute


class NotificationFactory(Factory[Notification]):
    """One about a firing alert that is due, over a route that need not exist."""

    workspace = factory.LazyFunction(workspace)
    route_id = factory.LazyFunction(new_id)
    route_name = "operators"
    channel = "webhook"
    group_key = factory.Sequence(lambda n: f"{n:064x}")
    state = NotificationState.PENDING
    payload = factory.LazyFunction(
        lambda: {
            "version": "4", "groupKey": "0", "truncatedAlerts": 0, "status": "firing", "receiver": "operators",
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "alerts": [],
        }
    )  # fmt: skip
    due_at = factory.LazyFunction(lambda: timezone.now() - timedelta(seconds=1))

    class Meta:
        model = Notification


class FieldReportFactory(Factory[FieldReport]):
    kernel = factory.SubFactory(KernelFactory, state=KernelState.VALIDATED)
    run_id = factory.LazyFunction(new_id)
    seed_number = 1
    task = "digits"
    host = "mlp"
    site = "layers.0.width"
    verdict = SeedState.FOSSILIZED
    parameters = 300
    train_flops = 1_000_000
    loss_before = 0.30
    loss_after = 0.25
    contribution = 0.05
    rent = 0.0002

    class Meta:
        model = FieldReport


class AuditEventFactory(Factory[AuditEvent]):
    """An event beside ``audit.services.record``: for tests that read the trail."""

    at = factory.LazyFunction(timezone.now)
    type = "run.created"
    subject_type = "run"
    subject_id = factory.LazyFunction(lambda: str(new_id()))
    actor_kind = "system"
    leaf = b"\0" * 32

    class Meta:
        model = AuditEvent
