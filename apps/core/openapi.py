"""`/schema`: the OpenAPI document of the running code, made once in a process."""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView
from apps.core.concurrency import content_etag
from apps.core.permissions import ANY


@cache
def document() -> dict[str, Any]:
    generated: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)
    return generated


class SchemaView(ApiView):
    """The same document as docs/openapi.yaml, as JSON."""

    scopes = {"GET": ANY}

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response:
        return self.read(document(), content_etag(None, document()))
