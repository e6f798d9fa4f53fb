"""`/checkpoints`: what was saved, what becomes of it, and what can be done with it. Long work is answered 202."""

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.checkpoints import selectors
from apps.checkpoints.api.requests import Comparison, NewCheckpoint, Replay, Restoration
from apps.checkpoints.api.serializers import (
    CheckpointDetailSerializer,
    CheckpointDiffSerializer,
    CheckpointSerializer,
)
from apps.checkpoints.contents import compared
from apps.checkpoints.filters import CheckpointFilter
from apps.checkpoints.models import Checkpoint, JobKind
from apps.checkpoints.operations import operation_of
from apps.checkpoints.services import jobs, pinning
from apps.core.actors import actor_of
from apps.core.api import ApiView, DetailView, ListView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid, NotFound
from apps.core.idempotency import idempotent
from apps.core.operations import OperationSerializer, accepted
from apps.kernels.api.serializers import Reason


class CheckpointListView(ListView):
    """Checkpoints of all runs, newest first."""

    queryset = Checkpoint.objects.all()
    serializer_class = CheckpointSerializer
    filterset_class = CheckpointFilter
    scopes = {"GET": "runs:read", "POST": "runs:write"}

    @extend_schema(request=NewCheckpoint, responses={202: OperationSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Save a run at the end of the step that it is at. A save that is under way already is answered again."""
        given = self.parse(NewCheckpoint)
        because = {"reason": given.get("reason", ""), "actor": actor_of(request)}
        try:
            job = jobs.request_job(kind=JobKind.CREATE, run_id=given["run"], **because)
        except NotFound as error:
            raise Invalid(error.detail, pointer="/run", code="not_found") from error
        return accepted(operation_of(job))


class OfCheckpoint(DetailView):
    """One checkpoint, or something that is done to it."""

    queryset = Checkpoint.objects.all()
    serializer_class = CheckpointDetailSerializer
    content_tagged = True

    def judged(self, checkpoint: Checkpoint) -> selectors.Judged | None:
        """What the policy of its run makes of it; None: it has no bytes."""
        found = selectors.preview(run_id=checkpoint.run_id).judged
        return next((judged for judged in found if judged.checkpoint.pk == checkpoint.pk), None)


class CheckpointView(PastView, OfCheckpoint):
    """One checkpoint: its components, and whether it stays."""

    scopes = {"GET": "runs:read"}


class DoneToCheckpoint(OfCheckpoint):
    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]
    conditional = False


class Requested(DoneToCheckpoint):
    """Long work on a checkpoint."""

    kind: ClassVar[JobKind]

    def begin(self, reason: str = "", **parameters: Any) -> Response:
        job = jobs.request_job(
            kind=self.kind,
            checkpoint=self.get_object(),
            parameters=parameters,
            reason=reason,
            actor=actor_of(self.request),
        )
        return accepted(operation_of(job))


class VerifyView(Requested):
    kind = JobKind.VERIFY

    @extend_schema(request=Reason, responses={202: OperationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Read and check every byte. A checkpoint that is found broken is quarantined; one that is right again is
        taken back."""
        return self.begin(**self.parse(Reason))


class RestoreView(Requested):
    kind = JobKind.RESTORE

    @extend_schema(request=Restoration, responses={202: OperationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Let the run go on from this checkpoint, or (`validate_only`) check that it could. Pause a running run before:
        it is a 409. What came after the checkpoint is trained again, bit by bit the same."""
        return self.begin(**self.parse(Restoration))


class ReplayView(Requested):
    kind = JobKind.REPLAY

    @extend_schema(request=Replay, responses={202: OperationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Train from this checkpoint to a step after it, and save there: the state that the run had at that step."""
        return self.begin(**self.parse(Replay))


class ArchiveView(Requested):
    kind = JobKind.ARCHIVE

    @extend_schema(request=Reason, responses={202: OperationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Move the checkpoint to the object storage. It can be restored from there too."""
        return self.begin(**self.parse(Reason))


class RecallView(Requested):
    kind = JobKind.RECALL

    @extend_schema(request=Reason, responses={202: OperationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Bring the checkpoint back from the object storage into the checkpoint folder."""
        return self.begin(**self.parse(Reason))


class PinStep(DoneToCheckpoint):
    step: ClassVar[Callable[..., Checkpoint]]

    @extend_schema(request=Reason, responses=CheckpointDetailSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        checkpoint = type(self).step(checkpoint=self.get_object(), actor=actor_of(request), **self.parse(Reason))
        return self.show(checkpoint, CheckpointDetailSerializer)


class PinView(PinStep):
    """Keep the checkpoint, whatever the policy says, until somebody unpins it."""

    step = staticmethod(pinning.pin)


class UnpinView(PinStep):
    """Leave the checkpoint to the policy of its run again."""

    step = staticmethod(pinning.unpin)


class DiffView(ApiView):
    """Two checkpoints, by component."""

    queryset = Checkpoint.objects.all()
    serializer_class = CheckpointDiffSerializer
    scopes = {"GET": "runs:read"}
    query_parameters = frozenset({"with"})
    conditional = True
    problems = {"GET": (409,)}

    @extend_schema(
        responses=CheckpointDiffSerializer,
        parameters=[OpenApiParameter("with", OpenApiTypes.UUID, required=True, description="the one to compare with")],
    )
    def get(self, request: Request, id: UUID) -> Response:
        """What has changed from the checkpoint `with` to this one: tensors, and the bytes that they share."""
        given = self.parse(Comparison, request.query_params.dict())
        checkpoint: Checkpoint = self.get_object()
        other = Checkpoint.objects.filter(pk=given["with"], workspace=checkpoint.workspace).first()
        if other is None:
            raise Invalid("there is no such checkpoint", pointer="/with", code="not_found")
        components = compared(older=other, newer=checkpoint)
        data = CheckpointDiffSerializer(
            {"before": other.pk, "after": checkpoint.pk, "components": components.values()}
        ).data
        return self.read(data, content_etag(None, data))
