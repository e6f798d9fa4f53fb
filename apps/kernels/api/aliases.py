"""`/kernels/{id}/aliases/{name}` points a name of the blueprint at a kernel; `/blueprints/{id}/aliases` reads them."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.blueprints.models import Blueprint
from apps.core.actors import actor_of
from apps.core.api import ApiView, ListView
from apps.core.concurrency import require_match
from apps.core.errors import PreconditionFailed
from apps.kernels import selectors, services
from apps.kernels.api.serializers import AliasChange, AliasPeriodSerializer, AliasSerializer, Reason
from apps.kernels.models import AliasPeriod, Kernel, KernelAlias

IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="the ETag that you last read; not for the first time"
)


class KernelAliasView(ApiView):
    """A name of the kernel's blueprint that points at this kernel."""

    serializer_class = AliasSerializer
    content_tagged = True
    scopes = {"PUT": "library:write"}
    problems = {"PUT": (412, 415, 428)}

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    @extend_schema(request=Reason, responses={200: AliasSerializer, 201: AliasSerializer}, parameters=[IF_MATCH])
    @transaction.atomic
    def put(self, request: Request, id: UUID, name: str) -> Response:
        """Point the alias `name` of the kernel's blueprint at this kernel.

        Moving one that points at another kernel needs `If-Match` with its ETag, and a `reason` if it is protected
        (`prod` is from its birth; it points at VALIDATED kernels only).
        """
        given = self.parse(Reason)
        kernel: Kernel = self.get_object()
        blueprint_id = kernel.blueprint_version.blueprint_id
        alias = selectors.lock_alias(blueprint_id, name)
        pointing = alias if alias is not None and alias.kernel_id is not None else None
        if pointing is None and "If-Match" in request.headers:
            raise PreconditionFailed("this alias points at nothing: there is no version to match", code="if_match")
        if pointing is not None and pointing.kernel_id != kernel.pk:  # what is so already succeeds (RFC 9110, 13.1.1)
            require_match(request, self.etag(pointing, AliasSerializer(pointing).data))
        alias = services.set_alias(kernel=kernel, name=name, actor=actor_of(request), **given)
        location = f"/api/v1/blueprints/{blueprint_id}/aliases/{name}"
        return self.show(alias, AliasSerializer, code=200 if pointing else 201, location=location)


class AliasListView(ListView):
    """The aliases of one blueprint, by name."""

    parent = Blueprint
    serializer_class = AliasSerializer
    sorts = ("name", "-name")
    scopes = {"GET": "library:read"}

    def get_queryset(self) -> QuerySet[KernelAlias]:
        return selectors.aliases_of(self.kwargs.get("id"))


class AliasView(PastView):
    """The kernel that an alias points at. With `as_of`, at that time, also of an alias that was removed."""

    serializer_class = AliasSerializer
    lookup_field = "name"
    content_tagged = True
    scopes = {"GET": "library:read", "PATCH": "library:write", "DELETE": "library:write"}
    problems = {"DELETE": (412, 428)}

    def get_queryset(self) -> QuerySet[KernelAlias]:
        return selectors.aliases_of(self.kwargs.get("id"))

    def matched(self) -> Any:
        """As everywhere, but the blueprint is locked first: in the order of the services."""
        selectors.lock_alias(self.get_object().blueprint_id, self.kwargs["name"])
        return super().matched()

    def subject_id(self) -> str:
        return str(selectors.alias_ever(self.kwargs["id"], self.kwargs["name"]).pk)

    def known_parameters(self, request: Request) -> frozenset[str]:
        return frozenset({"reason"}) if request.method == "DELETE" else super().known_parameters(request)

    @extend_schema(request=AliasChange, responses=AliasSerializer)
    @transaction.atomic
    def patch(self, request: Request, id: UUID, name: str) -> Response:
        """Protect the alias, or lift its protection, which needs a `reason`."""
        given = self.parse(AliasChange)
        change = services.protect_alias if given.pop("is_protected") else services.unprotect_alias
        alias = change(alias=self.matched(), actor=actor_of(request), **given)
        return self.show(alias, AliasSerializer)

    @extend_schema(
        responses={204: None},
        parameters=[
            IF_MATCH,
            OpenApiParameter("reason", str, description="kept in the audit trail; a protected alias needs one"),
        ],
    )
    @transaction.atomic
    def delete(self, request: Request, id: UUID, name: str) -> Response:
        """Take the alias away; its history stays. Again is a success."""
        given = self.parse(Reason, request.query_params.dict())
        alias = selectors.alias_ever(id, name)
        if alias.kernel_id is not None:
            services.remove_alias(alias=self.matched(), actor=actor_of(request), **given)
        return Response(status=status.HTTP_204_NO_CONTENT)


class AliasHistoryView(ListView):
    """What an alias pointed at, from when (included) to when (excluded), newest first."""

    serializer_class = AliasPeriodSerializer
    sorts = ("-started_at", "started_at")
    scopes = {"GET": "library:read"}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        selectors.alias_ever(kwargs["id"], kwargs["name"])

    def get_queryset(self) -> QuerySet[AliasPeriod]:
        return selectors.alias_periods(self.kwargs.get("id"), self.kwargs.get("name", ""))
