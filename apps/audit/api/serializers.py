"""Audit events as the API shows them."""

from typing import Any

from rest_framework import serializers

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent
from apps.audit.selectors import actor_names


class AuditEventSerializer(serializers.ModelSerializer[AuditEvent]):
    """``actor_name`` is looked up beside the event and is empty once the person was erased."""

    sentence = serializers.SerializerMethodField()
    actor_name = serializers.SerializerMethodField()
    leaf = serializers.SerializerMethodField(help_text="sha256 of the event, in hex")

    class Meta:
        model = AuditEvent
        fields = (
            "id",
            "at",
            "type",
            "sentence",
            "subject_type",
            "subject_id",
            "actor_id",
            "actor_kind",
            "actor_name",
            "token_id",
            "request_id",
            "trace_id",
            "reason",
            "outcome",
            "diff",
            "payload",
            "leaf",
        )
        read_only_fields = fields

    def get_sentence(self, event: AuditEvent) -> str:
        kind = EVENT_TYPES.get(event.type)
        return kind.sentence if kind else ""

    def get_actor_name(self, event: AuditEvent) -> str:
        names: dict[Any, str] | None = self.context.get("actor_names")
        if names is None:
            names = actor_names([event.actor_id])
        return names.get(event.actor_id, "") if event.actor_id else ""

    def get_leaf(self, event: AuditEvent) -> str:
        return bytes(event.leaf).hex()
