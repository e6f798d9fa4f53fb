"""`/checkpoint-policies`: when runs save, which checkpoints stay, and what would go next."""

from typing import Any
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.removal import REMOVAL, RemovableView
from apps.checkpoints import selectors
from apps.checkpoints.api.requests import CheckpointPolicyChange, NewCheckpointPolicy
from apps.checkpoints.api.serializers import CheckpointPolicySerializer, CheckpointPreviewSerializer
from apps.checkpoints.filters import PolicyFilter
from apps.checkpoints.models import CheckpointPolicy
from apps.checkpoints.services import policies
from apps.core.actors import actor_of
from apps.core.api import ApiView, ListView
from apps.core.concurrency import content_etag
from apps.core.idempotency import idempotent
from apps.kernels.api.serializers import Reason

SHOWN_RUNS = 20


class PolicyListView(ListView):
    """Policies, newest first: at most one of all runs, and one of each run."""

    queryset = CheckpointPolicy.objects.all()
    serializer_class = CheckpointPolicySerializer
    filterset_class = PolicyFilter
    scopes = {"GET": "runs:read", "POST": "runs:write"}

    @extend_schema(request=NewCheckpointPolicy, responses={201: CheckpointPolicySerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Give a run, or all runs that have none, a policy. It counts from now on, for what is there already too."""
        given = self.parse(NewCheckpointPolicy)
        policy = policies.create_policy(run_id=given.pop("run", None), actor=actor_of(request), **given)
        location = f"/api/v1/checkpoint-policies/{policy.pk}"
        return self.show(policy, CheckpointPolicySerializer, code=201, location=location)


class PolicyView(RemovableView):
    """One policy."""

    queryset = CheckpointPolicy.objects.all()
    serializer_class = CheckpointPolicySerializer
    scopes = {"GET": "runs:read", "PATCH": "runs:write", "DELETE": "runs:write"}
    problems = {"DELETE": (412, 428)}

    @extend_schema(request=CheckpointPolicyChange, responses=CheckpointPolicySerializer)
    @transaction.atomic
    def patch(self, request: Request, id: UUID) -> Response:
        """Change a policy. Look at its preview first: what no rule keeps any more goes within the hour."""
        given = self.parse(CheckpointPolicyChange)
        policy = policies.change_policy(policy=self.matched(), actor=actor_of(request), **given)
        return self.show(policy, CheckpointPolicySerializer)

    @REMOVAL
    @transaction.atomic
    def delete(self, request: Request, id: UUID) -> Response:
        """Remove a policy: its run falls under that of all runs, and where that is removed, the defaults count."""
        given = self.parse(Reason, request.query_params.dict())
        policies.remove_policy(policy=self.matched(), actor=actor_of(request), **given)
        return Response(status=status.HTTP_204_NO_CONTENT)


class PreviewView(ApiView):
    """What a policy would do."""

    queryset = CheckpointPolicy.objects.all()
    serializer_class = CheckpointPreviewSerializer
    scopes = {"GET": "runs:read"}
    conditional = True

    @extend_schema(responses=CheckpointPreviewSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """Each checkpoint of the newest 20 runs that the policy decides on: whether it stays, why, when it goes, and
        how many bytes that frees. Nothing is touched."""
        policy: CheckpointPolicy = self.get_object()
        data = CheckpointPreviewSerializer(_previewed(policy)).data
        return self.read(data, content_etag(None, data))


def _previewed(policy: CheckpointPolicy) -> dict[str, Any]:
    runs = selectors.runs_under(policy)
    previews = [selectors.preview(run_id=run_id, policy=policy) for run_id in runs[:SHOWN_RUNS]]
    return {
        "runs": len(runs),
        "shown_runs": len(previews),
        "goes": sum(len(preview.going) for preview in previews),
        "frees": sum(preview.frees for preview in previews),
        "next_goes_at": min((preview.next_goes_at for preview in previews if preview.next_goes_at), default=None),
        "checkpoints": [judged for preview in previews for judged in preview.judged],
    }
