"""What runs, seeds and decisions can be asked for."""

from django_filters import rest_framework as filters

from apps.blueprints.spec import OPERATORS
from apps.core.filters import any_of
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action
from apps.training.lifecycle import RecoveryState, RunState
from apps.training.models import Decision, RecoveryCause, RecoveryEvent, RunKind, Seed, TrainingRun


class RunFilter(filters.FilterSet):
    state = any_of(RunState)
    kind = any_of(RunKind.values)
    task = filters.CharFilter(max_length=64)
    host = filters.CharFilter(max_length=64)
    name = filters.CharFilter(max_length=120)
    owner = filters.CharFilter(field_name="owner__username", max_length=150)
    control_of = filters.UUIDFilter(field_name="control_of_id")

    class Meta:
        model = TrainingRun
        fields: list[str] = []


class SeedFilter(filters.FilterSet):
    run = filters.UUIDFilter(field_name="run_id")
    kernel = filters.UUIDFilter(field_name="kernel_id")
    state = any_of(SeedState)
    operator = any_of(OPERATORS)

    class Meta:
        model = Seed
        fields: list[str] = []


class SeedOfRunFilter(filters.FilterSet):
    state = any_of(SeedState)
    operator = any_of(OPERATORS)

    class Meta:
        model = Seed
        fields: list[str] = []


class DecisionFilter(filters.FilterSet):
    run = filters.UUIDFilter(field_name="run_id")
    action = any_of(Action)
    rule = filters.CharFilter(max_length=64)

    class Meta:
        model = Decision
        fields: list[str] = []


class RecoveryFilter(filters.FilterSet):
    run = filters.UUIDFilter(field_name="run_id")
    state = any_of(RecoveryState)
    cause = any_of(RecoveryCause.values)

    class Meta:
        model = RecoveryEvent
        fields: list[str] = []
