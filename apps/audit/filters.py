"""What the trail can be asked for."""

from django_filters import rest_framework as filters

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.lifecycle import ReportKind, ReportState
from apps.audit.models import AuditEvent, AuditReport
from apps.core.filters import any_of


class AuditEventFilter(filters.FilterSet):
    type = any_of(EVENT_TYPES)
    subject_type = any_of(sorted({kind.subject for kind in EVENT_TYPES.values()}))
    subject_id = filters.CharFilter(max_length=64)
    actor_id = filters.UUIDFilter()
    request_id = filters.CharFilter(max_length=64)
    outcome = filters.CharFilter(max_length=16)
    since = filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte", label="at or after")
    until = filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt", label="before")

    class Meta:
        model = AuditEvent
        fields: list[str] = []


class ReportFilter(filters.FilterSet):
    kind = any_of(ReportKind)
    state = any_of(ReportState)

    class Meta:
        model = AuditReport
        fields: list[str] = []
