"""`/kernels/{id}/binary`: the bytes of a kernel, streamed chunk by verified chunk, in ranges if asked; and the upload,
which `/blobs/{sha256}` may spare.

The bytes of a digest never change, so a client keeps them for ever and asks again only to learn that it may (304).
"""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from uuid import UUID

import structlog
from django.db.models import QuerySet
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import default_workspace_id
from apps.core.actors import SYSTEM, actor_of
from apps.core.api import ApiView
from apps.core.concurrency import not_modified
from apps.core.errors import Conflict, Invalid, InvalidTransition, NotFound, PayloadTooLarge, ServiceError, Unavailable
from apps.core.parsers import BinaryParser
from apps.core.problems import Problem
from apps.core.ranges import ByteRange, Unsatisfiable, requested
from apps.kernels import selectors, services
from apps.kernels.api.serializers import BlobSerializer, ExistingBlob, KernelSerializer
from apps.kernels.cache import Binding, CorruptKernel, KernelStore, Reading, TierName
from apps.kernels.cache.bindings import bindings
from apps.kernels.lifecycle import DOWNLOADABLE
from apps.kernels.models import CHUNK_BYTES, MAX_KERNEL_BYTES, Kernel
from apps.morphogenesis.artefact import MAX_HEADER_BYTES

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/octet-stream"
CACHE_CONTROL = "private, max-age=31536000, immutable"
DOWNLOAD: dict[str, Any] = {
    "responses": {(200, MEDIA_TYPE): OpenApiTypes.BINARY, (206, MEDIA_TYPE): OpenApiTypes.BINARY},
    "parameters": [
        OpenApiParameter("Range", str, OpenApiParameter.HEADER, description="one range of bytes"),
        OpenApiParameter(
            "X-Esper-Cache-Tier",
            str,
            OpenApiParameter.HEADER,
            enum=list(TierName),
            response=[200, 206],
            description="the tier that had the first segment (4 MiB) of these bytes",
        ),
        OpenApiParameter(
            "Server-Timing",
            str,
            OpenApiParameter.HEADER,
            response=[200, 206],
            description="how long each tier was asked for it, in milliseconds: `l1;dur=0.004, l2;dur=1.300`",
        ),
    ],
}
"""How a download describes itself, for ``extend_schema``."""
SPOOL_BYTES = 2 * CHUNK_BYTES
"""Of an upload, so much is in memory; more of it waits in a temporary file."""


class LengthRequired(ServiceError):
    status = 411
    code = "length_required"


class BinaryView(ApiView):
    """The kernel as one safetensors file."""

    serializer_class = KernelSerializer
    parser_classes = (BinaryParser,)
    max_body = MAX_KERNEL_BYTES
    scopes = {"GET": "library:read", "PUT": "library:write"}
    conditional = True
    problems = {"GET": (409, 416), "PUT": (411,)}

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    def binding(self, id: UUID) -> Binding:
        """Whose bytes are asked for. Raises Http404."""
        kernel = bindings.of(id)
        if kernel is None:
            raise Http404
        return kernel

    @extend_schema(**DOWNLOAD)
    def get(self, request: Request, id: UUID) -> HttpResponseBase:
        """The bytes, whole or one range of them."""
        kernel = _downloadable(self.binding(id))
        headers = _headers(kernel)
        if not_modified(request, headers["ETag"]):
            return HttpResponse(status=304, headers=headers)
        try:
            part = requested(
                request.headers.get("Range") if request.method == "GET" else None,  # RFC 9110, 14.2: of GET only
                request.headers.get("If-Range"),
                size=kernel.size or 0,
                etag=headers["ETag"],
            )
        except Unsatisfiable:
            return _unsatisfiable(kernel)
        headers["Content-Length"] = str(part.length if part else kernel.size)
        if part:
            headers["Content-Range"] = part.content_range
        if request.method == "HEAD":
            headers["X-Esper-Cache-Tier"] = _located(kernel)
            return HttpResponse(headers=headers, content_type=MEDIA_TYPE)
        return _stream(kernel, part, headers)

    @extend_schema(
        request={MEDIA_TYPE: OpenApiTypes.BINARY},
        responses={200: KernelSerializer, 201: KernelSerializer},
        parameters=[
            OpenApiParameter("Repr-Digest", str, OpenApiParameter.HEADER, description="sha-256=:...: of the body")
        ],
    )
    def put(self, request: Request, id: UUID) -> Response:
        """Upload the bytes of a kernel that awaits them. The same bytes again change nothing."""
        kernel: Kernel = self.get_object()
        expected = _expected_digest(request.headers.get("Repr-Digest"))
        before = kernel.digest
        with SpooledTemporaryFile(max_size=SPOOL_BYTES) as file:
            _read_body(request, file)
            uploaded = services.upload_binary(
                kernel=kernel, data=file, actor=actor_of(request), expected_digest=expected
            )
        return self.show(uploaded, KernelSerializer, code=200 if before == uploaded.digest else 201)

    def etag(self, thing: Any, data: Any) -> str:
        return _etag(thing)


