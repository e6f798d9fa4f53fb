"""`/tag-keys`: the declared tags of kernels."""

from typing import Any
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.removal import REMOVAL, RemovableView
from apps.core.actors import actor_of
from apps.core.api import ListView
from apps.core.idempotency import idempotent
from apps.core.serializers import Choice, StrictSerializer, Text
from apps.kernels import services
from apps.kernels.api.serializers import Reason
from apps.kernels.models import TagKey, TagType
from apps.kernels.services.tag_keys import MAX_CHOICES

TAG_TYPES = TagType.choices


class TagKeySerializer(serializers.ModelSerializer[TagKey]):
    """``index_state``: only a search on a tag whose index is ready is served by it."""

    class Meta:
        model = TagKey
        fields = (
            "id", "name", "type", "choices", "description", "index_state", "index_error", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = fields


class Choices(serializers.ListField):
    child = Text(max_length=100)
    max_length = MAX_CHOICES


class NewTagKey(StrictSerializer):
    name = Text(max_length=48)
    type = Choice(choices=TAG_TYPES)
    choices = Choices(required=False, help_text="the only values of a text; none: any")
    description = Text(max_length=200, required=False, allow_blank=True)


class TagKeyChange(StrictSerializer):
    choices = Choices(required=False)
    description = Text(max_length=200, required=False, allow_blank=True)
    reason = Text(max_length=4000, required=False, help_text="kept in the audit trail")


class TagKeyListView(ListView):
    """Declared tags: keys with a type, so that a wrong value is refused and a search on them is indexed."""

    queryset = TagKey.objects.all()
    serializer_class = TagKeySerializer
    sorts = ("name", "-name", "-id", "id")
    content_tagged = True
    scopes = {"GET": "library:read", "POST": "library:write"}

    @extend_schema(request=NewTagKey, responses={201: TagKeySerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Declare a tag. Its index is made by `manage.py index_tags`."""
        key = services.declare_tag(actor=actor_of(request), **self.parse(NewTagKey))
        return self.show(key, TagKeySerializer, code=201, location=f"/api/v1/tag-keys/{key.pk}")


class TagKeyView(RemovableView):
    """One declared tag."""

    queryset = TagKey.objects.all()
    serializer_class = TagKeySerializer
    content_tagged = True
    scopes = {"GET": "library:read", "PATCH": "library:write", "DELETE": "library:write"}
    problems = {"DELETE": (412, 428)}

    @extend_schema(request=TagKeyChange, responses=TagKeySerializer)
    @transaction.atomic
    def patch(self, request: Request, id: UUID) -> Response:
        """Change the choices or the description. Kernels keep what they have."""
        given: dict[str, Any] = self.parse(TagKeyChange)
        key = services.update_tag(tag_key=self.matched(), actor=actor_of(request), **given)
        return self.show(key, TagKeySerializer)

    @REMOVAL
    @transaction.atomic
    def delete(self, request: Request, id: UUID) -> Response:
        """Take the declaration back. Kernels keep their tags."""
        given = self.parse(Reason, request.query_params.dict())
        services.remove_tag(tag_key=self.matched(), actor=actor_of(request), **given)
        return Response(status=status.HTTP_204_NO_CONTENT)
