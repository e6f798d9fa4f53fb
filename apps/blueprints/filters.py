"""What blueprints can be asked for."""

from django_filters import rest_framework as filters

from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.blueprints.spec import OPERATORS
from apps.core.filters import any_of


class BlueprintFilter(filters.FilterSet):
    name = filters.CharFilter(max_length=100)

    class Meta:
        model = Blueprint
        fields: list[str] = []


class BlueprintVersionFilter(filters.FilterSet):
    state = any_of(VersionState)
    operator = any_of(OPERATORS)

    class Meta:
        model = BlueprintVersion
        fields: list[str] = []
