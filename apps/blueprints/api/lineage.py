"""`/blueprints/{id}/lineage` and `/blueprints/{id}/versions/{number}/lineage`: versions and what they came from."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.blueprints import selectors, services
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.core.actors import actor_of
from apps.core.api import ApiView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid
from apps.core.idempotency import idempotent
from apps.core.lineage import MAX_DEPTH, Family, LineageKind
from apps.core.serializers import Choice, Identifier, Number, StrictSerializer, Text

KINDS = [str(kind) for kind in LineageKind]
DEPTH = OpenApiParameter(
    "depth",
    {"type": "integer", "minimum": 1, "maximum": MAX_DEPTH, "default": MAX_DEPTH},
    description="how many edges away",
)


class LinkSerializer(serializers.Serializer[Any]):
    child = serializers.UUIDField(read_only=True)
    parent = serializers.UUIDField(read_only=True)  # type: ignore[assignment]
    kind = serializers.ChoiceField(choices=KINDS, read_only=True)
    weight = serializers.FloatField(read_only=True)
    run_id = serializers.UUIDField(read_only=True, allow_null=True)


class VersionNode(serializers.Serializer[Any]):
    """``depth``: edges from the start; below 0 for ancestors, above 0 for descendants."""

    id = serializers.UUIDField(read_only=True)
    depth = serializers.IntegerField(read_only=True)
    blueprint = serializers.CharField(read_only=True)
    blueprint_id = serializers.UUIDField(read_only=True)
    version = serializers.IntegerField(read_only=True)
    state = serializers.ChoiceField(choices=list(VersionState), read_only=True)


class VersionLineageSerializer(serializers.Serializer[Any]):
    """``complete`` is false when there are more relatives or edges than are shown."""

    nodes = VersionNode(many=True, read_only=True)
    edges = LinkSerializer(many=True, read_only=True)
    complete = serializers.BooleanField(read_only=True)


class EdgeSerializer(serializers.ModelSerializer[Any]):
    """``weight`` is the share of the child that came from the parent."""

    child = serializers.UUIDField(source="child_id", read_only=True)
    parent = serializers.UUIDField(source="parent_id", read_only=True)  # type: ignore[assignment]
    kind = serializers.ChoiceField(choices=KINDS, read_only=True)

    class Meta:
        fields = ("id", "child", "parent", "kind", "weight", "run_id", "created_at")
        read_only_fields = fields


class VersionEdgeSerializer(EdgeSerializer):
    """``weight`` is the share of the child that came from the parent."""

    class Meta(EdgeSerializer.Meta):
        model = VersionLineage


class NewVersionEdge(StrictSerializer):
    parent = Identifier(help_text="id of the version that this one came from")  # type: ignore[assignment]
    kind = Choice(choices=KINDS)
    weight = Number(required=False, help_text="share of the child that came from the parent: above 0, at most 1")
    run_id = Identifier(required=False, help_text="the run that made it so")
    reason = Text(max_length=4000, required=False, help_text="kept in the audit trail")


class BlueprintLineageView(ApiView):
    """The newest versions of a blueprint (`depth` 0), what they came from (below 0) and what came from them (above 0),
    with every edge between these."""

    serializer_class = VersionLineageSerializer
    scopes = {"GET": "library:read"}
    query_parameters = frozenset({"depth"})

    @extend_schema(parameters=[DEPTH])
    def get(self, request: Request, id: UUID) -> Response:
        depth = depth_of(request)
        data = shown(selectors.family_of_blueprint(get_object_or_404(Blueprint, pk=id), depth=depth))
        return self.read(data, content_etag(None, data))


class VersionLineageView(ApiView):
    """The versions that this one came from (`depth` below 0) and those that came from it (above 0)."""

    serializer_class = VersionLineageSerializer
    scopes = {"GET": "library:read", "POST": "library:write"}

    def known_parameters(self, request: Request) -> frozenset[str]:
        return frozenset({"depth"} if request.method in {"GET", "HEAD"} else ())

    @extend_schema(parameters=[DEPTH])
    def get(self, request: Request, id: UUID, number: int) -> Response:
        depth = depth_of(request)
        version = get_object_or_404(selectors.versions(), blueprint_id=id, number=number)
        data = shown(selectors.family_of_versions([version.pk], depth=depth))
        return self.read(data, content_etag(None, data))

    @extend_schema(request=NewVersionEdge, responses={200: VersionEdgeSerializer, 201: VersionEdgeSerializer})
    @idempotent
    def post(self, request: Request, id: UUID, number: int) -> Response:
        """Tell that this version came from another. An edge that is there already is answered as it is (200)."""
        child = get_object_or_404(selectors.versions(), blueprint_id=id, number=number)
        given = self.parse(NewVersionEdge)
        parent, kind = given_version(given.pop("parent"), "/parent"), LineageKind(given.pop("kind"))
        is_there = VersionLineage.objects.filter(child=child, parent=parent, kind=kind).exists()
        edge = services.link_versions(child=child, parent=parent, kind=kind, actor=actor_of(request), **given)
        return Response(VersionEdgeSerializer(edge).data, status=200 if is_there else 201)


def given_version(key: UUID, pointer: str) -> BlueprintVersion:
    """The version that a body names. Raises Invalid."""
    version = selectors.versions().filter(pk=key).first()
    if version is None:
        raise Invalid("there is no such blueprint version", pointer=pointer, code="not_found")
    return version


def depth_of(request: Request) -> int:
    """Raises Invalid."""
    given = request.query_params.get("depth")
    if given is None:
        return MAX_DEPTH
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and 1 <= int(given) <= MAX_DEPTH):
        raise Invalid(f"must be a whole number from 1 to {MAX_DEPTH}", pointer="/depth", code="range")
    return int(given)


def shown(family: Family) -> dict[str, Any]:
    """A family of versions as it is answered."""
    return dict(VersionLineageSerializer(graph_of(family, version_node)).data)


def graph_of(family: Family, describe: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """A family as nodes, which ``describe`` tells from their rows, and edges."""
    return {
        "nodes": [{"depth": relative.depth, **describe(row)} for relative, row in family.members],
        "edges": family.lineage.edges,
        "complete": family.lineage.complete,
    }


def version_node(version: BlueprintVersion) -> dict[str, Any]:
    return {
        "id": version.pk,
        "blueprint": version.blueprint.name,
        "blueprint_id": version.blueprint_id,
        "version": version.number,
        "state": version.state,
    }
