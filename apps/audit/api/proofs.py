"""`/audit/proofs`, `/audit/checkpoints`, `/audit/keys`: what somebody outside needs to check the trail without trust.

The answers are what the stand-alone verifier reads (`python verifier.py proof proof.json --key ...`).
"""

from base64 import b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit import proofs, verifier
from apps.audit.models import AuditCheckpoint, AuditEvent, AuditKey
from apps.audit.state import trail_state
from apps.core.api import ApiView, ListView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid, NotFound
from apps.core.ids import parse_id

MAX_SIZE = 2**63 - 1


class InclusionSerializer(serializers.Serializer[Any]):
    """Digests are in hex; ``event`` has every value that its leaf commits to."""

    event = serializers.JSONField()
    index = serializers.IntegerField()
    size = serializers.IntegerField()
    path = serializers.ListField(child=serializers.CharField())
    checkpoint = serializers.CharField(help_text="the signed note (C2SP tlog-checkpoint)")
    keys = serializers.ListField(child=serializers.CharField(), help_text="trust them only from elsewhere")


class ConsistencySerializer(serializers.Serializer[Any]):
    first = serializers.IntegerField()
    second = serializers.IntegerField()
    path = serializers.ListField(child=serializers.CharField())
    from_checkpoint = serializers.CharField()
    to_checkpoint = serializers.CharField()
    keys = serializers.ListField(child=serializers.CharField(), help_text="trust them only from elsewhere")


class InclusionProofView(ApiView):
    """That an event is under a signed root (RFC 9162, section 2.1.3)."""

    serializer_class = InclusionSerializer
    scopes = {"GET": "audit:read"}
    query_parameters = frozenset({"event", "size"})
    conditional = True
    problems = {"GET": (404, 409)}

    @extend_schema(
        parameters=[
            OpenApiParameter("event", OpenApiTypes.UUID, required=True),
            OpenApiParameter("size", OpenApiTypes.INT64, description="of a checkpoint; by default the newest"),
        ],
        responses=InclusionSerializer,
    )
    def get(self, request: Request) -> Response:
        """The path from an event's leaf to the root of a checkpoint. 409 `not_sealed` in its first seconds."""
        event = _event(request)
        proof = proofs.inclusion(event, size=_size(request, "size"))
        data = {
            "event": proofs.exported(event, proof.index),
            "index": proof.index,
            "size": proof.size,
            "path": [digest.hex() for digest in proof.path],
            "checkpoint": proof.checkpoint.note,
            "keys": proofs.verifiers(),
        }
        return self.read(data, content_etag(None, data))


class ConsistencyProofView(ApiView):
    """That the trail only ever grew (RFC 9162, section 2.1.4)."""

    serializer_class = ConsistencySerializer
    scopes = {"GET": "audit:read"}
    query_parameters = frozenset({"from", "to"})
    conditional = True
    problems = {"GET": (404, 409)}

    @extend_schema(
        parameters=[
            OpenApiParameter("from", OpenApiTypes.INT64, required=True, description="size of the earlier checkpoint"),
            OpenApiParameter("to", OpenApiTypes.INT64, description="of the later one; by default the newest"),
        ],
        responses=ConsistencySerializer,
    )
    def get(self, request: Request) -> Response:
        """The path from one checkpoint to a later one."""
        first = _size(request, "from")
        if first is None:
            raise Invalid("is required: the size of a checkpoint that you have", pointer="/from", code="required")
        proof = proofs.consistency(first=first, second=_size(request, "to"))
        data = {
            "first": proof.first.size,
            "second": proof.second.size,
            "path": [digest.hex() for digest in proof.path],
            "from_checkpoint": proof.first.note,
            "to_checkpoint": proof.second.note,
            "keys": proofs.verifiers(),
        }
        return self.read(data, content_etag(None, data))


class CheckpointNoteSerializer(serializers.ModelSerializer[AuditCheckpoint]):
    root_hash = serializers.SerializerMethodField(help_text="base64, as in the note")
    key = serializers.CharField(source="key_id")

    class Meta:
        model = AuditCheckpoint
        fields = ("size", "at", "root_hash", "note", "key")
        read_only_fields = fields

    def get_root_hash(self, checkpoint: AuditCheckpoint) -> str:
        return b64encode(bytes(checkpoint.root)).decode()


class CheckpointNoteListView(ListView):
    """The signed roots, newest first. Keep some of them elsewhere: that is what the trail is checked against."""

    queryset = AuditCheckpoint.objects.all()
    serializer_class = CheckpointNoteSerializer
    sorts = ("-size", "size")
    scopes = {"GET": "audit:read"}


class KeySerializer(serializers.ModelSerializer[AuditKey]):
    class Meta:
        model = AuditKey
        fields = ("id", "verifier", "admitted_at", "admitted_by")
        read_only_fields = fields


class KeyListView(ListView):
    """The public keys that checkpoints were signed with, and which of them vouched for the next."""

    queryset = AuditKey.objects.all()
    serializer_class = KeySerializer
    sorts = ("admitted_at", "-admitted_at")
    scopes = {"GET": "audit:read"}


class TrailStateSerializer(serializers.Serializer[Any]):
    """Ages in seconds. ``fault`` says why nothing is sealed, where a missing key is why."""

    sealed = serializers.IntegerField()
    unsealed = serializers.IntegerField()
    unsealed_age = serializers.FloatField()
    is_stale = serializers.BooleanField()
    checkpoint_size = serializers.IntegerField(source="checkpoint.size", default=None, allow_null=True)
    checkpoint_at = serializers.DateTimeField(source="checkpoint.at", default=None, allow_null=True)
    uncopied = serializers.IntegerField()
    verified_at = serializers.DateTimeField(source="verification.at", default=None, allow_null=True)
    verified_size = serializers.IntegerField(source="verification.size", default=None, allow_null=True)
    findings = serializers.IntegerField(source="verification.findings_count", default=None, allow_null=True)
    fault = serializers.CharField(allow_blank=True)


class TrailStateView(ApiView):
    """How the trail stands: what is sealed, what waits and for how long, and whether it verified."""

    serializer_class = TrailStateSerializer
    scopes = {"GET": "audit:read"}

    @extend_schema(responses=TrailStateSerializer)
    def get(self, request: Request) -> Response:
        """What `/metrics` has as `esper_audit_...`."""
        return Response(TrailStateSerializer(trail_state()).data)


class VerifierView(ApiView):
    """The stand-alone verifier: one Python file."""

    scopes = {"GET": "audit:read"}

    @extend_schema(responses={(200, "text/x-python"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        """Get it from somebody whom you trust rather than from the server that you check."""
        source = Path(verifier.__file__).read_text(encoding="utf-8")
        return HttpResponse(
            source,
            content_type="text/x-python; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="verifier.py"'},
        )


def _event(request: Request) -> AuditEvent:
    given = request.query_params.get("event")
    if given is None:
        raise Invalid("is required: the id of an event", pointer="/event", code="required")
    key: UUID | None = parse_id(given)
    if key is None:
        raise Invalid("is not the id of an event", pointer="/event", code="uuid")
    event = AuditEvent.objects.filter(pk=key).first()
    if event is None:
        raise NotFound("there is no such event in the event store; its month may have been archived")
    return event


def _size(request: Request, name: str) -> int | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and int(given[:20]) <= MAX_SIZE and len(given) <= 19):
        raise Invalid("must be the size of a checkpoint", pointer=f"/{name}", code="type")
    return int(given)
