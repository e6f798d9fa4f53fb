"""What checkpoints can be asked for."""

from django_filters import rest_framework as filters

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy, Location, SaveReason
from apps.core.filters import any_of

BOOLEANS = {"true": True, "false": False}


class CheckpointOfRunFilter(filters.FilterSet):
    state = any_of(CheckpointState)
    location = any_of(Location.values)
    reason = any_of(SaveReason.values)
    pinned = filters.TypedChoiceFilter(
        choices=[(text, text) for text in BOOLEANS],
        coerce=BOOLEANS.get,
        empty_value=None,
        error_messages={"invalid_choice": "%(value)s: must be one of true, false"},
    )

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
