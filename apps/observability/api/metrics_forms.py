"""What is asked of and answered about metrics."""

import math
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.serializers import Choice, StrictSerializer, Text
from apps.observability.contracts import Curve, Numbers
from apps.observability.models import Series, SeriesKind, SeriesSource
from apps.observability.services.ingestion import MOST_SAMPLES, NOT_NUMBERS
from apps.observability.store.identity import LONGEST_UNIT
from apps.observability.store.reading import MOST_POINTS

MOST_CURRENT = 1_000
LONGEST_STEP = 77_414_400


class SeriesSerializer(serializers.Serializer[Any]):
    """One curve: a metric's name and its labels."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    labels = serializers.DictField(child=serializers.CharField())
    kind = serializers.ChoiceField(choices=SeriesKind.choices)
    unit = serializers.CharField(allow_blank=True)
    source: Any = serializers.ChoiceField(choices=SeriesSource.choices)
    run = serializers.UUIDField(source="run_id", allow_null=True)


class SeriesRowSerializer(SeriesSerializer, serializers.ModelSerializer[Series]):
    """A series, with when it began and about when its newest sample is of."""

    class Meta:
        model = Series
        fields = ["id", "name", "labels", "kind", "unit", "source", "run", "created_at", "last_at"]


class CurrentQuestion(StrictSerializer):
    name = Text(max_length=120, required=False)
    within_seconds = serializers.IntegerField(min_value=1, max_value=366 * 86_400, required=False)
    limit = serializers.IntegerField(min_value=1, max_value=MOST_CURRENT, default=200)


class CurrentSerializer(serializers.Serializer[Any]):
    """The newest sample of a series."""

    series = SeriesSerializer()
    at = serializers.DateTimeField()
    value = serializers.FloatField(allow_null=True, help_text="null: NaN or infinite")
    anomalous = serializers.BooleanField()


class CurrentListSerializer(serializers.Serializer[Any]):
    results = CurrentSerializer(many=True)
    has_more = serializers.BooleanField(help_text="more series match than `limit`")


class CurvesQuestion(StrictSerializer):
    name = Text(max_length=120)
    start = serializers.DateTimeField(required=False)
    end = serializers.DateTimeField(required=False)
    step = serializers.IntegerField(min_value=0, max_value=LONGEST_STEP, required=False)
    points = serializers.IntegerField(min_value=2, max_value=MOST_POINTS, default=600)


def _numbers(help_text: str, *, is_nullable: bool = True) -> serializers.ListField:
    return serializers.ListField(child=serializers.FloatField(allow_null=is_nullable), help_text=help_text)


class CurveSerializer(serializers.Serializer[Any]):
    """Arrays with an entry a point; null stands for NaN and for what is infinite."""

    series = SeriesSerializer()
    step = serializers.IntegerField(help_text="seconds of a bucket; 0: the samples themselves")
    times = _numbers("seconds since 1970, of a bucket its start", is_nullable=False)
    least = _numbers("of a counter: the least growth a second")
    mean = _numbers("of a counter: its growth a second")
    greatest = _numbers("of a counter: the greatest growth a second")
    anomalies = _numbers("times of samples that the detector marked", is_nullable=False)


class CurvesSerializer(serializers.Serializer[Any]):
    start = serializers.DateTimeField()
    end = serializers.DateTimeField()
    results = CurveSerializer(many=True)


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string", "enum": list(NOT_NUMBERS)}]})
class ValueField(serializers.Field[Any, Any, Any, Any]):
    """A number, or the text of what JSON has no number for. Only described here: ``ingestion`` reads it."""


class SampleForm(StrictSerializer):
    name = Text(max_length=120, help_text="as Prometheus has them; `esper_` is the platform's own prefix")
    value = ValueField()
    at = serializers.DateTimeField(help_text="RFC 3339; within the last days, kept in whole milliseconds")
    labels = serializers.DictField(child=Text(max_length=200), required=False, help_text="at most 16")
    kind = Choice(choices=SeriesKind.choices, required=False)
    unit = Text(max_length=LONGEST_UNIT, required=False, allow_blank=True)


class NewSamples(StrictSerializer):
    samples = serializers.ListField(child=SampleForm(), min_length=1, max_length=MOST_SAMPLES)


class WrittenSerializer(serializers.Serializer[Any]):
    """What became of a batch."""

    stored = serializers.IntegerField()
    known = serializers.IntegerField(help_text="were there already: the batch, or a part of it, was sent again")


def told(curve: Curve) -> dict[str, Any]:
    """A curve as JSON types: by hand, because a field's call for each of 20,000 numbers takes a second."""
    return {
        "series": SeriesSerializer(curve.series).data,
        "step": curve.step,
        "times": curve.times.tolist(),
        "least": finite(curve.least),
        "mean": finite(curve.mean),
        "greatest": finite(curve.greatest),
        "anomalies": curve.anomalies.tolist(),
    }


def finite(numbers: Numbers) -> list[float | None]:
    return [number if math.isfinite(number) else None for number in numbers.tolist()]
