"""What checkpoints can be asked for."""

from django.db.models import QuerySet
from django_filters import rest_framework as filters

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy, Location, SaveReason
from apps.core.filters import any_of

BOOLEANS = {"true": True, "false": False}


class CheckpointOfRunFilter(filters.FilterSet):
    state = any_of(CheckpointState)
    location = any_of(Location.values)
    reason = any_of(SaveReason.values)
    pinned = filters.ChoiceFilter(
        choices=[(text, text) for text in BOOLEANS],
        method="is_pinned",
        error_messages={"invalid_choice": "%(value)s: must be one of true, false"},
    )

    def is_pinned(self, queryset: QuerySet[Checkpoint], name: str, value: str) -> QuerySet[Checkpoint]:
        return queryset.filter(pinned=BOOLEANS[value])

    class Meta:
        model = Checkpoint
        fields: list[str] = []


class CheckpointFilter(CheckpointOfRunFilter):
    run = filters.UUIDFilter(field_name="run_id")


class PolicyFilter(filters.FilterSet):
    run = filters.UUIDFilter(field_name="run_id")

    class Meta:
        model = CheckpointPolicy
        fields: list[str] = []
