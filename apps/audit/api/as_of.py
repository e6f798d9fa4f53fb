"""``?as_of=``: an asset as its events tell it at a time. The views of upper apps inherit ``PastView``."""

import re
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, PolymorphicProxySerializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.models import AuditEvent
from apps.audit.projections import Past, archived_until, begins_before, state_of
from apps.audit.watched import Watched
from apps.core.api import DetailView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid, NotFound
from apps.core.schema import EsperSchema
from apps.core.serializers import JSONObject

PARAMETER = "as_of"
READS = frozenset({"GET", "HEAD"})
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?"
)
EXAMPLE = "such as 2026-01-31T12:00:00Z; in a URL, + is written %2B"


class LastEventSerializer(serializers.ModelSerializer[AuditEvent]):
    class Meta:
        model = AuditEvent
        fields = ("id", "type", "at")
        read_only_fields = fields


class PastSerializer(serializers.Serializer[dict[str, Any]]):
    """An asset at a time. ``state`` is empty when it did not exist any more; numbers that are not whole are text.

    ``event`` is the last one about it up to then; ``sealed`` says whether it has its place in the tree.
    """

    id = serializers.UUIDField(read_only=True)
    subject_type = serializers.CharField(read_only=True)
    as_of = serializers.DateTimeField(read_only=True)
    exists = serializers.BooleanField(read_only=True)
    state = JSONObject(read_only=True)
    event = LastEventSerializer(read_only=True)
    sealed = serializers.BooleanField(read_only=True)


class PastSchema(EsperSchema):
    """What ``as_of`` adds to the description of GET."""

    def get_override_parameters(self) -> list[Any]:
        if self.method not in READS:
            return []
        description = "how it was at this time (RFC 3339), told by the audit trail; not in the future"
        return [OpenApiParameter(PARAMETER, OpenApiTypes.DATETIME, description=description)]

    def get_response_serializers(self) -> Any:
        present: Any = super().get_response_serializers()
        if self.method not in READS:
            return present
        name = type(present).__name__.removesuffix("Serializer")
        return PolymorphicProxySerializer(f"{name}NowOrPast", [present, PastSerializer], resource_type_field_name=None)


class PastView(DetailView):
    """A detail that also shows its past, also that of an asset that is gone, to whoever may read the asset.

    Only for resources that all who have the scope may read: what stood in a row that is gone, and whose it was, no
    queryset can tell.
    """

    schema = PastSchema()

    @property
    def watch(self) -> Watched:
        """The declaration of the asset's model: its kind, and the columns that nobody is shown."""
        watch: Watched = self.get_queryset().model.audit
        return watch

    def known_parameters(self, request: Request) -> frozenset[str]:
        known = super().known_parameters(request)
        return known | {PARAMETER} if request.method in READS else known

    def subject_id(self) -> str:
        """The id of the asset in the path."""
        return str(self.kwargs["id"])

    # Without a docstring: the document describes GET by that of the view.
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        if PARAMETER not in request.query_params:
            return super().get(request, *args, **kwargs)
        as_of = parse_time(request.query_params.getlist(PARAMETER))
        data = PastSerializer(self._past(as_of)).data
        return self.read(data, content_etag(None, data))

    def _past(self, as_of: datetime) -> dict[str, Any]:
        """
        Raises:
            NotFound: nothing is recorded up to that time, or what is lies in the archive.
        """
        kind, key = self.watch.subject, self.subject_id()
        until = archived_until()
        if begins_before(key, until):
            raise NotFound(f"events of this {kind} from before {until:%Y-%m} are in the archive", code="archived")
        past = state_of(kind, key, as_of)
        if past is None:
            raise NotFound(f"nothing is recorded of this {kind} up to {as_of.isoformat()}")
        return {
            "id": key,
            "subject_type": kind,
            "as_of": as_of,
            "exists": past.exists,
            "state": self._shown(past),
            "event": past.event,
            "sealed": past.sealed,
        }

    def _shown(self, past: Past) -> dict[str, Any]:
        hidden = {*self.watch.secret, *self.watch.personal}
        return {name: value for name, value in sorted(past.state.items()) if name not in hidden}


def parse_time(given: list[str]) -> datetime:
    """The time that was asked for, in UTC.

    Raises:
        Invalid: it is given twice, malformed, without its zone, or in the future.
    """
    if len(given) != 1:
        raise _invalid("is given more than once", "repeated")
    text = given[0].upper()
    form = RFC_3339.fullmatch(text)
    if form is None:
        raise _invalid(f"is not an RFC 3339 time, {EXAMPLE}", "malformed")
    if form["zone"] is None:
        raise _invalid(f"lacks its zone (Z or +hh:mm), {EXAMPLE}", "zone")
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _invalid(f"is no time of the calendar, {EXAMPLE}", "malformed") from None
    if moment > timezone.now():
        raise _invalid("is in the future", "future")
    return moment


def _invalid(detail: str, code: str) -> Invalid:
    return Invalid(detail, pointer=f"/{PARAMETER}", code=code)
