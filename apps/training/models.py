"""Runs (Tolaria) and what they grew: slots, seeds, transitions, decisions, metrics. Rows of a run are never deleted."""

from typing import ClassVar

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched
from apps.core.ids import new_id
from apps.core.lifecycle import choices, state_check
from apps.core.models import BaseModel
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action, Command
from apps.training.lifecycle import RECOVERY_LIFECYCLE, RUN_LIFECYCLE, SEED_LIFECYCLE, RecoveryState, RunState


class RunKind(models.TextChoices):
    INTERNAL = "internal", "trained by our workers"
    CONTROL = "control", "static control of a grown run"
    EXTERNAL = "external", "trained by a client of its own"


class LibrarySource(models.TextChoices):
    STARTER = "starter", "the starter library, neutral priors"
    LEARNED = "learned", "every validated kernel, priors from field reports"


class TrainingRun(WorkspaceOwned):
    """One training of one network. ``settings`` and ``library`` decide everything that it will do.

    ``library`` is the snapshot of offers (digest, shapes, prior) that the policy may germinate: frozen when the run
    first starts, once the kernels that it asked for are compiled.
    ``last_sequence`` is the newest engine event stored; a resumed run repeats older ones, which are ignored.
    """

    audit: ClassVar[Watched] = Watched(subject="run", outside={"last_sequence", "environment"})

    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=16, choices=RunKind, default=RunKind.INTERNAL, editable=False)
    state = models.CharField(max_length=16, choices=choices(RunState), default=RunState.QUEUED, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+", editable=False
    )
    task = models.CharField(max_length=64, editable=False)
    host = models.CharField(max_length=64, editable=False)
    seed = models.PositiveIntegerField(editable=False)
    settings = models.JSONField(editable=False)
    library_source = models.CharField(
        max_length=16, choices=LibrarySource, default=LibrarySource.STARTER, editable=False
    )
    library = models.JSONField(null=True, editable=False)
    environment = models.JSONField(default=dict, editable=False)
    control_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="controls", editable=False)
    wants_control = models.BooleanField(default=True, editable=False)
    command = models.CharField(max_length=16, choices=choices(Command), default=Command.CONTINUE, editable=False)
    last_sequence = models.BigIntegerField(default=0, editable=False)
    epochs = models.PositiveIntegerField(editable=False)
    resume_from = models.UUIDField(null=True, editable=False)
    """The checkpoint that the next start goes from, instead of the newest; empty again once it has."""
    started_at = models.DateTimeField(null=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    failure = models.TextField(blank=True, editable=False)
    result = models.JSONField(default=dict, editable=False, encoder=DjangoJSONEncoder)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=state_check("state", RunState), name="run_state_is_known"),
            models.CheckConstraint(
                condition=Q(kind=RunKind.CONTROL, control_of__isnull=False)
                | (~Q(kind=RunKind.CONTROL) & Q(control_of__isnull=True)),
                name="control_names_its_run",
            ),
        ]
        indexes = [models.Index(fields=["state", "-id"], name="run_state_newest")]
        triggers = RUN_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return self.name


class RunLease(models.Model):
    """Who trains the run now. Signs of life only: outside the audit net, and never part of a run's meaning.

    ``fencing_token`` grows with every new holder; a write that presents an older one is refused.
    """

    run = models.OneToOneField(TrainingRun, on_delete=models.CASCADE, primary_key=True, related_name="lease")
    holder = models.CharField(max_length=200, blank=True)
    fencing_token = models.PositiveBigIntegerField(default=0)
    expires_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(null=True)
    recoveries = models.PositiveIntegerField(default=0)
    """Takeovers since the last snapshot: a run that kills its workers must end."""

    def __str__(self) -> str:
        return f"{self.run_id} {self.fencing_token}"


class RecoveryCause(models.TextChoices):
    LEASE = "lease", "the worker showed no sign of life"
    FAULT = "fault", "a database or a storage was away"
    RESTORE = "restore", "somebody set the run back to a checkpoint"


class RecoveryEvent(WorkspaceOwned):
    """How a run came back: detect, load, restore, validate, resume, each with its seconds; null: not reached.

    ``detect`` is from the last sign of life until the loss was noticed, ``load`` reads and verifies the bytes of the
    checkpoint, ``restore`` puts them into the objects of the run, ``validate`` compares one forward pass with the one
    recorded, and ``resume`` is from there to the end of the first step.
    """

    audit: ClassVar[Watched] = Watched(
        subject="recovery",
        outside={"detect_seconds", "load_seconds", "restore_seconds", "validate_seconds", "resume_seconds", "report"},
    )

    run = models.ForeignKey(TrainingRun, on_delete=models.PROTECT, related_name="recoveries", editable=False)
    cause = models.CharField(max_length=8, choices=RecoveryCause, editable=False)
    state = models.CharField(max_length=8, choices=choices(RecoveryState), default=RecoveryState.OPEN, editable=False)
    lost_holder = models.CharField(max_length=200, blank=True, editable=False)
    """Who had the run and was lost."""
    holder = models.CharField(max_length=200, blank=True, editable=False)
    """Who brought it back."""
    fencing_token = models.PositiveBigIntegerField(null=True, editable=False)
    """Of the holder who brought it back: older ones are refused."""
    checkpoint = models.ForeignKey(
        "checkpoints.Checkpoint", on_delete=models.PROTECT, null=True, related_name="recoveries", editable=False
    )
    """Null once RESUMED: there was none, and the run began anew."""
    silent_since = models.DateTimeField(null=True, editable=False)
    detect_seconds = models.FloatField(null=True, editable=False)
    load_seconds = models.FloatField(null=True, editable=False)
    restore_seconds = models.FloatField(null=True, editable=False)
    validate_seconds = models.FloatField(null=True, editable=False)
    resume_seconds = models.FloatField(null=True, editable=False)
    skipped = models.JSONField(default=list, editable=False)
    """[{"checkpoint", "step", "problem"}]: newer ones that were found broken, and passed over."""
    report = models.JSONField(default=dict, editable=False)
    """What was compared: fingerprint, environment, shapes that differ from those of a fresh network."""
    problem = models.TextField(blank=True, editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(cause__in=RecoveryCause.values), name="recovery_cause_is_known"),
            models.CheckConstraint(condition=state_check("state", RecoveryState), name="recovery_state_is_known"),
            models.UniqueConstraint(
                fields=["run"], condition=Q(state=RecoveryState.OPEN), name="recovery_one_open_per_run"
            ),
        ]
        triggers = RECOVERY_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"recovery …{str(self.pk)[-6:]}"


