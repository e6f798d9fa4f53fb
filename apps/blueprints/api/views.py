"""`/blueprints` and their versions."""

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.blueprints import selectors, services
from apps.blueprints.api.serializers import (
    BlueprintChange,
    BlueprintRow,
    BlueprintSerializer,
    BlueprintVersionSerializer,
    NewBlueprint,
    NewVersion,
)
from apps.blueprints.filters import BlueprintFilter, BlueprintVersionFilter
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.core.actors import actor_of
from apps.core.api import ListView
from apps.core.idempotency import idempotent


class BlueprintListView(ListView):
    """Blueprints, newest first."""

    serializer_class = BlueprintRow
    filterset_class = BlueprintFilter
    sorts = ("-id", "id", "name", "-name")
    scopes = {"GET": "library:read", "POST": "library:write"}

    def get_queryset(self) -> QuerySet[Blueprint]:
        return selectors.blueprints()

    @extend_schema(request=NewBlueprint, responses={201: BlueprintSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Create a blueprint; with `spec`, also its first version, both or neither."""
        given = self.parse(NewBlueprint)
        spec = given.pop("spec", None)
        with transaction.atomic():
            blueprint = services.create_blueprint(actor=actor_of(request), **given)
            if spec is not None:
                services.submit_version(blueprint=blueprint, spec=spec, actor=actor_of(request))
        return self.show(blueprint, BlueprintSerializer, code=201, location=f"/api/v1/blueprints/{blueprint.pk}")


class BlueprintView(PastView):
    """One blueprint."""

    queryset = Blueprint.objects.all()
    serializer_class = BlueprintSerializer
    scopes = {"GET": "library:read", "PATCH": "library:write"}

    @extend_schema(request=BlueprintChange, responses=BlueprintSerializer)
    @transaction.atomic
    def patch(self, request: Request, id: UUID) -> Response:
        """Change what people read about it. The name and the specs never change."""
        given = self.parse(BlueprintChange)
        blueprint = services.update_blueprint(blueprint=self.matched(), actor=actor_of(request), **given)
        return self.show(blueprint, BlueprintSerializer)


class VersionListView(ListView):
    """The versions of one blueprint, newest first."""

    parent = Blueprint
    serializer_class = BlueprintVersionSerializer
    filterset_class = BlueprintVersionFilter
    sorts = ("-number", "number")
    scopes = {"GET": "library:read", "POST": "library:write"}

    def get_queryset(self) -> QuerySet[BlueprintVersion]:
        return BlueprintVersion.objects.select_related("blueprint").filter(blueprint_id=self.kwargs.get("id"))

    @extend_schema(request=NewVersion, responses={201: BlueprintVersionSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Append a version. Specs are immutable: a change is a new version."""
        blueprint = get_object_or_404(Blueprint, pk=id)
        version = services.submit_version(
            blueprint=blueprint, spec=self.parse(NewVersion)["spec"], actor=actor_of(request)
        )
        location = f"/api/v1/blueprints/{blueprint.pk}/versions/{version.number}"
        return self.show(version, BlueprintVersionSerializer, code=201, location=location)


class VersionView(PastView):
    """One version with its spec."""

    serializer_class = BlueprintVersionSerializer
    lookup_field = "number"
    scopes = {"GET": "library:read"}

    def subject_id(self) -> str:
        return str(self.get_object().pk)  # versions are never deleted

    def get_queryset(self) -> QuerySet[BlueprintVersion]:
        return BlueprintVersion.objects.select_related("blueprint").filter(blueprint_id=self.kwargs.get("id"))
