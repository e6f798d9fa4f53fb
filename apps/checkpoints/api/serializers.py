"""Checkpoints, what becomes of them and how two of them differ, as the API shows them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.checkpoints.comparing import Change, ComponentComparison, Difference
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy, Location, SaveReason, Schedule
from apps.checkpoints.selectors import Judged
from apps.core.lifecycle import choices
from apps.core.serializers import JSONObject

MOST_DIFFERENCES = 500
"""Tensors that a comparison names per component; its counts are of all."""


class SavedComponentSerializer(serializers.Serializer[Any]):
    """A component of a run's state, which can be restored alone."""

    name = serializers.CharField()
    tensors = serializers.IntegerField()
    bytes = serializers.IntegerField(help_text="in memory")


class CheckpointSerializer(serializers.ModelSerializer[Checkpoint]):
    """``digest`` is the blake3 of the manifest. Bytes: ``size`` in memory, ``stored_bytes`` that it added to the
    storage, ``shared_bytes`` of its size that others have too."""

    state = serializers.ChoiceField(choices=list(CheckpointState), read_only=True)
    reason = serializers.ChoiceField(choices=SaveReason.choices, read_only=True)
    location = serializers.ChoiceField(choices=Location.choices, read_only=True)
    metrics = JSONObject(read_only=True, help_text="what the run measured last")

    class Meta:
        model = Checkpoint
        fields: tuple[str, ...] = (
            "id",
            "run_id",
            "name",
            "state",
            "reason",
            "epoch",
            "step",
            "fencing_token",
            "parent_id",
            "format",
            "digest",
            "size",
            "stored_bytes",
            "shared_bytes",
            "metrics",
            "location",
            "copied_at",
            "pinned",
            "verified_at",
            "stall_seconds",
            "save_seconds",
            "problem",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class RetentionVerdictSerializer(serializers.Serializer[Judged]):
    """Whether the checkpoint stays by the policy of its run, and why; ``goes_at``: when the clock alone takes it."""

    keep = serializers.BooleanField(source="verdict.keep")
    why = serializers.ListField(source="verdict.reasons", child=serializers.CharField())
    goes_at = serializers.DateTimeField(source="verdict.goes_at", allow_null=True)
    frees = serializers.IntegerField(source="verdict.frees", help_text="bytes that nothing needs once it is gone")


class CheckpointDetailSerializer(CheckpointSerializer):
    components = serializers.SerializerMethodField()
    environment = JSONObject(read_only=True, help_text="what bits depend on besides the state")
    retention = serializers.SerializerMethodField()

    class Meta(CheckpointSerializer.Meta):
        fields = (*CheckpointSerializer.Meta.fields, "components", "fingerprint", "environment", "retention")
        read_only_fields = fields

    @extend_schema_field(SavedComponentSerializer(many=True))
    def get_components(self, checkpoint: Checkpoint) -> Any:
        named = [{"name": name, **sizes} for name, sizes in checkpoint.components.items()]
        return SavedComponentSerializer(named, many=True).data

    @extend_schema_field(RetentionVerdictSerializer(allow_null=True))
    def get_retention(self, checkpoint: Checkpoint) -> Any:
        """Null for one that has no bytes: there is nothing to decide."""
        judged = self.context["view"].judged(checkpoint)
        return None if judged is None else RetentionVerdictSerializer(judged).data


# --- Two of them


class TensorDifferenceSerializer(serializers.Serializer[Difference]):
    """``before`` and ``after`` say what the tensor is, e.g. "float32 64x32"; empty where it is not there."""

    name = serializers.CharField()
    change = serializers.ChoiceField(choices=choices(Change))
    before = serializers.CharField()
    after = serializers.CharField()
    bytes = serializers.IntegerField()


class ComponentComparisonSerializer(serializers.Serializer[ComponentComparison]):
    """Numbers of tensors, and raw bytes. ``shared`` lie in objects of both, which are stored once."""

    name = serializers.CharField()
    added = serializers.IntegerField()
    removed = serializers.IntegerField()
    reshaped = serializers.IntegerField()
    changed = serializers.IntegerField()
    same = serializers.IntegerField()
    bytes = serializers.IntegerField()
    bytes_before = serializers.IntegerField()
    shared = serializers.IntegerField()
    differences = serializers.SerializerMethodField()

    @extend_schema_field(TensorDifferenceSerializer(many=True))
    def get_differences(self, comparison: ComponentComparison) -> Any:
        """The first of them."""
        first: Any = comparison.differences[:MOST_DIFFERENCES]
        return TensorDifferenceSerializer(first, many=True).data


class CheckpointDiffSerializer(serializers.Serializer[Any]):
    """What has changed from ``before`` to ``after``."""

    before = serializers.UUIDField()
    after = serializers.UUIDField()
    components = ComponentComparisonSerializer(many=True)


# --- Policies


class CheckpointPolicySerializer(serializers.ModelSerializer[CheckpointPolicy]):
    """``run_id`` null: of all runs that have none of their own."""

    schedule = serializers.ChoiceField(choices=Schedule.choices, read_only=True)

    class Meta:
        model = CheckpointPolicy
        fields = (
            "id",
            "run_id",
            "schedule",
            "interval_seconds",
            "keep_last",
            "keep_days",
            "keep_daily",
            "keep_weekly",
            "keep_monthly",
            "keep_best",
            "best_metric",
            "best_is_lowest",
            "archive_after_hours",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class GoingCheckpointSerializer(RetentionVerdictSerializer):
    """A checkpoint, and what becomes of it."""

    checkpoint = serializers.UUIDField(source="checkpoint.pk")
    run_id = serializers.UUIDField(source="checkpoint.run_id")
    step = serializers.IntegerField(source="checkpoint.step")
    created_at = serializers.DateTimeField(source="checkpoint.created_at")


class CheckpointPreviewSerializer(serializers.Serializer[Any]):
    """What the policy would do: ``frees`` is what goes now, and ``next_goes_at`` when the next one goes by itself."""

    runs = serializers.IntegerField(help_text="runs that the policy decides on and that have checkpoints")
    shown_runs = serializers.IntegerField(help_text="the newest of them, whose checkpoints are listed")
    goes = serializers.IntegerField(help_text="checkpoints that go now")
    frees = serializers.IntegerField(help_text="bytes")
    next_goes_at = serializers.DateTimeField(allow_null=True)
    checkpoints = GoingCheckpointSerializer(many=True)
