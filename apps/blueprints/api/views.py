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
from apps.core.api import ApiView, ListView
from apps.core.idempotency import idempotent


def show_submission(view: ApiView, submission: services.Submission) -> Response:
    """201 for a version that was written now, 200 for one that was there."""
    version, created = submission
    location = f"/api/v1/blueprints/{version.blueprint_id}/versions/{version.number}"
    return view.show(version, BlueprintVersionSerializer, code=201 if created else 200, location=location)


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

    @extend_schema(request=NewVersion, responses={200: BlueprintVersionSerializer, 201: BlueprintVersionSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Append a version. Specs are immutable: a change is a new version. A spec that is one already: 200 with it."""
        blueprint = get_object_or_404(Blueprint, pk=id)
        spec = self.parse(NewVersion)["spec"]
        return show_submission(
            self, services.find_or_submit_version(blueprint=blueprint, spec=spec, actor=actor_of(request))
        )


class VersionView(PastView):
    """One version with its spec."""

    serializer_class = BlueprintVersionSerializer
    lookup_field = "number"
    scopes = {"GET": "library:read"}

    def subject_id(self) -> str:
        return str(self.get_object().pk)  # versions are never deleted

    def get_queryset(self) -> QuerySet[BlueprintVersion]:
        return BlueprintVersion.objects.select_related("blueprint").filter(blueprint_id=self.kwargs.get("id"))
