"""What clients send about runs: to create one, to command one, and from a training loop of their own."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from apps.core.serializers import Choice, Flag, JSONObject, Number, StrictSerializer, Text, Whole
from apps.morphogenesis.protocols import Action, Refusal
from apps.training.lifecycle import RunState
from apps.training.models import LibrarySource, RunKind
from apps.training.services.external import FINISHES, MAX_EVENTS
from apps.training.services.runs import MAX_EPOCHS_OF_EXTERNAL

INT = 2**31 - 1
BIGINT = 2**63 - 1
CREATABLE = [RunKind.INTERNAL.value, RunKind.EXTERNAL.value]


class NewRun(StrictSerializer):
    kind = Choice(choices=CREATABLE, default=RunKind.INTERNAL.value)
    name = Text(max_length=120, required=False)
    settings = JSONObject(help_text="task, host, seed, epochs, ...: GET /catalogue lists them with their bounds")
    library_source = Choice(choices=LibrarySource.choices, required=False)
    wants_control = Flag(required=False, help_text="train the static net of the same size too")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["kind"] == RunKind.EXTERNAL:
            mine = [name for name in ("library_source", "wants_control") if name in attrs]
            if mine:
                raise ValidationError({name: ["is only for internal runs"] for name in mine})
        return attrs


class ExternalSettings(serializers.Serializer[Any]):
    """The members of an external run's settings that the platform reads; the client may keep others beside them."""

    task = Text(max_length=64)
    host = Text(max_length=64)
    epochs = Whole(min_value=1, max_value=MAX_EPOCHS_OF_EXTERNAL)
    seed = Whole(min_value=0, max_value=INT, default=0)


class RunCommand(StrictSerializer):
    reason = Text(max_length=4000, required=False, help_text="kept in the audit trail")


class Heartbeat(StrictSerializer):
    """Without a token: take the run. With one: a sign of life."""

    holder = Text(max_length=200, required=False, help_text="who trains; needed to take the run")
    fencing_token = Whole(min_value=0, max_value=BIGINT, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "fencing_token" not in attrs and "holder" not in attrs:
            raise ValidationError({"holder": ["is required to take the run"]}, code="required")
        return attrs


class LeaseSerializer(serializers.Serializer[Any]):
    """Present ``fencing_token`` with every write; obey ``command`` at the next step boundary."""

    fencing_token = serializers.IntegerField()
    holder = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)
    state = serializers.ChoiceField(choices=list(RunState), source="run.state")
    command = serializers.CharField(source="run.command")
    last_sequence = serializers.IntegerField(source="run.last_sequence")


class Event(StrictSerializer):
    """What every event has. ``sequence`` grows through the run; one that is stored already is ignored."""

    sequence = Whole(min_value=1, max_value=BIGINT)
    epoch = Whole(min_value=0, max_value=INT)
    step = Whole(min_value=0, max_value=BIGINT)


class EpochEvent(Event):
    type = Choice(choices=["epoch"])
    train_loss = Number(allow_null=True, help_text="null when it is not finite")
    validation_loss = Number(allow_null=True)
    validation_accuracy = Number(allow_null=True, min_value=0.0, max_value=1.0)
    parameters = Whole(min_value=0, max_value=BIGINT)
    train_flops = Whole(min_value=0, max_value=BIGINT)
    learning_rate = Number(allow_null=True)
    live_seeds = serializers.DictField(child=Text(max_length=16), required=False)


class NewRefusal(StrictSerializer):
    action = Choice(choices=list(Action))
    site = Text(max_length=200, allow_blank=True)
    kernel = Text(max_length=64, allow_blank=True)
    reason = Text(max_length=4000)

    def to_internal_value(self, data: Any) -> Refusal:
        return Refusal(**super().to_internal_value(data))


class DecisionEvent(Event):
    type = Choice(choices=["decision"])
    action = Choice(choices=list(Action))
    rule = Text(max_length=64)
    reason = Text(max_length=4000)
    site = Text(max_length=200, required=False, allow_blank=True)
    seed = Whole(min_value=1, max_value=INT, required=False, allow_null=True)
    kernel = Text(max_length=64, required=False, allow_blank=True)
    observed = JSONObject(required=False)
    refused = NewRefusal(many=True, required=False)


EVENTS: Mapping[str, type[Event]] = {"epoch": EpochEvent, "decision": DecisionEvent}


@extend_schema_field(
    PolymorphicProxySerializer(
        component_name="AnyEvent", serializers=[EpochEvent, DecisionEvent], resource_type_field_name="type"
    )
)
class AnyEvent(serializers.Field[Any, Any, Any, Any]):
    """An epoch or a decision, by its ``type``."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        kind = EVENTS.get(str(data.get("type"))) if isinstance(data, Mapping) else None
        if kind is None:
            raise ValidationError({"type": [f"must be one of: {', '.join(EVENTS)}"]}, code="unknown")
        serializer = kind(data=data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def to_representation(self, value: Any) -> Any:
        return value


class EventBatch(StrictSerializer):
    fencing_token = Whole(min_value=0, max_value=BIGINT)
    events = serializers.ListField(child=AnyEvent(), allow_empty=False, max_length=MAX_EVENTS)


class StoredEvents(serializers.Serializer[Any]):
    last_sequence = serializers.IntegerField(help_text="the newest event stored: go on after it")


class Finish(StrictSerializer):
    fencing_token = Whole(min_value=0, max_value=BIGINT)
    state = Choice(choices=sorted(FINISHES))
    result = JSONObject(required=False)
    failure = Text(max_length=4000, required=False, allow_blank=True)
