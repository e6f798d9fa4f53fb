"""What the analysis endpoints are asked, and what they answer."""

import math
from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from apps.core.serializers import StrictSerializer
from apps.kernels.api.cache_forms import TIERS, CacheLatencySerializer, CacheStoredSerializer
from apps.observability.api.metrics_forms import SeriesSerializer
from apps.observability.models import Severity
from apps.observability.recommendations.contracts import Evidence, Recommendation
from apps.observability.selectors.performance import CacheTier
from apps.observability.selectors.trends import SeriesTrend
from apps.observability.store.times import moment
from apps.observability.trends import Direction

MOST_HOURS = 2 * 366 * 24
HOUR = 3_600.0


@extend_schema_field({"type": "number", "format": "double", "nullable": True, "readOnly": True})
class Measure(serializers.Field[Any, Any, Any, Any]):
    """A number in an answer; null where there is none: JSON has no NaN and no infinity."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, read_only=True, **kwargs)

    def to_representation(self, value: float) -> float | None:
        return float(value) if math.isfinite(value) else None


@extend_schema_field({"oneOf": [{"type": "number"}, {"type": "string"}], "nullable": True, "readOnly": True})
class Told(serializers.Field[Any, Any, Any, Any]):
    """A number or a text in an answer."""

    def to_representation(self, value: float | str) -> float | str | None:
        return None if isinstance(value, float) and not math.isfinite(value) else value


class Finite(serializers.FloatField):
    """A number in a query string."""

    def to_internal_value(self, data: Any) -> float:
        value = float(super().to_internal_value(data))
        if not math.isfinite(value):
            raise ValidationError("must be a finite number", code="invalid")
        return value


# --- Questions


class WindowQuestion(StrictSerializer):
    hours = serializers.IntegerField(min_value=1, max_value=MOST_HOURS, default=24)


class TrendsQuestion(WindowQuestion):
    name = serializers.CharField(max_length=120)
    threshold = Finite(required=False)
    horizon_hours = serializers.IntegerField(min_value=1, max_value=366 * 24, default=7 * 24)


# --- Trends


class TrendForecastSerializer(serializers.Serializer[Any]):
    """When the line reaches the threshold, and when the steepest and the flattest line of the interval do. null: not
    within the horizon. Where it is behind: the end of the window."""

    at = serializers.DateTimeField(allow_null=True)
    earliest = serializers.DateTimeField(allow_null=True)
    latest = serializers.DateTimeField(allow_null=True)


class TrendLineSerializer(serializers.Serializer[Any]):
    """Theil and Sen's line; slopes are in the unit of the series an hour, with their 95 % interval."""

    slope_per_hour = Measure()
    low = Measure()
    high = Measure()
    level = Measure(help_text="where the line is at the end of the window")
    p = Measure(help_text="of Mann and Kendall's test, two-sided, corrected for points that follow each other")
    tau = Measure(help_text="Kendall's: -1 always falling, 1 always rising")
    direction = serializers.ChoiceField(choices=[str(direction) for direction in Direction])
    points = serializers.IntegerField()
    effective_points = Measure(help_text="to how many independent points they amount")


class MovingSeriesSerializer(serializers.Serializer[Any]):
    """One series and how it moves. Of a counter, values are its growth a second."""

    series = SeriesSerializer()
    step = serializers.IntegerField(help_text="seconds that each point is the mean of; 0: the samples themselves")
    last = Measure()
    last_at = serializers.DateTimeField(allow_null=True)
    trend = TrendLineSerializer(allow_null=True, help_text="null: fewer than ten points")
    forecast = TrendForecastSerializer(allow_null=True, help_text="null: no threshold, or no trend to go by")

    def to_representation(self, found: SeriesTrend) -> Any:
        return super().to_representation(_told(found))


class TrendsSerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    results = MovingSeriesSerializer(many=True)


def _told(found: SeriesTrend) -> Mapping[str, Any]:
    line, reaches = found.found, found.reaches
    return {
        "series": found.series,
        "step": found.step,
        "last": found.last,
        "last_at": found.last_at,
        "trend": None
        if line is None
        else {
            "slope_per_hour": line.slope * HOUR,
            "low": line.low * HOUR,
            "high": line.high * HOUR,
            "level": line.level,
            "p": line.p,
            "tau": line.tau,
            "direction": str(line.direction),
            "points": line.points,
            "effective_points": line.effective,
        },
        "forecast": None
        if reaches is None
        else {
            name: None if seconds is None else moment(seconds)
            for name, seconds in (("at", reaches.at), ("earliest", reaches.earliest), ("latest", reaches.latest))
        },
    }


# --- Performance


class MeasuredSerializer(serializers.Serializer[Any]):
    """A number of ``n`` cases between ``low`` and ``high``: the ends of a 95 % interval of a share (Wilson) or a mean
    (Student), or the quartiles beside a median. null: there are no cases, or too few."""

    n = serializers.IntegerField()
    value = Measure()
    low = Measure()
    high = Measure()


