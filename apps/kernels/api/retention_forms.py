"""Policies, plans and explanations of retention as the API shows and takes them."""

from typing import Any

from rest_framework import serializers

from apps.core.serializers import Choice, Flag, JSONObject, Number, StrictSerializer, Text, Whole
from apps.kernels.lifecycle import KernelState, PlanState
from apps.kernels.models import RetentionItem, RetentionPlan, RetentionPolicy, StorageTier
from apps.kernels.services.retention import MAX_DAYS

BIGINT = 2**63 - 1
INT = 2**31 - 1
MAX_REASON = 4000
FINITE = 1e300


class PolicySerializer(serializers.ModelSerializer[RetentionPolicy]):
    class Meta:
        model = RetentionPolicy
        fields = (
            "id",
            "name",
            "description",
            "is_enabled",
            "match",
            "unused_for_days",
            "older_than_days",
            "metric",
            "metric_below",
            "risk_above",
            "keep_latest",
            "keep_best",
            "storage_cap_bytes",
            "max_share",
            "max_bytes",
            "grace_days",
            "purge_after_days",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


def _days(**kwargs: Any) -> Whole:
    return Whole(min_value=0, max_value=MAX_DAYS, required=False, **kwargs)


class PolicyChange(StrictSerializer):
    """A kernel is condemned when it matches and every criterion that is set holds; null takes a criterion away."""

    description = Text(max_length=200, required=False, allow_blank=True)
    is_enabled = Flag(required=False, help_text="beat makes a plan of it every day; none is applied by itself")
    match = Text(max_length=4000, required=False, allow_blank=True, help_text="as in the search; empty: every kernel")
    unused_for_days = _days(allow_null=True)
    older_than_days = _days(allow_null=True)
    metric = Text(max_length=64, required=False, allow_blank=True, help_text="of metric_below and keep_best")
    metric_below = Number(min_value=-FINITE, max_value=FINITE, required=False, allow_null=True)
    risk_above = Number(min_value=0, max_value=1, required=False, allow_null=True)
    keep_latest = Whole(min_value=0, max_value=INT, required=False, allow_null=True, help_text="spares the newest")
    keep_best = Whole(
        min_value=0, max_value=INT, required=False, allow_null=True, help_text="spares the highest metric"
    )
    storage_cap_bytes = Whole(
        min_value=0, max_value=BIGINT, required=False, allow_null=True, help_text="condemns the least recently used"
    )
    max_share = Number(min_value=0, max_value=1, required=False, help_text="of the kernels in use, for one plan")
    max_bytes = Whole(min_value=0, max_value=BIGINT, required=False, allow_null=True, help_text="for one plan")
    grace_days = _days(help_text="a kernel younger than this stays")
    purge_after_days = _days(help_text="how long a retired kernel can be restored")
    reason = Text(max_length=MAX_REASON, required=False, help_text="kept in the audit trail")


class NewPolicy(PolicyChange):
    name = Text(max_length=64)


class PlanSerializer(serializers.ModelSerializer[RetentionPlan]):
    """``kept``: rule -> how many condemned kernels it keeps; ``outcome``: retired, changed, protected -> how many."""

    policy_name = serializers.CharField(source="policy.name", read_only=True)
    state = serializers.ChoiceField(choices=list(PlanState), read_only=True)
    kept = JSONObject(read_only=True)
    outcome = JSONObject(read_only=True)

    class Meta:
        model = RetentionPlan
        fields = (
            "id",
            "policy_id",
            "policy_name",
            "state",
            "item_count",
            "byte_count",
            "kept",
            "outcome",
            "expires_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class PlanItemSerializer(serializers.ModelSerializer[RetentionItem]):
    """``outcome`` is empty until it was applied; ``detail`` says why a kernel was left alone."""

    kernel_name = serializers.CharField(source="kernel.name", read_only=True)

    class Meta:
        model = RetentionItem
        fields = ("id", "kernel_id", "kernel_name", "row_version", "reason", "bytes", "outcome", "detail")
        read_only_fields = fields


class NewPlan(StrictSerializer):
    policy = Text(max_length=64, help_text="id or name")
    reason = Text(max_length=MAX_REASON, required=False, help_text="kept in the audit trail")


class Because(StrictSerializer):
    reason = Text(max_length=MAX_REASON, help_text="kept in the audit trail")


class Retirement(Because):
    successor = Text(max_length=64, required=False, help_text="id of the kernel to use instead")


class TierChange(StrictSerializer):
    tier = Choice(choices=StorageTier.choices)
    reason = Text(max_length=MAX_REASON, required=False, help_text="kept in the audit trail")


class RuleFinding(serializers.Serializer[Any]):
    """``when``: the time at which the clock alone turns it; null: never."""

    rule = serializers.CharField(read_only=True)
    holds = serializers.BooleanField(read_only=True)
    detail = serializers.CharField(read_only=True)
    when = serializers.DateTimeField(read_only=True, allow_null=True)


class PolicyVerdict(serializers.Serializer[Any]):
    """``fault`` says why the policy could not be read; then it condemns nothing."""

    policy_id = serializers.UUIDField(source="policy.pk", read_only=True)
    policy_name = serializers.CharField(source="policy.name", read_only=True)
    is_enabled = serializers.BooleanField(source="policy.is_enabled", read_only=True)
    fault = serializers.CharField(read_only=True)
    matches = serializers.BooleanField(source="verdict.matches", read_only=True, default=False)
    is_condemned = serializers.BooleanField(source="verdict.is_condemned", read_only=True, default=False)
    criteria = RuleFinding(source="verdict.criteria", many=True, read_only=True, default=[])
    kept_by = RuleFinding(source="verdict.kept_by", many=True, read_only=True, default=[])
    when = serializers.DateTimeField(source="verdict.when", read_only=True, allow_null=True, default=None)


class RetentionExplanation(serializers.Serializer[Any]):
    """``when``: when it would be retired, or purged if it is, while nothing but the time changes; null: never."""

    kernel_id = serializers.UUIDField(source="kernel.pk", read_only=True)
    state = serializers.ChoiceField(source="kernel.state", choices=list(KernelState), read_only=True)
    retired_at = serializers.DateTimeField(source="kernel.retired_at", read_only=True, allow_null=True)
    purge_after = serializers.DateTimeField(source="kernel.purge_after", read_only=True, allow_null=True)
    protections = RuleFinding(many=True, read_only=True)
    policies = PolicyVerdict(many=True, read_only=True)
    when = serializers.DateTimeField(read_only=True, allow_null=True)
