"""Runs that a client trains in a loop of its own: `/runs/{id}/heartbeat`, `/events`, `/finish`.

The client takes the run with a heartbeat, which gives it a fencing token; every write presents it. A client that was
away too long finds its token out of date (409 `lease_lost`) and must stop.
"""

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.actors import actor_of
from apps.core.idempotency import idempotent
from apps.training import services
from apps.training.api.requests import EventBatch, Finish, Heartbeat, LeaseSerializer, StoredEvents
from apps.training.api.serializers import RunSerializer
from apps.training.api.views import RunResource


class ExternalView(RunResource):
    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]


class HeartbeatView(ExternalView):
    @extend_schema(request=Heartbeat, responses=LeaseSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Take the run, or show that you are alive. Send one every few seconds: `expires_at` says until when."""
        given = self.parse(Heartbeat)
        lease = services.external_heartbeat(
            run=self.get_object(),
            holder=given.get("holder", ""),
            fencing_token=given.get("fencing_token"),
            actor=actor_of(request),
        )
        return Response(LeaseSerializer(lease).data)


class EventsView(ExternalView):
    @extend_schema(request=EventBatch, responses=StoredEvents)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Store epochs and decisions in their order, all or none. Those that are stored already are ignored."""
        given = self.parse(EventBatch)
        last = services.external_events(run=self.get_object(), actor=actor_of(request), **given)
        return Response({"last_sequence": last})


class FinishView(ExternalView):
    @extend_schema(request=Finish, responses=RunSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """End the run, or hand it back paused."""
        given = self.parse(Finish)
        return self.answer(services.external_finish(run=self.get_object(), actor=actor_of(request), **given))
