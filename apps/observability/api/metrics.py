"""`/metrics`: the newest values, curves over any range, which series there are, and samples that clients send."""

from datetime import timedelta
from math import isfinite
from typing import Any

from django.db.models import QuerySet
from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import default_workspace_id
from apps.core.api import ApiView, ListView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid
from apps.core.idempotency import idempotent
from apps.observability import matchers
from apps.observability.api.metrics_filters import SeriesFilter
from apps.observability.api.metrics_forms import (
    LONGEST_STEP,
    MOST_CURRENT,
    CurrentListSerializer,
    CurrentQuestion,
    CurvesQuestion,
    CurvesSerializer,
    NewSamples,
    SeriesRowSerializer,
    SeriesSerializer,
    WrittenSerializer,
    told,
)
from apps.observability.models import Series
from apps.observability.services import ingestion
from apps.observability.store import reading, selecting
from apps.observability.store.reading import MOST_POINTS

NAME = {"type": "string", "minLength": 1, "maxLength": 120}
LABEL = OpenApiParameter(
    "label",
    {"type": "array", "items": {"type": "string"}, "maxItems": matchers.MOST},
    explode=True,
    description='of the series, e.g. `run="0192..."` or `queue=~"training|compile"`; several: all of them',
)


class SeriesListView(ListView):
    """Series, the newest first."""

    queryset = Series.objects.all()
    serializer_class = SeriesRowSerializer
    filterset_class = SeriesFilter
    query_parameters = frozenset({"label"})
    scopes = {"GET": "runs:read"}

    def get_queryset(self) -> QuerySet[Series]:
        rows = Series.objects.filter(workspace=default_workspace_id())
        return selecting.with_labels(rows, matchers.from_text(self.request.query_params.getlist("label")))

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "label",
                {"type": "array", "items": {"type": "string"}, "maxItems": matchers.MOST},
                explode=True,
                description="of the series, with = or !=, e.g. `queue=training`; several: all of them",
            )
        ]
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Which series there are, with their labels."""
        return super().get(request, *args, **kwargs)


class CurrentView(ApiView):
    """The newest values."""

    serializer_class = CurrentListSerializer
    scopes = {"GET": "runs:read"}
    query_parameters = frozenset({"name", "label", "within_seconds", "limit"})

    @extend_schema(
        responses=CurrentListSerializer,
        parameters=[
            OpenApiParameter("name", NAME, description="of the metric; without it: of all"),
            LABEL,
            OpenApiParameter(
                "within_seconds",
                {"type": "integer", "minimum": 1, "maximum": 366 * 86_400},
                description="only samples that are so young; never older ones than the last days, which are kept hot",
            ),
            OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": MOST_CURRENT}, default=200),
        ],
    )
    def get(self, request: Request) -> Response:
        """The newest sample of each series that has one, by name."""
        labels = matchers.from_text(request.query_params.getlist("label"))
        asked = self.parse(CurrentQuestion, _without_label(request))
        found = reading.latest(asked.get("name"), matchers=labels, within_seconds=asked.get("within_seconds"))
        results = [
            {
                "series": SeriesSerializer(each.series).data,
                "at": each.at,
                "value": each.value if isfinite(each.value) else None,
                "anomalous": each.anomalous,
            }
            for each in found[: asked["limit"]]
        ]
        return Response({"results": results, "has_more": len(found) > len(results)})


class CurvesView(ApiView):
    """Curves over a range of time."""

    serializer_class = CurvesSerializer
    scopes = {"GET": "runs:read"}
    query_parameters = frozenset({"name", "label", "start", "end", "step", "points"})
    conditional = True

    @extend_schema(
        responses=CurvesSerializer,
        parameters=[
            OpenApiParameter("name", NAME, required=True, description="of the metric"),
            LABEL,
            OpenApiParameter("start", OpenApiTypes.DATETIME, description="an hour before the end, if it is left out"),
            OpenApiParameter("end", OpenApiTypes.DATETIME, description="now, if it is left out"),
            OpenApiParameter(
                "step",
                {"type": "integer", "minimum": 0, "maximum": LONGEST_STEP},
                description="seconds of a bucket, 0 for the samples themselves; without it: as `points` allows",
            ),
            OpenApiParameter(
                "points",
                {"type": "integer", "minimum": 2, "maximum": MOST_POINTS},
                default=600,
                description="no curve has more, where no `step` is given",
            ),
        ],
    )
    def get(self, request: Request) -> Response:
        """Least, mean and greatest of whole buckets of time, by UTC; a bucket without samples has no point.

        At most 50 series, and 20,000 points in all. What is older than the samples themselves is read from averages
        of five minutes, and older yet, of an hour.
        """
        labels = matchers.from_text(request.query_params.getlist("label"))
        asked = self.parse(CurvesQuestion, _without_label(request))
        end = asked.get("end") or timezone.now()
        start = asked.get("start") or end - timedelta(hours=1)
        curves = reading.query(
            name=asked["name"],
            matchers=labels,
            start=start,
            end=end,
            step=asked.get("step"),
            points=asked["points"],
        )
        results = [told(curve) for curve in curves]
        return self.read({"start": start, "end": end, "results": results}, content_etag(None, results))


class SamplesView(ApiView):
    """Samples of clients."""

    serializer_class = WrittenSerializer
    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]

    @extend_schema(request=NewSamples, responses={200: WrittenSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Keep samples of metrics of your own. All of a batch are kept, or none. Send a batch again as often as you
        like: a sample whose series and time are there already is known, and stays as it is."""
        given = request.data
        if not isinstance(given, dict) or set(given) != {"samples"}:
            raise Invalid('must be {"samples": [...]}', pointer="/samples", code="invalid")
        written = ingestion.ingest(samples=given["samples"])
        return Response({"stored": written.stored, "known": written.known})


def _without_label(request: Request) -> dict[str, Any]:
    return {name: value for name, value in request.query_params.dict().items() if name != "label"}


urlpatterns = [
    path("metrics/series", SeriesListView.as_view()),
    path("metrics/current", CurrentView.as_view()),
    path("metrics/query", CurvesView.as_view()),
    path("metrics/samples", SamplesView.as_view()),
]