class KernelBlobView(ApiView):
    """Bytes that are here already, by their digest."""

    serializer_class = KernelSerializer
    scopes = {"PUT": "library:write"}
    problems = {"PUT": (415,)}

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    @extend_schema(request=ExistingBlob, responses={200: KernelSerializer, 201: KernelSerializer})
    def put(self, request: Request, id: UUID) -> Response:
        """Give a kernel that awaits its bytes those of another kernel, without sending them.

        404 `no_blob` where `GET /blobs/{sha256}` is 404, also when the bytes went meanwhile: upload them.
        """
        digest = self.parse(ExistingBlob)["digest"]
        kernel: Kernel = self.get_object()
        before = kernel.digest
        attached = services.attach_blob(kernel=kernel, digest=digest, actor=actor_of(request))
        return self.show(attached, KernelSerializer, code=200 if before == attached.digest else 201)

    def etag(self, thing: Any, data: Any) -> str:
        return _etag(thing)


class BlobView(ApiView):
    """Whether bytes need no upload, because a kernel of your workspace has them; 404 otherwise, whoever else has."""

    serializer_class = BlobSerializer
    scopes = {"GET": "library:read"}

    @extend_schema(responses=BlobSerializer)
    def get(self, request: Request, digest: str) -> Response:
        blob = selectors.blob_for_reuse(digest, default_workspace_id())
        if blob is None:
            raise NotFound("no kernel of your workspace has these bytes: upload them", code="no_blob")
        return Response(BlobSerializer(blob).data, headers={"ETag": f'"sha256:{blob.digest}"'})


def _etag(kernel: Kernel | Binding) -> str:
    return f'"sha256:{kernel.digest}"'


def _downloadable(kernel: Binding) -> Binding:
    """Raises NotFound, Conflict."""
    if kernel.digest is None:
        raise NotFound(f"the kernel is {kernel.state} and has no bytes yet", code="no_binary")
    if kernel.state not in DOWNLOADABLE:
        raise Conflict(f"the kernel is {kernel.state}: its bytes are not given out", code="not_downloadable")
    return kernel


def _headers(kernel: Binding) -> dict[str, str]:
    digest = b64encode(bytes.fromhex(kernel.digest or "")).decode()
    return {
        "ETag": _etag(kernel),
        "Cache-Control": CACHE_CONTROL,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{digest}:",  # RFC 9530: of the whole representation, also in a 206
        "Content-Disposition": f'attachment; filename="{kernel.name}.safetensors"',
    }


def _unsatisfiable(kernel: Binding) -> HttpResponse:
    return Problem(
        status=416,
        code="range",
        detail=f"the kernel has {kernel.size} bytes",
        headers={"Content-Range": f"bytes */{kernel.size}"},
    ).response()


