"""Versions compared with versions, and made from them: clone, mutate, cross."""

import secrets
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.blueprints import diff, selectors, services
from apps.blueprints.api.lineage import given_version
from apps.blueprints.api.serializers import BlueprintSerializer, BlueprintVersionSerializer
from apps.blueprints.api.views import show_submission
from apps.blueprints.models import BlueprintVersion
from apps.core.actors import actor_of
from apps.core.api import ApiView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid, NotFound
from apps.core.idempotency import idempotent
from apps.core.ids import parse_id
from apps.core.serializers import Identifier, JSONObject, StrictSerializer, Text, Whole

MAX_SEED = 2**31 - 1
AGAINST = OpenApiParameter(
    "against", str, required=True, description="number of another version of this blueprint, or the id of any version"
)


class CloneRequest(StrictSerializer):
    name = Text(max_length=100)
    title = Text(max_length=200, required=False, allow_blank=True)


class MutateRequest(StrictSerializer):
    seed = Whole(required=False, min_value=0, max_value=MAX_SEED, help_text="drawn when it is left out")


class CrossRequest(MutateRequest):
    other = Identifier(help_text="id of the version to cross this one with")


class ChangeSerializer(serializers.Serializer[Any]):
    """``before`` or ``after`` is null where there is nothing."""

    name = serializers.CharField(read_only=True)
    before = serializers.JSONField(read_only=True, allow_null=True)
    after = serializers.JSONField(read_only=True, allow_null=True)


class NodeChangeSerializer(serializers.Serializer[Any]):
    id = serializers.CharField(read_only=True)
    op = ChangeSerializer(read_only=True, allow_null=True)
    inputs = ChangeSerializer(read_only=True, allow_null=True)
    params = ChangeSerializer(many=True, read_only=True)


class DiffSerializer(serializers.Serializer[Any]):
    """What leads from ``before`` to ``after``. FLOPs are of one forward pass of one sample, images of 8 x 8."""

    before = serializers.UUIDField(read_only=True)
    after = serializers.UUIDField(read_only=True)
    fields = ChangeSerializer(many=True, read_only=True)  # type: ignore[assignment]
    symbols = ChangeSerializer(many=True, read_only=True)
    added = serializers.ListField(child=JSONObject(), read_only=True)
    removed = serializers.ListField(child=JSONObject(), read_only=True)
    changed = NodeChangeSerializer(many=True, read_only=True)
    parameters = ChangeSerializer(read_only=True)
    flops = ChangeSerializer(read_only=True)


class VersionAction(ApiView):
    """What is done with one version of a blueprint."""

    scopes = {"POST": "library:write"}

    def version(self) -> BlueprintVersion:
        """Raises Http404."""
        return get_object_or_404(selectors.versions(), blueprint_id=self.kwargs["id"], number=self.kwargs["number"])


class DiffView(VersionAction):
    """What this version has, and another has not: nodes, parameters, wiring, sizes, costs."""

    serializer_class = DiffSerializer
    scopes = {"GET": "library:read"}
    query_parameters = frozenset({"against"})

    @extend_schema(parameters=[AGAINST])
    def get(self, request: Request, id: UUID, number: int) -> Response:
        after = self.version()
        before = self.against(after)
        found = {"before": before.pk, "after": after.pk, **asdict(diff.compare(before.spec, after.spec))}
        data = DiffSerializer(found).data
        return self.read(data, content_etag(None, data))

    def against(self, after: BlueprintVersion) -> BlueprintVersion:
        """Raises Invalid, NotFound."""
        given = self.request.query_params.get("against")
        if given is None:
            raise Invalid("say against which version", pointer="/against", code="required")
        key = parse_id(given)
        if key is not None:
            found = selectors.versions().filter(pk=key).first()
        elif given.isascii() and given.isdigit() and len(given) <= 9:
            found = selectors.versions().filter(blueprint_id=after.blueprint_id, number=int(given)).first()
        else:
            raise Invalid("must be the number of a version, or an id", pointer="/against")
        if found is None:
            raise NotFound(f"there is no version {given}")
        return found


class CloneView(VersionAction):
    @extend_schema(request=CloneRequest, responses={201: BlueprintSerializer})
    @idempotent
    def post(self, request: Request, id: UUID, number: int) -> Response:
        """Start a blueprint of its own with the spec of this version; its card and tags come along."""
        version = self.version()
        blueprint = services.clone_blueprint(version=version, actor=actor_of(request), **self.parse(CloneRequest))
        return self.show(blueprint, BlueprintSerializer, code=201, location=f"/api/v1/blueprints/{blueprint.pk}")


class MutateView(VersionAction):
    @extend_schema(request=MutateRequest, responses={200: BlueprintVersionSerializer, 201: BlueprintVersionSerializer})
    @idempotent
    def post(self, request: Request, id: UUID, number: int) -> Response:
        """Append a version with one change to this one. The same seed gives the same change: 200 when it is there."""
        version = self.version()
        seed = self.parse(MutateRequest).get("seed", secrets.randbelow(MAX_SEED))
        return show_submission(self, services.mutate_version(version=version, seed=seed, actor=actor_of(request)))


class CrossView(VersionAction):
    @extend_schema(request=CrossRequest, responses={200: BlueprintVersionSerializer, 201: BlueprintVersionSerializer})
    @idempotent
    def post(self, request: Request, id: UUID, number: int) -> Response:
        """Append a version that combines this one with another for the same kind of slot."""
        left = self.version()
        given = self.parse(CrossRequest)
        right = given_version(given["other"], "/other")
        seed = given.get("seed", secrets.randbelow(MAX_SEED))
        crossed = services.cross_versions(left=left, right=right, seed=seed, actor=actor_of(request))
        return show_submission(self, crossed)
