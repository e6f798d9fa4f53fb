"""What series can be asked for."""

from django_filters import rest_framework as filters

from apps.core.filters import any_of
from apps.observability.models import Series, SeriesKind, SeriesSource


class SeriesFilter(filters.FilterSet):
    name = filters.CharFilter(field_name="name", max_length=120)
    run = filters.UUIDFilter(field_name="run_id")
    kind = any_of(SeriesKind.values)
    source = any_of(SeriesSource.values)

    class Meta:
        model = Series
        fields: list[str] = []
