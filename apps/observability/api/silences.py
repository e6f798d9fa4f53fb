"""`/silences`: of which alerts nobody is notified, for a time."""

from datetime import timedelta
from uuid import UUID

from django.db.models import QuerySet
from django.urls import path
from django.utils import timezone
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.core.actors import actor_of
from apps.core.api import DetailView, ListView
from apps.core.filters import any_of
from apps.core.idempotency import idempotent
from apps.kernels.api.serializers import Reason
from apps.observability.api.alert_forms import (
    SILENCE_STATES,
    NewSilence,
    SilenceDetailSerializer,
    SilenceSerializer,
    tidied,
)
from apps.observability.models import Alert, Silence
from apps.observability.selectors import alerts as selectors
from apps.observability.services.silences import create_silence, end_silence


class SilenceFilter(filters.FilterSet):
    state = any_of(SILENCE_STATES, method="in_state")

    def in_state(self, queryset: QuerySet[Silence], name: str, values: list[str]) -> QuerySet[Silence]:
        return selectors.silences_in(queryset, values, timezone.now()) if values else queryset

    class Meta:
        model = Silence
        fields: list[str] = []


class SilenceListView(ListView):
    """Silences, newest first; those that are over stay."""

    queryset = Silence.objects.all()
    serializer_class = SilenceSerializer
    filterset_class = SilenceFilter
    scopes = {"GET": "runs:read", "POST": "runs:write"}

    @extend_schema(request=NewSilence, responses={201: SilenceSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Notify nobody of alerts whose labels all matchers admit. The alerts go on, and are told when it is over."""
        given = tidied(self.parse(NewSilence))
        seconds = given.pop("duration_seconds", None)
        duration = timedelta(seconds=seconds) if seconds is not None else None
        silence = create_silence(duration=duration, actor=actor_of(request), **given)
        location = f"/api/v1/silences/{silence.pk}"
        return self.show(silence, SilenceSerializer, code=201, location=location)


class OfSilence(DetailView):
    queryset = Silence.objects.all()
    serializer_class = SilenceDetailSerializer
    content_tagged = True
    _matched: list[Alert] | None = None

    def matched_by(self, silence: Silence) -> list[Alert]:
        """Open alerts that the silence is about, looked up once."""
        if self._matched is None:
            self._matched = selectors.matched_by(silence.matchers)
        return self._matched


class SilenceView(PastView, OfSilence):
    """One silence, and the open alerts that it is about."""

    scopes = {"GET": "runs:read"}


class EndSilenceView(OfSilence):
    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]
    conditional = False

    @extend_schema(request=Reason, responses=SilenceDetailSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """End a silence now, or call off one that has not begun."""
        given = self.parse(Reason)
        silence = end_silence(silence=self.get_object(), actor=actor_of(request), **given)
        return self.show(silence, SilenceDetailSerializer)


urlpatterns = [
    path("silences", SilenceListView.as_view()),
    path("silences/<uuid:id>", SilenceView.as_view()),
    path("silences/<uuid:id>/end", EndSilenceView.as_view()),
]
