"""`/audit/events`: the trail, newest first."""

from typing import Any

from rest_framework.request import Request

from apps.audit.api.pages import SearchPagination
from apps.audit.api.serializers import AuditEventSerializer
from apps.audit.filters import AuditEventFilter
from apps.audit.models import AuditEvent
from apps.audit.selectors import actor_names
from apps.core.api import DetailView, ListView


class AuditEventListView(ListView):
    """The trail, newest first. A page reads a bounded part of it: it may be short, or empty, and still have a next."""

    queryset = AuditEvent.objects.all()
    serializer_class = AuditEventSerializer
    filterset_class = AuditEventFilter
    pagination_class = SearchPagination
    scopes = {"GET": "audit:read"}

    def known_parameters(self, request: Request) -> frozenset[str]:
        """Counting would read the whole trail."""
        return super().known_parameters(request) - {"count"}

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        """Names of the whole page in one query."""
        events = args[0] if args else []
        context = {**self.get_serializer_context(), "actor_names": actor_names(event.actor_id for event in events)}
        return AuditEventSerializer(*args, **{**kwargs, "context": context})


class AuditEventView(DetailView):
    """One event."""

    queryset = AuditEvent.objects.all()
    serializer_class = AuditEventSerializer
    content_tagged = True
    scopes = {"GET": "audit:read"}
