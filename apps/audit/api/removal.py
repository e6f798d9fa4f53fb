"""DELETE of an asset, for a reason. The views of upper apps inherit ``RemovableView``."""

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request

from apps.audit.api.as_of import PastView

REMOVAL = extend_schema(
    responses={204: None},
    parameters=[
        OpenApiParameter(
            "reason", {"type": "string", "minLength": 1, "maxLength": 4000}, description="kept in the audit trail"
        ),
        OpenApiParameter("If-Match", OpenApiTypes.STR, OpenApiParameter.HEADER, required=True, description="its ETag"),
    ],
)
"""Describes the ``delete`` of such a view."""


class RemovableView(PastView):
    """DELETE reads its ``reason`` from the query, and needs the ETag: whoever removes a thing has seen it."""

    def known_parameters(self, request: Request) -> frozenset[str]:
        return frozenset({"reason"}) if request.method == "DELETE" else super().known_parameters(request)
