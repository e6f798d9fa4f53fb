"""`/metrics/trends` and `/analysis`: how series move, how the platform does, and what should be done next."""

from datetime import timedelta

from django.urls import path
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView
from apps.observability import matchers
from apps.observability.api.analysis_forms import (
    MOST_HOURS,
    AdviceSerializer,
    PlatformPerformanceSerializer,
    TrendsQuestion,
    TrendsSerializer,
    WindowQuestion,
)
from apps.observability.api.metrics import LABEL, NAME
from apps.observability.selectors.performance import performance
from apps.observability.selectors.recommendations import advice
from apps.observability.selectors.trends import trends

HOURS = OpenApiParameter(
    "hours",
    {"type": "integer", "minimum": 1, "maximum": MOST_HOURS},
    default=24,
    description="the length of the window, which ends now",
)


class TrendsView(ApiView):
    """How series of one name move."""

    serializer_class = TrendsSerializer
    scopes = {"GET": "runs:read"}
    query_parameters = frozenset({"name", "label", "hours", "threshold", "horizon_hours"})

    @extend_schema(
        responses=TrendsSerializer,
        parameters=[
            OpenApiParameter("name", NAME, required=True, description="of the metric"),
            LABEL,
            HOURS,
            OpenApiParameter("threshold", OpenApiTypes.DOUBLE, description="a value that may be reached"),
            OpenApiParameter(
                "horizon_hours",
                {"type": "integer", "minimum": 1, "maximum": 366 * 24},
                default=7 * 24,
                description="how far to look ahead",
            ),
        ],
    )
    def get(self, request: Request) -> Response:
        """Of each series its slope with interval, whether it rises or falls, and when it reaches the threshold.

        By the averages of the store, at most 300 points a series. More than 50 series are refused: add a label.
        """
        given = request.query_params.dict()
        labels = matchers.from_text(request.query_params.getlist("label"))
        asked = self.parse(TrendsQuestion, {name: value for name, value in given.items() if name != "label"})
        until = timezone.now()
        results = trends(
            name=asked["name"],
            matchers=labels,
            hours=asked["hours"],
            threshold=asked.get("threshold"),
            horizon_hours=asked["horizon_hours"],
            now=until,
        )
        told = {"since": until - timedelta(hours=asked["hours"]), "until": until, "results": results}
        return Response(TrendsSerializer(told).data)


class PerformanceView(ApiView):
    """How the platform does."""

    serializer_class = PlatformPerformanceSerializer
    scopes = {"GET": "runs:read"}
    query_parameters = frozenset({"hours"})

    @extend_schema(responses=PlatformPerformanceSerializer, parameters=[HOURS])
    def get(self, request: Request) -> Response:
        """What runs are worth, what growing came to, what it takes and how it moves, and what the cache does: over a
        window, each number with its cases and its interval."""
        asked = self.parse(WindowQuestion, request.query_params.dict())
        return Response(PlatformPerformanceSerializer(performance(hours=asked["hours"])).data)


class RecommendationsView(ApiView):
    """What should be done next."""

    serializer_class = AdviceSerializer
    scopes = {"GET": "runs:read"}

    @extend_schema(responses=AdviceSerializer)
    def get(self, request: Request) -> Response:
        """Each recommendation with the numbers that it comes from, where to see them, and what to do. None when
        nothing is wrong."""
        return Response(AdviceSerializer(advice()).data)


urlpatterns = [
    path("metrics/trends", TrendsView.as_view()),
    path("analysis/performance", PerformanceView.as_view()),
    path("analysis/recommendations", RecommendationsView.as_view()),
]
