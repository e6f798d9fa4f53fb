"""`/recoveries`: how runs came back, stage by stage."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.audit.api.as_of import PastView
from apps.core.api import ListView
from apps.core.serializers import JSONObject
from apps.training.filters import RecoveryFilter
from apps.training.lifecycle import RecoveryState
from apps.training.models import RecoveryCause, RecoveryEvent

STAGES = ("detect", "load", "restore", "validate", "resume")


class RecoveryStageSerializer(serializers.Serializer[Any]):
    """``seconds`` null: the stage was not reached, or not needed."""

    name = serializers.ChoiceField(choices=STAGES)
    seconds = serializers.FloatField(allow_null=True)


class PassedOverSerializer(serializers.Serializer[Any]):
    """A newer checkpoint that was found broken."""

    checkpoint = serializers.UUIDField()
    step = serializers.IntegerField()
    problem = serializers.CharField()


class RecoverySerializer(serializers.ModelSerializer[RecoveryEvent]):
    """``checkpoint`` is what the run went on from; null once RESUMED: there was none, and it began anew."""

    run = serializers.UUIDField(source="run_id", read_only=True)
    checkpoint = serializers.UUIDField(source="checkpoint_id", read_only=True, allow_null=True)
    state = serializers.ChoiceField(choices=list(RecoveryState), read_only=True)
    cause = serializers.ChoiceField(choices=RecoveryCause.choices, read_only=True)
    stages = serializers.SerializerMethodField()
    total_seconds = serializers.SerializerMethodField()
    skipped = PassedOverSerializer(many=True, read_only=True)
    report = JSONObject(read_only=True, help_text="what was compared: fingerprint, environment, shapes")

    class Meta:
        model = RecoveryEvent
        fields = (
            "id",
            "run",
            "cause",
            "state",
            "lost_holder",
            "holder",
            "fencing_token",
            "checkpoint",
            "silent_since",
            "stages",
            "total_seconds",
            "skipped",
            "report",
            "problem",
            "created_at",
            "ended_at",
        )
        read_only_fields = fields

    @extend_schema_field(RecoveryStageSerializer(many=True))
    def get_stages(self, event: RecoveryEvent) -> Any:
        named = [{"name": name, "seconds": getattr(event, f"{name}_seconds")} for name in STAGES]
        return RecoveryStageSerializer(named, many=True).data

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_total_seconds(self, event: RecoveryEvent) -> float | None:
        """Of all stages that were reached; null while it is OPEN."""
        seconds = [getattr(event, f"{name}_seconds") for name in STAGES]
        return None if event.ended_at is None else sum(value for value in seconds if value is not None)


class RecoveryListView(ListView):
    """Recoveries of all runs, newest first."""

    queryset = RecoveryEvent.objects.all()
    serializer_class = RecoverySerializer
    filterset_class = RecoveryFilter
    scopes = {"GET": "runs:read"}


class RecoveryView(PastView):
    """One recovery: what was lost, what the run went on from, and how long each stage took."""

    queryset = RecoveryEvent.objects.all()
    serializer_class = RecoverySerializer
    content_tagged = True  # measurements of its stages are no new version of the row
    scopes = {"GET": "runs:read"}
