"""Blueprints and their versions as the API shows and takes them. The spec itself is checked by the grammar."""

from rest_framework import serializers

from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.core.serializers import JSONObject, StrictSerializer, Text


class BlueprintSerializer(serializers.ModelSerializer[Blueprint]):
    card = JSONObject(read_only=True)
    tags = JSONObject(read_only=True)

    class Meta:
        model = Blueprint
        fields = ("id", "name", "title", "card", "tags", "created_at", "updated_at")
        read_only_fields = fields


class BlueprintRow(BlueprintSerializer):
    version_count = serializers.IntegerField(read_only=True)

    class Meta(BlueprintSerializer.Meta):
        fields = (*BlueprintSerializer.Meta.fields, "version_count")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class NewBlueprint(StrictSerializer):
    name = Text(max_length=100)
    title = Text(max_length=200, required=False, allow_blank=True)
    card = JSONObject(required=False, help_text="what it is for: text, numbers and lists of these")
    tags = JSONObject(required=False)
    spec = JSONObject(required=False, help_text="becomes the first version; the grammar is in docs/blueprints.md")


class BlueprintChange(StrictSerializer):
    title = Text(max_length=200, required=False, allow_blank=True)
    card = JSONObject(required=False)
    tags = JSONObject(required=False)
    reason = Text(max_length=4000, required=False, help_text="kept in the audit trail")


class BlueprintVersionSerializer(serializers.ModelSerializer[BlueprintVersion]):
    blueprint = serializers.CharField(source="blueprint.name", read_only=True)
    blueprint_id = serializers.UUIDField(read_only=True)
    state = serializers.ChoiceField(choices=list(VersionState), read_only=True)
    spec = JSONObject(read_only=True)

    class Meta:
        model = BlueprintVersion
        fields = (
            "id",
            "blueprint",
            "blueprint_id",
            "number",
            "state",
            "operator",
            "parameters",
            "digest",
            "spec",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class NewVersion(StrictSerializer):
    spec = JSONObject()
