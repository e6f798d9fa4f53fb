"""Kernels and field reports as the API shows and takes them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.validators import RegexValidator
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.audit.api.as_of import RFC_3339
from apps.core.serializers import Choice, Flag, Integers, JSONObject, StrictSerializer, Text, Whole
from apps.kernels.hardware import signature
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import AliasPeriod, FieldReport, Kernel, KernelAlias, Pipeline
from apps.kernels.selectors import performance_of


class KernelRow(serializers.ModelSerializer[Kernel]):
    """``digest`` is the sha256 of the bytes, null until there are some."""

    blueprint = serializers.CharField(source="blueprint_version.blueprint.name", read_only=True)
    blueprint_id = serializers.UUIDField(source="blueprint_version.blueprint_id", read_only=True)
    version = serializers.IntegerField(source="blueprint_version.number", read_only=True)
    state = serializers.ChoiceField(choices=list(KernelState), read_only=True)
    bindings = Integers(read_only=True)
    compat = JSONObject(read_only=True)
    tags = JSONObject(read_only=True)
    metrics = JSONObject(read_only=True)

    class Meta:
        model = Kernel
        fields: tuple[str, ...] = (
            "id",
            "name",
            "blueprint",
            "blueprint_id",
            "version",
            "state",
            "pipeline",
            "operator",
            "bindings",
            "parameters",
            "compat",
            "digest",
            "size",
            "awaits_upload",
            "rejection",
            "tags",
            "metrics",
            "risk",
            "risk_confidence",
            "storage_tier",
            "usage_count",
            "last_used_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class PerformanceSerializer(serializers.Serializer[Any]):
    """Gains in nats per held-out sample, with a 95 % interval; null: not measured."""

    grafts = serializers.IntegerField(read_only=True)
    kept = serializers.IntegerField(read_only=True)
    gain_mean = serializers.FloatField(read_only=True, allow_null=True)
    gain_low = serializers.FloatField(read_only=True, allow_null=True)
    gain_high = serializers.FloatField(read_only=True, allow_null=True)


class KernelSerializer(KernelRow):
    report = JSONObject(read_only=True, help_text="compile and validation: each stage with what it measured")
    toolchain = JSONObject(read_only=True)
    hardware = JSONObject(read_only=True, help_text="where it was measured; timings compare within one profile")
    signature = serializers.SerializerMethodField(
        help_text="<spec digest>-<hardware profile>-<pipeline>-<toolchain digest>; empty before it was validated"
    )

    outcomes = serializers.SerializerMethodField(help_text="what its grafts in real runs came to")
    successor_id = serializers.UUIDField(read_only=True, allow_null=True)

    class Meta(KernelRow.Meta):
        fields = (
            *KernelRow.Meta.fields,
            *("report", "toolchain", "hardware", "compile_ms", "signature", "outcomes"),
            *("pinned_until", "legal_hold", "successor_id", "retired_at", "purge_after"),
        )
        read_only_fields = fields

    def get_signature(self, kernel: Kernel) -> str:
        return signature(
            report=kernel.report, hardware=kernel.hardware, pipeline=kernel.pipeline, toolchain=kernel.toolchain
        )

    @extend_schema_field(PerformanceSerializer)
    def get_outcomes(self, kernel: Kernel) -> Any:
        return PerformanceSerializer(performance_of(kernel)).data


class NewKernel(StrictSerializer):
    blueprint = Text(max_length=100, help_text="id or name")
    version = Whole(min_value=1, max_value=2**31 - 1, required=False, help_text="default: the newest")
    bindings = Integers(required=False, help_text="symbol -> size; the spec's own sizes where one is missing")
    tags = JSONObject(required=False)
    pipeline = Choice(Pipeline.choices, default=Pipeline.FAST, help_text="how thoroughly it is measured")
    awaits_upload = Flag(
        default=False, help_text="true: nothing is compiled, the bytes come by PUT /kernels/{id}/binary"
    )


class Identifier(serializers.UUIDField):
    """The id of something, as text."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            raise serializers.ValidationError("must be text", code="type")
        return UUID(str(super().to_internal_value(data)))