class ControlComparisonSerializer(serializers.Serializer[Any]):
    """Grown networks against networks of the same size that were trained from the start."""

    pairs = serializers.IntegerField()
    accuracy_gain = MeasuredSerializer(help_text="mean difference of the test accuracies")
    compute_ratio = MeasuredSerializer(help_text="median; training FLOPs of the grown one per those of its control")


class EfficiencySerializer(serializers.Serializer[Any]):
    """Medians over the runs that were completed in the window."""

    runs = serializers.IntegerField()
    test_accuracy = MeasuredSerializer()
    accuracy_per_gflop = MeasuredSerializer()
    parameters = MeasuredSerializer()
    growth = MeasuredSerializer(help_text="parameters in the end per those at the start")
    against_control = ControlComparisonSerializer()


class SeedFatesSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    kernel_id = serializers.UUIDField(allow_null=True)
    ended = serializers.IntegerField()
    kept = MeasuredSerializer(help_text="share")
    rolled_back = MeasuredSerializer(help_text="share")


class AdaptationSerializer(serializers.Serializer[Any]):
    """Of the seeds that germinated, and of those that ended, in the window."""

    germinated = serializers.IntegerField()
    ended = serializers.IntegerField()
    fossilised = serializers.IntegerField()
    culled = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    rolled_back = serializers.IntegerField()
    success = MeasuredSerializer(help_text="share of those that ended which was fossilised")
    rollback = MeasuredSerializer(help_text="share of those that ended which was rolled back")
    gain = MeasuredSerializer(help_text="mean, of those that were kept, in nats per held-out sample")
    epochs_to_fossilise = MeasuredSerializer(help_text="median")
    seconds_to_fossilise = MeasuredSerializer(help_text="median")
    operators = SeedFatesSerializer(many=True)
    kernels = SeedFatesSerializer(many=True, help_text="the 20 that ended most often")


class CacheTierPerformanceSerializer(serializers.Serializer[CacheTier]):
    name = serializers.ChoiceField(choices=TIERS)
    hits = MeasuredSerializer(help_text="share of the reads that came as far as this tier")
    answered = MeasuredSerializer(help_text="share of all reads that any tier answered")
    bytes_given = serializers.IntegerField()
    evictions = serializers.IntegerField()
    latency = CacheLatencySerializer()


class CachePerformanceSerializer(serializers.Serializer[Any]):
    window = serializers.CharField(help_text="of the counts: the shortest that has the one asked for, or the longest")
    tiers = CacheTierPerformanceSerializer(many=True)
    stored = CacheStoredSerializer(help_text="in the database, each blob once")
    archived = CacheStoredSerializer(help_text="in the object storage")
    problem = serializers.CharField(help_text="why the counts are unknown; empty: they are not")


class PlatformPerformanceSerializer(serializers.Serializer[Any]):
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    samples_per_second = MeasuredSerializer(help_text="median over the runs that trained in the window")
    overhead = MeasuredSerializer(help_text="likewise: time of growing per time of pure training")
    efficiency = EfficiencySerializer()
    adaptation = AdaptationSerializer()
    resources = MovingSeriesSerializer(many=True)
    omitted_resources = serializers.IntegerField(help_text="series that are not shown")
    cache = CachePerformanceSerializer()


# --- Recommendations


class EvidenceSerializer(serializers.Serializer[Evidence]):
    """One number that speaks for it, or a text. ``low`` and ``high`` are the ends of its interval."""

    what = serializers.CharField()
    value = Told(allow_null=True, read_only=True)
    unit = serializers.CharField()
    n = serializers.IntegerField(allow_null=True, help_text="cases that it comes from")
    low = Measure()
    high = Measure()
    link = serializers.CharField(help_text="where it can be seen; empty: nowhere")


class RecommendationSerializer(serializers.Serializer[Recommendation]):
    """``rule`` and ``subject`` together tell one from another."""

    rule = serializers.CharField()
    subject = serializers.CharField()
    severity = serializers.ChoiceField(choices=Severity.choices)
    sentence = serializers.CharField()
    evidence = EvidenceSerializer(many=True)
    remedy = serializers.CharField()
    link = serializers.CharField(help_text="the page on which to do it; empty: none")


class UnknownAdviceSerializer(serializers.Serializer[Any]):
    """A rule that could say nothing now, and why."""

    rule = serializers.CharField()
    why = serializers.CharField()


class AdviceSerializer(serializers.Serializer[Any]):
    """The worst first. Nothing recommended and nothing unknown: there is nothing to do."""

    results = RecommendationSerializer(many=True, source="recommendations")
    unknown = UnknownAdviceSerializer(many=True)
