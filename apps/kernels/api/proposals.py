"""`/blueprints/propose`: a new blueprint version from those that runs kept."""

import secrets

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.blueprints.api.breeding import MAX_SEED, MutateRequest
from apps.blueprints.api.serializers import BlueprintVersionSerializer
from apps.core.actors import actor_of
from apps.core.api import ApiView
from apps.core.idempotency import idempotent
from apps.kernels.proposals import propose


class ProposeView(ApiView):
    scopes = {"POST": "library:write"}

    @extend_schema(request=MutateRequest, responses={201: BlueprintVersionSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Append a version that did not exist before: a mutant of a version, or a crossing of two, that did well."""
        seed = self.parse(MutateRequest).get("seed", secrets.randbelow(MAX_SEED))
        version = propose(seed=seed, actor=actor_of(request))
        location = f"/api/v1/blueprints/{version.blueprint_id}/versions/{version.number}"
        return self.show(version, BlueprintVersionSerializer, code=201, location=location)