class Moment(serializers.DateTimeField):
    """A time as RFC 3339 text with its zone."""

    def to_internal_value(self, value: Any) -> datetime:
        form = RFC_3339.fullmatch(value.upper()) if isinstance(value, str) else None
        if form is None or form["zone"] is None:
            raise serializers.ValidationError("must be an RFC 3339 time with its zone", code="malformed")
        return datetime.fromisoformat(str(super().to_internal_value(value)))


class Reason(StrictSerializer):
    reason = Text(max_length=4000, required=False, help_text="kept in the audit trail")


class NeededReason(StrictSerializer):
    reason = Text(max_length=4000, help_text="kept in the audit trail")


class KernelChange(Reason):
    """What is left out stays as it is."""

    tags = JSONObject(required=False, help_text="all of them: they take the place of those that it has")
    pinned_until = Moment(required=False, allow_null=True, help_text="it is not retired before; null lifts the pin")
    legal_hold = Flag(required=False, help_text="true: it is never retired or purged; lifting it needs a reason")
    successor = Identifier(
        required=False, allow_null=True, help_text="the VALIDATED kernel of the same contract that replaces it"
    )


class BlobSerializer(serializers.Serializer[Any]):
    digest = serializers.CharField(read_only=True)
    size = serializers.IntegerField(read_only=True, help_text="bytes")


class ExistingBlob(StrictSerializer):
    digest = Text(max_length=64, validators=[RegexValidator(r"^[0-9a-f]{64}\Z", "is not a sha256 in lower-case hex")])


class AliasSerializer(serializers.ModelSerializer[KernelAlias]):
    """``blueprint`` is its name; ``version``, ``digest`` and ``kernel_state`` are those of the kernel."""

    blueprint = serializers.CharField(source="blueprint.name", read_only=True)
    blueprint_id = serializers.UUIDField(read_only=True)
    kernel_id = serializers.UUIDField(read_only=True)
    kernel = serializers.CharField(source="kernel.name", read_only=True)
    kernel_state = serializers.ChoiceField(source="kernel.state", choices=list(KernelState), read_only=True)
    version = serializers.IntegerField(source="kernel.blueprint_version.number", read_only=True)
    digest = serializers.CharField(source="kernel.digest", read_only=True, allow_null=True)

    class Meta:
        model = KernelAlias
        fields = (
            "id",
            "blueprint",
            "blueprint_id",
            "name",
            "kernel",
            "kernel_id",
            "kernel_state",
            "version",
            "digest",
            "is_protected",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class AliasChange(Reason):
    is_protected = Flag(help_text="moving a protected alias needs a reason; it points at VALIDATED kernels only")


class AliasPeriodSerializer(serializers.ModelSerializer[AliasPeriod]):
    """From ``started_at`` (included) to ``ended_at`` (excluded; null: it still does) it pointed at the kernel."""

    kernel_id = serializers.UUIDField(read_only=True)
    kernel = serializers.CharField(source="kernel.name", read_only=True)
    version = serializers.IntegerField(source="kernel.blueprint_version.number", read_only=True)

    class Meta:
        model = AliasPeriod
        fields = ("id", "kernel", "kernel_id", "version", "started_at", "ended_at")
        read_only_fields = fields


class FieldReportSerializer(serializers.ModelSerializer[FieldReport]):
    """Losses and contributions in nats per held-out sample."""

    class Meta:
        model = FieldReport
        fields = (
            "id",
            "kernel_id",
            "run_id",
            "seed_number",
            "task",
            "host",
            "site",
            "verdict",
            "parameters",
            "train_flops",
            "loss_before",
            "loss_after",
            "contribution",
            "contribution_low",
            "contribution_high",
            "rent",
            "accuracy_difference",
            "mcnemar_p",
            "created_at",
        )
        read_only_fields = fields
