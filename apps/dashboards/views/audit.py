"""The audit trail: what happened, newest first; one event; and its proof."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from apps.accounts.roles import Scope
from apps.audit.filters import ACTORS
from apps.audit.models import AuditEvent
from apps.audit.search import Position
from apps.audit.state import trail_state
from apps.core.ids import parse_id
from apps.dashboards.access import is_fragment, page
from apps.dashboards.selectors import trail
from apps.dashboards.selectors.proof import Verdict, verify
from apps.dashboards.trail_forms import TrailFilters


@page(Scope.AUDIT_READ)
def listing(request: HttpRequest) -> HttpResponse:
    """Filters are those of the API; ``?after=`` is where the page before ended."""
    filters = TrailFilters(request)
    after = _position(request.GET.get("after", ""))
    found = trail.page(filters.search, after=after) if filters.search is not None else None
    context = {
        "page": found,
        "filters": filters,
        "is_first": after is None,
        "next": _text(found.after) if found and found.after else "",
        "state": trail_state(),
        "actors": ACTORS,
    }
    return render(request, "audit/list.html", context)


@page(Scope.AUDIT_READ)
def event(request: HttpRequest, event_id: UUID) -> HttpResponse:
    return _event(request, event_id, verdict=None)


@page(Scope.AUDIT_READ)
def proof(request: HttpRequest, event_id: UUID) -> HttpResponse:
    """Verify the event now: the verdict alone for htmx, else the page with it."""
    found = AuditEvent.objects.filter(pk=event_id).first()
    if found is None:
        raise Http404
    verdict = verify(found)
    if is_fragment(request):
        return render(request, "audit/_proof.html", {"verdict": verdict})
    return _event(request, event_id, verdict=verdict)


def _event(request: HttpRequest, event_id: UUID, *, verdict: Verdict | None) -> HttpResponse:
    portrait = trail.portrait(event_id)
    if portrait is None:
        raise Http404
    context = {
        "portrait": portrait,
        "line": portrait.line,
        "event": portrait.line.event,
        "verdict": verdict,
        "request_query": _of_request(portrait.line.event),
    }
    return render(request, "audit/event.html", context)


def _of_request(event: AuditEvent) -> str:
    """Requests have no index: an hour around the event is searched for the others."""
    hour = timedelta(hours=1)
    since, until = (f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}" for moment in (event.at - hour, event.at + hour))
    query = urlencode({"request_id": event.request_id, "since": since, "until": until})
    return f"{reverse('dashboards:audit')}?{query}"


def _text(position: Position) -> str:
    return f"{position.at.astimezone(UTC).isoformat()}~{position.id}"


def _position(text: str) -> Position | None:
    """None where the text is no place in the trail: the walk then begins at its newest end."""
    moment, _, key = text.partition("~")
    found = parse_id(key)
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return Position(at, found) if found is not None and at.tzinfo is not None else None
