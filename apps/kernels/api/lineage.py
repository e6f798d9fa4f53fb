"""`/kernels/{id}/lineage`: what a kernel came from and what came from it, as a graph; and new edges of it."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.blueprints.api.lineage import (
    DEPTH,
    KINDS,
    EdgeSerializer,
    LinkSerializer,
    VersionNode,
    depth_of,
    graph_of,
    version_node,
)
from apps.blueprints.selectors import family_of_versions
from apps.core.actors import actor_of
from apps.core.api import DetailView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid
from apps.core.idempotency import idempotent
from apps.core.lineage import LineageKind
from apps.core.serializers import Choice, Identifier, Number, StrictSerializer, Text
from apps.kernels import selectors, services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelLineage


class KernelEdgeSerializer(EdgeSerializer):
    """``weight`` is the share of the child that came from the parent."""

    class Meta(EdgeSerializer.Meta):
        model = KernelLineage


class NewKernelEdge(StrictSerializer):
    parent = Identifier(help_text="id of the kernel that this one came from")  # type: ignore[assignment]
    kind = Choice(choices=KINDS)
    weight = Number(required=False, help_text="share of the child that came from the parent: above 0, at most 1")
    run_id = Identifier(required=False, help_text="the run that made it so")
    reason = Text(max_length=4000, required=False, help_text="kept in the audit trail")


class KernelNode(VersionNode):
    name = serializers.CharField(read_only=True)
    state = serializers.ChoiceField(choices=list(KernelState), read_only=True)


class CompiledFrom(serializers.Serializer[Any]):
    """The lineage of the blueprint version that the kernel was compiled from."""

    version_id = serializers.UUIDField(read_only=True)
    nodes = VersionNode(many=True, read_only=True)
    edges = LinkSerializer(many=True, read_only=True)
    complete = serializers.BooleanField(read_only=True)


class KernelLineageSerializer(serializers.Serializer[Any]):
    """``complete`` is false when there are more relatives or edges than are shown."""

    kernel_id = serializers.UUIDField(read_only=True)
    nodes = KernelNode(many=True, read_only=True)
    edges = LinkSerializer(many=True, read_only=True)
    complete = serializers.BooleanField(read_only=True)
    compiled_from = CompiledFrom(read_only=True)


class KernelLineageView(DetailView):
    """The kernels that this one came from (`depth` below 0) and those that came from it (above 0), with every edge
    between them, and the lineage of the blueprint version that it was compiled from."""

    serializer_class = KernelLineageSerializer
    scopes = {"GET": "library:read", "POST": "library:write"}
    query_parameters = frozenset({"depth"})

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    @extend_schema(parameters=[DEPTH])
    def get(self, request: Request, id: UUID) -> Response:
        depth = depth_of(request)
        kernel: Kernel = self.get_object()
        version = kernel.blueprint_version
        shown = {
            "kernel_id": kernel.pk,
            **graph_of(selectors.family_of_kernel(kernel, depth), _kernel_node),
            "compiled_from": {
                "version_id": version.pk,
                **graph_of(family_of_versions([version.pk], depth=depth), version_node),
            },
        }
        data = KernelLineageSerializer(shown).data
        return self.read(data, content_etag(None, data))

    @extend_schema(request=NewKernelEdge, responses={200: KernelEdgeSerializer, 201: KernelEdgeSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Tell that this kernel came from another. An edge that is there already is answered as it is (200)."""
        given = self.parse(NewKernelEdge)
        child = self.get_object()
        parent = selectors.kernels().filter(pk=given.pop("parent")).first()
        if parent is None:
            raise Invalid("there is no such kernel", pointer="/parent", code="not_found")
        is_there = KernelLineage.objects.filter(child=child, parent=parent, kind=given["kind"]).exists()
        edge = services.link_kernels(
            child=child, parent=parent, kind=LineageKind(given.pop("kind")), actor=actor_of(request), **given
        )
        return Response(KernelEdgeSerializer(edge).data, status=200 if is_there else 201)


def _kernel_node(kernel: Kernel) -> Mapping[str, Any]:
    return {**version_node(kernel.blueprint_version), "id": kernel.pk, "name": kernel.name, "state": kernel.state}
