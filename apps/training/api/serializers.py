"""Runs and what they grew, as the API shows them."""

from rest_framework import serializers

from apps.core.serializers import JSONObject
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action, Command
from apps.training.lifecycle import RunState
from apps.training.models import Decision, EpochMetric, RunKind, Seed, SeedTransition, TrainingRun


class RunRow(serializers.ModelSerializer[TrainingRun]):
    """``command`` is what the run was asked to do at its next step boundary; ``last_*`` its newest epoch's figures."""

    kind = serializers.ChoiceField(choices=RunKind.choices, read_only=True)
    state = serializers.ChoiceField(choices=list(RunState), read_only=True)
    command = serializers.ChoiceField(choices=list(Command), read_only=True)
    owner = serializers.CharField(source="owner.username", read_only=True, default=None, allow_null=True)
    control_of = serializers.UUIDField(source="control_of_id", read_only=True, allow_null=True)
    last_epoch = serializers.IntegerField(read_only=True, allow_null=True)
    last_loss = serializers.FloatField(read_only=True, allow_null=True)
    last_accuracy = serializers.FloatField(read_only=True, allow_null=True)
    last_parameters = serializers.IntegerField(read_only=True, allow_null=True)
    first_parameters = serializers.IntegerField(read_only=True, allow_null=True)

    class Meta:
        model = TrainingRun
        fields: tuple[str, ...] = (
            "id",
            "name",
            "kind",
            "state",
            "command",
            "owner",
            "task",
            "host",
            "seed",
            "epochs",
            "library_source",
            "wants_control",
            "control_of",
            "last_epoch",
            "last_loss",
            "last_accuracy",
            "last_parameters",
            "first_parameters",
            "created_at",
            "started_at",
            "ended_at",
            "failure",
        )
        read_only_fields = fields


class RunSerializer(RunRow):
    settings = JSONObject(read_only=True)
    result = JSONObject(read_only=True)
    environment = JSONObject(read_only=True)

    class Meta(RunRow.Meta):
        fields = (*RunRow.Meta.fields, "settings", "result", "environment")
        read_only_fields = fields


class EpochMetricSerializer(serializers.ModelSerializer[EpochMetric]):
    """Losses in nats, accuracy in 0..1, training FLOPs cumulative; ``live_seeds`` maps a site to its seed's state."""

    live_seeds = JSONObject(read_only=True)

    class Meta:
        model = EpochMetric
        fields = (
            "epoch",
            "step",
            "train_loss",
            "validation_loss",
            "validation_accuracy",
            "parameters",
            "train_flops",
            "learning_rate",
            "live_seeds",
            "at",
        )
        read_only_fields = fields


class SeedRow(serializers.ModelSerializer[Seed]):
    """``outcome`` is the ledger at the end: contribution in nats with its interval, rent, parameters, FLOPs.

    ``slot_id`` is what the search of kernels asks for: ``compatible_with('<slot_id>')``.
    """

    site = serializers.CharField(source="slot.site", read_only=True)
    state = serializers.ChoiceField(choices=list(SeedState), read_only=True)
    outcome = JSONObject(read_only=True)

    class Meta:
        model = Seed
        fields: tuple[str, ...] = (
            "id",
            "run_id",
            "number",
            "slot_id",
            "site",
            "operator",
            "kernel_id",
            "kernel_name",
            "kernel_digest",
            "state",
            "alpha",
            "germinated_epoch",
            "ended_epoch",
            "outcome",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class SeedTransitionSerializer(serializers.ModelSerializer[SeedTransition]):
    source = serializers.ChoiceField(choices=list(SeedState), read_only=True)  # type: ignore[assignment]
    target = serializers.ChoiceField(choices=list(SeedState), read_only=True)
    measured = JSONObject(read_only=True)
    thresholds = JSONObject(read_only=True)

    class Meta:
        model = SeedTransition
        fields = ("sequence", "epoch", "step", "source", "target", "gate", "reason", "measured", "thresholds", "at")
        read_only_fields = fields


class SeedSerializer(SeedRow):
    transitions = SeedTransitionSerializer(many=True, read_only=True)

    class Meta(SeedRow.Meta):
        fields = (*SeedRow.Meta.fields, "transitions")
        read_only_fields = fields


class RefusalSerializer(serializers.Serializer[dict[str, str]]):
    action = serializers.CharField()
    site = serializers.CharField()
    kernel = serializers.CharField()
    reason = serializers.CharField()


class DecisionSerializer(serializers.ModelSerializer[Decision]):
    """What the policy decided, the rule that fired, what it had observed and what it refused."""

    action = serializers.ChoiceField(choices=list(Action), read_only=True)
    observed = JSONObject(read_only=True)
    refused = RefusalSerializer(many=True, read_only=True)

    class Meta:
        model = Decision
        fields = (
            "id",
            "run_id",
            "sequence",
            "epoch",
            "step",
            "action",
            "rule",
            "reason",
            "site",
            "seed_number",
            "kernel_digest",
            "observed",
            "refused",
            "at",
        )
        read_only_fields = fields
