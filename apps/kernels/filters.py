"""What kernels and field reports can be asked for."""

from typing import Any

from django.db.models import QuerySet
from django_filters import rest_framework as filters

from apps.blueprints.spec import OPERATORS
from apps.core.filters import any_of
from apps.core.ids import parse_id
from apps.kernels.lifecycle import CachePlanState, KernelState, PlanState
from apps.kernels.models import CachePlan, CachePlanKind, FieldReport, Kernel, RetentionPlan


class KernelFilter(filters.FilterSet):
    state = any_of(KernelState)
    operator = any_of(OPERATORS)
    blueprint = filters.CharFilter(method="of_blueprint", max_length=100, label="id or name")
    digest = filters.CharFilter(max_length=64)

    class Meta:
        model = Kernel
        fields: list[str] = []

    def of_blueprint(self, queryset: QuerySet[Kernel], name: str, value: Any) -> QuerySet[Kernel]:
        key = parse_id(value)
        if key is not None:
            return queryset.filter(blueprint_version__blueprint_id=key)
        return queryset.filter(blueprint_version__blueprint__name=value)


class FieldReportFilter(filters.FilterSet):
    kernel = filters.UUIDFilter(field_name="kernel_id")
    run = filters.UUIDFilter(field_name="run_id")
    task = filters.CharFilter(max_length=64)
    host = filters.CharFilter(max_length=64)
    verdict = filters.CharFilter(max_length=16)

    class Meta:
        model = FieldReport
        fields: list[str] = []


class PlanFilter(filters.FilterSet):
    policy = filters.UUIDFilter(field_name="policy_id")
    state = any_of(PlanState)

    class Meta:
        model = RetentionPlan
        fields: list[str] = []


class CachePlanFilter(filters.FilterSet):
    kind = any_of(CachePlanKind)
    state = any_of(CachePlanState)

    class Meta:
        model = CachePlan
        fields: list[str] = []
