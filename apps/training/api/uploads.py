"""`/runs/{id}/checkpoints/uploads`: checkpoints of a run that a client trains itself, of which only what is not here
yet travels: begin with the manifest, send the objects that are missing, commit.

The manifest has the members of `GET /checkpoints/{id}/manifest` that a client knows. An object is at most 8 MiB of the
raw bytes of one tensor, or of several small ones, named by its blake3.
"""

from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from apps.checkpoints.api.serializers import CheckpointSerializer
from apps.checkpoints.store.packs import OBJECT_BYTES
from apps.core.actors import actor_of
from apps.core.api import ApiView
from apps.core.errors import PayloadTooLarge
from apps.core.idempotency import idempotent
from apps.core.parsers import BinaryParser
from apps.core.serializers import JSONObject, StrictSerializer, Whole
from apps.training.api.requests import BIGINT
from apps.training.models import TrainingRun
from apps.training.services import uploads

OCTETS = "application/octet-stream"
MAX_MANIFEST_BODY = 32 * 1024 * 1024


class NewUpload(StrictSerializer):
    fencing_token = Whole(min_value=0, max_value=BIGINT)
    manifest = JSONObject(help_text="epoch, step, components; metrics, fingerprint, environment, labels if you like")


class Commit(StrictSerializer):
    fencing_token = Whole(min_value=0, max_value=BIGINT)


class UploadSerializer(serializers.Serializer[Any]):
    """Send each of the ``missing`` objects, in any order."""

    upload = serializers.UUIDField(source="id")
    missing = serializers.ListField(child=serializers.CharField(), help_text="blake3 digests")


class OfRun(ApiView):
    queryset = TrainingRun.objects.all()
    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]


class UploadsView(OfRun):
    max_body = MAX_MANIFEST_BODY

    @extend_schema(request=NewUpload, responses={201: UploadSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Begin to send a checkpoint of an external run. An upload that is left alone goes after a day."""
        given = self.parse(NewUpload)
        begun = uploads.begin_checkpoint_upload(
            run=self.get_object(), fencing_token=given["fencing_token"], document=given["manifest"]
        )
        return Response(UploadSerializer(begun).data, status=status.HTTP_201_CREATED)


class UploadedObjectView(ApiView):
    queryset = TrainingRun.objects.all()
    scopes = {"PUT": "runs:write"}
    http_method_names = ["put"]
    parser_classes = (BinaryParser,)
    max_body = OBJECT_BYTES
    problems = {"PUT": (415,)}

    @extend_schema(request={OCTETS: OpenApiTypes.BINARY}, responses={204: None})
    def put(self, request: Request, id: UUID, upload: UUID, digest: str) -> Response:
        """Send one object: its raw bytes. The same one again changes nothing."""
        stream: Any = request._request
        data = stream.read(OBJECT_BYTES + 1)
        if len(data) > OBJECT_BYTES:
            raise PayloadTooLarge(f"an object has at most {OBJECT_BYTES:,} bytes")
        uploads.send_checkpoint_object(run=self.get_object(), upload_id=upload, digest=digest, data=data)
        return Response(status=status.HTTP_204_NO_CONTENT)


class CommitView(OfRun):
    @extend_schema(request=Commit, responses={201: CheckpointSerializer})
    @idempotent
    def post(self, request: Request, id: UUID, upload: UUID) -> Response:
        """Make what was sent the run's latest checkpoint, if you still own the run. 409 `missing_objects` names what
        has not come. Committed already: the checkpoint is answered again."""
        checkpoint = uploads.commit_checkpoint_upload(
            run=self.get_object(), upload_id=upload, actor=actor_of(request), **self.parse(Commit)
        )
        location = f"/api/v1/checkpoints/{checkpoint.pk}"
        return self.show(checkpoint, CheckpointSerializer, code=status.HTTP_201_CREATED, location=location)
