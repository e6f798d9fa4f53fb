"""`/kernels` and `/field-reports`. The bytes of a kernel are in ``binary``."""

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.selectors import blueprint_by_id_or_name, version_of
from apps.core.actors import actor_of
from apps.core.api import ListView
from apps.core.errors import Invalid, NotFound
from apps.core.idempotency import idempotent
from apps.kernels import selectors, services
from apps.kernels.api.serializers import FieldReportSerializer, KernelRow, KernelSerializer, NewKernel
from apps.kernels.filters import FieldReportFilter, KernelFilter
from apps.kernels.models import FieldReport, Kernel


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
    scopes = {"GET": "library:read"}

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()


class FieldReportListView(ListView):
    """What grafts did to real runs, newest first."""

    queryset = FieldReport.objects.all()
    serializer_class = FieldReportSerializer
    filterset_class = FieldReportFilter
    scopes = {"GET": "library:read"}