def _stream(kernel: Binding, part: ByteRange | None, headers: dict[str, str]) -> StreamingHttpResponse:
    """The first piece is read before the status line goes out: a corrupt or silent store is still a proper problem."""
    start, stop = (part.start, part.stop) if part else (0, None)
    try:
        reading = KernelStore().stream(kernel.digest or "", start, stop)
    except (CorruptKernel, NotFound) as error:
        raise _quarantined(kernel, error) from error
    headers["X-Esper-Cache-Tier"] = reading.tier
    headers["Server-Timing"] = ", ".join(f"{tier};dur={took * 1000:.3f}" for tier, took in reading.seconds.items())
    return StreamingHttpResponse(
        _pieces(kernel, reading), status=206 if part else 200, headers=headers, content_type=MEDIA_TYPE
    )


def _pieces(kernel: Binding, reading: Reading) -> Iterator[bytes]:
    try:
        yield from reading
    except (CorruptKernel, NotFound) as error:
        raise _quarantined(kernel, error) from error


def _located(kernel: Binding) -> TierName:
    """The tier that would answer. Raises Conflict: it is archived. Unavailable: its bytes are gone."""
    try:
        return KernelStore().locate(kernel.digest or "")
    except NotFound as error:
        raise _quarantined(kernel, error) from error


def _quarantined(kernel: Binding, error: Exception) -> Unavailable:
    """What to answer for a kernel whose bytes are corrupt or gone, once it is out of use."""
    log.error("kernel_corrupt", kernel=str(kernel.kernel_id), digest=kernel.digest, reason=str(error))
    with suppress(InvalidTransition):  # another download was faster
        row = Kernel.objects.get(pk=kernel.kernel_id)
        services.quarantine_kernel(kernel=row, reason=str(error), actor=SYSTEM)
    bindings.drop(kernel.kernel_id)  # the next request of this process is not to wait for the stream to tell of it
    return Unavailable("the stored bytes are corrupt or gone; the kernel was quarantined", code="corrupt_kernel")


def _expected_digest(header: str | None) -> str:
    """Hex sha256 out of ``sha-256=:base64:`` (RFC 9530), or an empty string. Raises Invalid."""
    if header is None:
        return ""
    for member in header.split(","):
        algorithm, _, value = member.strip().partition("=")
        if algorithm.lower() == "sha-256":
            return _hex(value)
    raise Invalid("needs a sha-256", pointer="/Repr-Digest", code="digest")


def _hex(value: str) -> str:
    try:
        digest = b64decode(value.removeprefix(":").removesuffix(":"), validate=True)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise Invalid("is not sha-256=:base64:", pointer="/Repr-Digest", code="digest")
    return digest.hex()


def _read_body(request: Request, file: IO[bytes]) -> None:
    """Write the body to ``file``, once its announced length and its safetensors header are known to be within bounds.

    Raises:
        LengthRequired, PayloadTooLarge, Invalid.
    """
    announced = request.META.get("CONTENT_LENGTH") or ""
    if not (announced.isascii() and announced.isdigit()):
        raise LengthRequired("send Content-Length with the number of bytes")
    length = int(announced)
    if length > MAX_KERNEL_BYTES:
        raise PayloadTooLarge(f"a kernel has at most {MAX_KERNEL_BYTES:,} bytes")
    stream: Any = request._request
    start = stream.read(8)
    header = int.from_bytes(start, "little")
    if len(start) < 8 or header > min(MAX_HEADER_BYTES, length - 8):
        raise Invalid("this is not a safetensors file with a header of at most 1 MiB", code="not_safetensors")
    file.write(start)
    while piece := stream.read(CHUNK_BYTES):
        file.write(piece)
    if file.tell() != length:
        raise Invalid(f"{file.tell()} bytes came, {length} were announced", code="truncated")
