"""`/kernels/{id}/variants`: the kernel in other dtypes and memory formats, each with bytes of its own."""

from dataclasses import replace
from uuid import UUID

from django.db.models import QuerySet
from django.http.response import HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from apps.core.api import ListView
from apps.core.errors import NotFound
from apps.core.serializers import JSONObject
from apps.kernels.api.binary import DOWNLOAD, BinaryView
from apps.kernels.cache import Binding
from apps.kernels.models import Kernel, KernelVariant


class VariantSerializer(serializers.ModelSerializer[KernelVariant]):
    """``digest`` is the sha256 of the variant's own bytes."""

    report = JSONObject(read_only=True, help_text="how it was checked against the kernel, and timed beside it")

    class Meta:
        model = KernelVariant
        fields = ("id", "kernel_id", "memory_format", "dtype", "digest", "size", "report", "created_at")
        read_only_fields = fields


class VariantListView(ListView):
    """The variants that the pipeline `aggressive` made; what it left out stands in the kernel's report."""

    serializer_class = VariantSerializer
    queryset = KernelVariant.objects.none()
    parent = Kernel
    scopes = {"GET": "library:read"}

    def get_queryset(self) -> QuerySet[KernelVariant]:
        return KernelVariant.objects.filter(kernel_id=self.kwargs["id"])


class VariantBinaryView(BinaryView):
    """One variant as one safetensors file, given out as long as its kernel is."""

    scopes = {"GET": "library:read"}
    http_method_names = ["get", "head"]

    def binding(self, id: UUID) -> Binding:
        """The kernel with the bytes of the variant in place of its own."""
        kernel = super().binding(id)
        variant = KernelVariant.objects.filter(kernel_id=id, digest=self.kwargs["digest"]).first()
        if variant is None:
            raise NotFound("the kernel has no variant with this digest")
        name = f"{kernel.name}-{variant.dtype}-{variant.memory_format}"
        return replace(kernel, name=name, digest=variant.digest, size=variant.size)

    @extend_schema(**DOWNLOAD)
    def get(self, request: Request, id: UUID, digest: str) -> HttpResponseBase:  # type: ignore[override]
        """The bytes, whole or one range of them."""
        return super().get(request, id)