class SeedSlot(BaseModel):
    """A place in the host that can germinate: named after the layer it stands at."""

    audit: ClassVar[Watched] = Watched(subject="slot")

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="slots")
    site = models.CharField(max_length=200)
    locked = models.BooleanField(default=False)
    embargoed_until_epoch = models.PositiveIntegerField(null=True)

    class Meta:
        ordering = ["site"]
        constraints = [models.UniqueConstraint(fields=["run", "site"], name="slot_once_per_site")]

    def __str__(self) -> str:
        return self.site


class Seed(BaseModel):
    """One germination: a kernel in a slot, from birth to fossil, cull or rollback."""

    audit: ClassVar[Watched] = Watched(subject="seed")

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="seeds")
    slot = models.ForeignKey(SeedSlot, on_delete=models.CASCADE, related_name="seeds")
    number = models.PositiveIntegerField()
    operator = models.CharField(max_length=16)
    kernel_digest = models.CharField(max_length=64)
    kernel_id = models.UUIDField(null=True)
    kernel_name = models.CharField(max_length=160, blank=True)
    state = models.CharField(max_length=16, choices=choices(SeedState), default=SeedState.DORMANT)
    alpha = models.FloatField(default=0.0)
    germinated_epoch = models.PositiveIntegerField()
    ended_epoch = models.PositiveIntegerField(null=True)
    outcome = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    """The ledger at the end: contribution with interval, rent, parameters, FLOPs."""

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="seed_number_once_per_run"),
            models.CheckConstraint(condition=state_check("state", SeedState), name="seed_state_is_known"),
        ]
        triggers = SEED_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"#{self.number} {self.operator}@{self.slot.site}"

    @property
    def standing(self) -> str:
        """What became of the seed: its verdict if it has one (its state then follows the slot), else its state."""
        return str(self.outcome.get("verdict") or self.state)


class SeedTransition(models.Model):
    """One move of a seed, with what its gate measured and what it asked for."""

    audit: ClassVar[Watched] = Watched(subject="seed", outside={"at"}, of="seed_id")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="transitions")
    seed = models.ForeignKey(Seed, on_delete=models.CASCADE, related_name="transitions")
    sequence = models.BigIntegerField()
    epoch = models.PositiveIntegerField()
    step = models.PositiveBigIntegerField()
    source = models.CharField(max_length=16)
    target = models.CharField(max_length=16)
    gate = models.CharField(max_length=4, blank=True)
    reason = models.TextField()
    measured = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    thresholds = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["sequence"]
        constraints = [models.UniqueConstraint(fields=["run", "sequence"], name="transition_once_per_sequence")]

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


class Decision(models.Model):
    """One decision of the policy (Tamiyo): what it saw, the rule that fired, and what it refused."""

    audit: ClassVar[Watched] = Watched(subject="run", outside={"at"}, of="run_id")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="decisions")
    sequence = models.BigIntegerField()
    epoch = models.PositiveIntegerField()
    step = models.PositiveBigIntegerField()
    action = models.CharField(max_length=16, choices=choices(Action))
    rule = models.CharField(max_length=64)
    reason = models.TextField()
    site = models.CharField(max_length=200, blank=True)
    seed_number = models.PositiveIntegerField(null=True)
    kernel_digest = models.CharField(max_length=64, blank=True)
    observed = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    refused = models.JSONField(default=list, encoder=DjangoJSONEncoder)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["sequence"]
        constraints = [models.UniqueConstraint(fields=["run", "sequence"], name="decision_once_per_sequence")]
        indexes = [models.Index(fields=["-id"], name="decision_newest")]

    def __str__(self) -> str:
        return f"{self.action} {self.site}"


class EpochMetric(models.Model):
    """What one epoch of a run measured. Losses in nats, accuracies in 0..1, FLOPs cumulative."""

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="metrics")
    epoch = models.PositiveIntegerField()
    step = models.PositiveBigIntegerField()
    train_loss = models.FloatField(null=True)
    validation_loss = models.FloatField(null=True)
    validation_accuracy = models.FloatField(null=True)
    parameters = models.BigIntegerField()
    train_flops = models.BigIntegerField()
    learning_rate = models.FloatField(null=True)
    live_seeds = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["epoch"]
        constraints = [models.UniqueConstraint(fields=["run", "epoch"], name="metric_once_per_epoch")]

    def __str__(self) -> str:
        return f"epoch {self.epoch}"
