"""What clients send about checkpoints."""

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from apps.checkpoints.models import Schedule
from apps.checkpoints.services.policies import BOUNDS
from apps.core.serializers import Choice, Flag, Identifier, StrictSerializer, Text, Whole
from apps.kernels.api.serializers import Reason

BIGINT = 2**63 - 1
MAX_COMPONENTS = 16


class NewCheckpoint(Reason):
    run = Identifier(help_text="a run that is being trained")


class Restoration(Reason):
    validate_only = Flag(default=False, help_text="only read and verify what a restore would")
    components = serializers.ListField(
        child=Text(max_length=32),
        required=False,
        allow_empty=False,
        max_length=MAX_COMPONENTS,
        help_text="only these; for validate_only",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "components" in attrs and not attrs["validate_only"]:
            raise ValidationError({"components": ["is only for validate_only: a run goes on from all of them"]})
        return attrs


class Replay(Reason):
    step = Whole(min_value=0, max_value=BIGINT, help_text="the step to train to, from this checkpoint")


class Comparison(StrictSerializer):
    """The parameter of a request for a comparison. A reserved word of Python's: it is no attribute."""

    def get_fields(self) -> dict[str, Any]:
        return {"with": Identifier()}


def _whole(name: str, **kwargs: Any) -> Whole:
    least, most = BOUNDS[name]
    return Whole(min_value=least, max_value=most, required=False, **kwargs)


class CheckpointPolicyChange(Reason):
    """A checkpoint stays if any rule keeps it. The newest, the newest verified and pinned ones always do."""

    schedule = Choice(choices=Schedule.choices, required=False)
    interval_seconds = _whole("interval_seconds")
    keep_last = _whole("keep_last")
    keep_days = _whole("keep_days")
    keep_daily = _whole("keep_daily", help_text="the newest of so many days")
    keep_weekly = _whole("keep_weekly", help_text="the newest of so many weeks")
    keep_monthly = _whole("keep_monthly", help_text="the newest of so many months")
    keep_best = _whole("keep_best", help_text="by best_metric")
    best_metric = Text(max_length=64, required=False)
    best_is_lowest = Flag(required=False)
    archive_after_hours = _whole(
        "archive_after_hours", allow_null=True, help_text="then it leaves the folder; null: never"
    )


class NewCheckpointPolicy(CheckpointPolicyChange):
    run = Identifier(required=False, help_text="without it: of all runs that have none of their own")
