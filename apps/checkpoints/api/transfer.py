"""`/checkpoints/{id}/manifest` and `/objects/{digest}`: what a client needs to have the state elsewhere.

The bytes of a digest never change: a client keeps them for ever, and fetches only those that it lacks.
"""

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from apps.checkpoints import contents
from apps.checkpoints.models import Checkpoint
from apps.core.api import ApiView
from apps.core.concurrency import not_modified
from apps.core.problems import Problem
from apps.core.ranges import Unsatisfiable, requested

OCTETS = "application/octet-stream"
JSON = "application/json"
CACHE_CONTROL = "private, max-age=31536000, immutable"
DOWNLOAD: dict[str, Any] = {
    "responses": {(200, OCTETS): OpenApiTypes.BINARY, (206, OCTETS): OpenApiTypes.BINARY},
    "parameters": [OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="one range of bytes")],
}


class ManifestView(ApiView):
    """The manifest of a checkpoint."""

    queryset = Checkpoint.objects.all()
    scopes = {"GET": "runs:read"}
    conditional = True
    problems = {"GET": (409,)}

    @extend_schema(responses={(200, JSON): OpenApiTypes.OBJECT})
    def get(self, request: Request, id: UUID) -> HttpResponseBase:
        """Per component the tree of its state, and per tensor its type, its shape and the objects that hold its bytes:
        `[digest, offset, length]`. Its ETag is the blake3 of the body."""
        checkpoint: Checkpoint = self.get_object()
        etag = f'"{checkpoint.digest}"'
        if not_modified(request, etag):
            return HttpResponse(status=304, headers={"ETag": etag})
        body = contents.manifest_of(checkpoint).to_bytes().partition(b"\n")[2]
        return HttpResponse(body, headers={"ETag": etag, "Cache-Control": CACHE_CONTROL}, content_type=JSON)


class ObjectView(ApiView):
    """One object of a checkpoint."""

    queryset = Checkpoint.objects.all()
    scopes = {"GET": "runs:read"}
    conditional = True
    problems = {"GET": (409, 416)}

    @extend_schema(**DOWNLOAD)
    def get(self, request: Request, id: UUID, digest: str) -> HttpResponseBase:
        """Its raw bytes, 8 MiB at most, whole or one range of them. Their blake3 is the digest."""
        checkpoint: Checkpoint = self.get_object()
        size = contents.require_object(checkpoint, digest)
        headers = {"ETag": f'"{digest}"', "Cache-Control": CACHE_CONTROL, "Accept-Ranges": "bytes"}
        if not_modified(request, headers["ETag"]):
            return HttpResponse(status=304, headers=headers)
        try:
            part = requested(
                request.headers.get("Range") if request.method == "GET" else None,
                request.headers.get("If-Range"),
                size=size,
                etag=headers["ETag"],
            )
        except Unsatisfiable:
            return Problem(
                status=416,
                code="range",
                detail=f"the object has {size} bytes",
                headers={"Content-Range": f"bytes */{size}"},
            ).response()
        if part:
            headers["Content-Range"] = part.content_range
        data = contents.object_of(checkpoint, digest)
        body = data[part.start : part.stop] if part else data
        return HttpResponse(bytes(body), status=206 if part else 200, headers=headers, content_type=OCTETS)
