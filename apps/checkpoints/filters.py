"""What checkpoints can be asked for."""

from django_filters import rest_framework as filters

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.filters import any_of


class CheckpointFilter(filters.FilterSet):
    state = any_of(CheckpointState)

    class Meta:
        model = Checkpoint
        fields: list[str] = []
