"""`/analysis/anomalies`: what the detector found, and what of it is odd now."""

from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.urls import path
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView, ListView
from apps.core.filters import any_of
from apps.observability.anomalies import COMPONENTS
from apps.observability.api.metrics_forms import SeriesSerializer
from apps.observability.matchers import Matcher
from apps.observability.models import Anomaly
from apps.observability.selectors.anomalies import LATELY, advisor, anomalies


class AnomalyLinksSerializer(serializers.Serializer[Any]):
    """Where to look further."""

    samples = serializers.CharField(help_text="the samples around it")
    run = serializers.CharField(allow_null=True, help_text="null: it is of no run")


class AnomalySerializer(serializers.ModelSerializer[Anomaly]):
    """A moment at which a series behaved as it never does."""

    series = SeriesSerializer(read_only=True)
    run = serializers.UUIDField(source="run_id", allow_null=True, read_only=True)
    component = serializers.ChoiceField(choices=list(COMPONENTS), help_text="what weighed most")
    components = serializers.DictField(
        child=serializers.FloatField(), help_text="what each component contributed, before their sum is capped at 1"
    )
    links = serializers.SerializerMethodField()

    class Meta:
        model = Anomaly
        fields: tuple[str, ...] = (
            "id",
            "series",
            "run",
            "at",
            "until",
            "value",
            "score",
            "component",
            "components",
            "expected_low",
            "expected_high",
            "explanation",
            "links",
        )
        read_only_fields = fields

    @extend_schema_field(AnomalyLinksSerializer)
    def get_links(self, anomaly: Anomaly) -> dict[str, str | None]:
        labels = [("label", str(Matcher(name, "=", value))) for name, value in sorted(anomaly.series.labels.items())]
        start, end = (at.isoformat().replace("+00:00", "Z") for at in (anomaly.at - LATELY, anomaly.until + LATELY))
        asked = urlencode([("name", anomaly.series.name), *labels, ("start", start), ("end", end)])
        run = f"/api/v1/runs/{anomaly.run_id}" if anomaly.run_id else None
        return {"samples": f"/api/v1/metrics/query?{asked}", "run": run}


class AnomalyAdviceSerializer(serializers.Serializer[Any]):
    """A series that is odd now."""

    anomaly = AnomalySerializer(help_text="its newest")
    ongoing = serializers.BooleanField(help_text="its newest sample is odd, too")
    together = serializers.IntegerField(help_text="how many other series became odd at the same time")
    times = serializers.IntegerField(help_text="how often it became odd lately")


class AnomalyAdvisorSerializer(serializers.Serializer[Any]):
    results = AnomalyAdviceSerializer(many=True)


class AnomalyFilter(filters.FilterSet):
    run = filters.UUIDFilter(field_name="run_id")
    name = filters.CharFilter(field_name="series__name", max_length=120, label="of the series")
    since = filters.IsoDateTimeFilter(field_name="until", lookup_expr="gte", label="odd at or after")
    component = any_of(COMPONENTS)

    class Meta:
        model = Anomaly
        fields: list[str] = []


class AnomalyListView(ListView):
    """Anomalies of all series, the newest first."""

    queryset = Anomaly.objects.all()
    serializer_class = AnomalySerializer
    filterset_class = AnomalyFilter
    scopes = {"GET": "runs:read"}

    def get_queryset(self) -> QuerySet[Anomaly]:
        return anomalies()


class AnomalyAdvisorView(ApiView):
    """What is odd now."""

    serializer_class = AnomalyAdvisorSerializer
    scopes = {"GET": "runs:read"}

    @extend_schema(responses=AnomalyAdvisorSerializer)
    def get(self, request: Request) -> Response:
        """Series that are odd or were within 15 minutes, at most 50, the most pressing first: what goes on before what
        is over, what happened to many at once before what happened to one, then by score and by time."""
        return Response(AnomalyAdvisorSerializer({"results": advisor()}).data)


urlpatterns = [
    path("analysis/anomalies", AnomalyListView.as_view()),
    path("analysis/anomalies/current", AnomalyAdvisorView.as_view()),
]
