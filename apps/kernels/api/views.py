"""`/kernels` and `/field-reports`. The bytes of a kernel are in ``binary``."""

from collections.abc import Callable
from typing import ClassVar
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.selectors import blueprint_by_id_or_name, version_of
from apps.core.actors import actor_of
from apps.core.api import ApiView, ListView
from apps.core.errors import Invalid, NotFound
from apps.core.idempotency import idempotent
from apps.kernels import selectors, services
from apps.kernels.api.serializers import (
    FieldReportSerializer,
    KernelChange,
    KernelRow,
    KernelSerializer,
    NeededReason,
    NewKernel,
)
from apps.kernels.filters import FieldReportFilter, KernelFilter
from apps.kernels.models import FieldReport, Kernel
from apps.kernels.successors import lock_successors


class KernelListView(ListView):
    """Kernels, newest first, without their reports."""

    serializer_class = KernelRow
    filterset_class = KernelFilter
    sorts = ("-id", "id", "name", "-name")
    content_tagged = True
    scopes = {"GET": "library:read", "POST": "library:write"}

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    @extend_schema(request=NewKernel, responses={200: KernelSerializer, 201: KernelSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Register a kernel of a blueprint version. It is compiled and validated in the background, or uploaded.

        A live kernel of the same version and bindings is answered as it is (200), and nothing is written.
        """
        given = self.parse(NewKernel)
        try:
            kernel = services.register_kernel(
                version=_version(given["blueprint"], given.get("version")),
                bindings=given.get("bindings"),
                tags=given.get("tags"),
                awaits_upload=given["awaits_upload"],
                pipeline=given["pipeline"],
                actor=actor_of(request),
            )
        except services.DuplicateContract as duplicate:
            kernel = duplicate.kernel
            return self.show(kernel, KernelSerializer, location=f"/api/v1/kernels/{kernel.pk}")
        return self.show(kernel, KernelSerializer, code=201, location=f"/api/v1/kernels/{kernel.pk}")


def _version(reference: str, number: int | None) -> BlueprintVersion:
    try:
        blueprint = blueprint_by_id_or_name(reference)
    except NotFound as error:
        raise Invalid(error.detail, pointer="/blueprint", code="not_found") from None
    try:
        return version_of(blueprint, number)
    except NotFound as error:
        raise Invalid(error.detail, pointer="/version", code="not_found") from None


class KernelView(PastView):
    """One kernel with its compile and validation report."""

    serializer_class = KernelSerializer
    content_tagged = True
    scopes = {"GET": "library:read", "PATCH": "library:write"}

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    @extend_schema(request=KernelChange, responses=KernelSerializer)
    @transaction.atomic
    def patch(self, request: Request, id: UUID) -> Response:
        """Change its tags, its pin, its legal hold or its successor. What it is and how it was measured never change.

        Its successor is the kernel that replaces it: VALIDATED, and of the same contract.
        """
        given = self.parse(KernelChange)
        if "successor" in given:
            lock_successors()  # before the row: in the order of the service
        kernel = self.matched()
        if "successor" in given:
            given["successor"] = _successor(given["successor"])
        kernel = services.update_kernel(kernel=kernel, actor=actor_of(request), **given)
        return self.show(kernel, KernelSerializer)


def _successor(key: UUID | None) -> Kernel | None:
    found = selectors.kernels().filter(pk=key).first() if key else None
    if key and found is None:
        raise Invalid("there is no such kernel", pointer="/successor", code="not_found")
    return found


class KernelStepView(ApiView):
    """Moves a kernel along its life cycle, for a reason."""

    serializer_class = KernelSerializer
    content_tagged = True
    scopes = {"POST": "library:write"}
    http_method_names = ["post"]
    step: ClassVar[Callable[..., Kernel]]

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    @extend_schema(request=NeededReason, responses=KernelSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        given = self.parse(NeededReason)
        kernel = type(self).step(kernel=self.get_object(), actor=actor_of(request), **given)
        return self.show(kernel, KernelSerializer)


class DeprecateView(KernelStepView):
    """New runs no longer get the kernel; runs that hold it keep it."""

    step = staticmethod(services.deprecate_kernel)


class QuarantineView(KernelStepView):
    """Take the kernel out of use at once. There is no way back to use but through retirement."""

    step = staticmethod(services.quarantine_kernel)


class FieldReportListView(ListView):
    """What grafts did to real runs, newest first."""

    queryset = FieldReport.objects.all()
    serializer_class = FieldReportSerializer
    filterset_class = FieldReportFilter
    scopes = {"GET": "library:read"}
