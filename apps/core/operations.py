"""`/operations/{id}`: long work that a request began (202), in one shape whatever row stands behind it.

An app whose requests begin such work registers where it is found, as a source:

    registry.operations["cache_plans"] = CachePlans()
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.actors import Actor, actor_of
from apps.core.api import ApiView
from apps.core.concurrency import content_etag
from apps.core.lifecycle import choices
from apps.core.permissions import ANY, scopes_of
from apps.core.registry import registry
from apps.core.serializers import JSONObject

POLL_SECONDS = 1


class OperationState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATES = choices(OperationState)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """``kind`` says what is done ("cache.warm"), ``subject`` is the address of what it is done to."""

    id: UUID
    kind: str
    state: OperationState
    done: int
    """Steps of ``total`` that were tried."""
    total: int
    subject: str
    created_at: datetime
    updated_at: datetime
    result: Mapping[str, Any] | None = None
    """What came of it, once it has succeeded."""
    problem: str | None = None
    """Why it failed."""

    @property
    def is_over(self) -> bool:
        return self.state not in {OperationState.PENDING, OperationState.RUNNING}

    @property
    def address(self) -> str:
        return f"/api/v1/operations/{self.id}"


class OperationSource(Protocol):
    """Where the operations of one kind are found, and which scopes it takes to see and to cancel them."""

    read_scope: str
    write_scope: str

    def find(self, id: UUID) -> Operation | None:
        """None: it is not one of these."""

    def cancel(self, id: UUID, *, actor: Actor) -> Operation:
        """What is done stays done. Cancelled already: it is answered again. Raises Conflict: it is over."""


class ProgressSerializer(serializers.Serializer[Operation]):
    """Steps that were tried, and how many there are."""

    done = serializers.IntegerField(min_value=0)
    total = serializers.IntegerField(min_value=0)


class OperationSerializer(serializers.Serializer[Operation]):
    """Long work that a request began."""

    id = serializers.UUIDField()
    kind = serializers.CharField(help_text="what is done, e.g. cache.optimise")
    state = serializers.ChoiceField(choices=STATES)
    progress = ProgressSerializer(source="*")
    result = JSONObject(allow_null=True, help_text="what came of it; null until it has succeeded")
    problem = serializers.CharField(allow_null=True, help_text="why it failed; null unless it did")
    subject = serializers.CharField(help_text="the address of what it is done to")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


def accepted(operation: Operation) -> Response:
    """202 with the operation that was begun; 200 when it is over already."""
    data = OperationSerializer(operation).data
    return Response(data, status=200 if operation.is_over else 202, headers={"Location": operation.address})


class OperationView(ApiView):
    serializer_class = OperationSerializer
    scopes = {"GET": ANY, "DELETE": ANY}
    conditional = True

    @extend_schema(responses=OperationSerializer)
    def get(self, request: Request, id: UUID) -> Response:
        """How far the work has come; while it is not over, ``Retry-After`` says when to look again.

        What its subject needs for reading is needed too: `library:read` for plans of the cache.
        """
        source, operation = _found(id)
        self._require(source.read_scope)
        data = OperationSerializer(operation).data
        response = self.read(data, content_etag(None, data))
        if not operation.is_over:
            response["Retry-After"] = str(POLL_SECONDS)
        return response

    @extend_schema(responses={200: OperationSerializer})
    def delete(self, request: Request, id: UUID) -> Response:
        """Cancel the work: the step that is being made is ended, and what is done stays done. 409 when it is over.

        What its subject needs for changes is needed too: `library:write` for plans of the cache.
        """
        source, _ = _found(id)
        self._require(source.write_scope)
        return Response(OperationSerializer(source.cancel(id, actor=actor_of(request))).data)

    def _require(self, scope: str) -> None:
        """Raises PermissionDenied."""
        if scope not in scopes_of(self.request):
            self.permission_denied(self.request, message=f"this needs the scope {scope}")


def _found(id: UUID) -> tuple[OperationSource, Operation]:
    """Raises Http404."""
    for source in registry.operations.values():
        operation = source.find(id)
        if operation is not None:
            return source, operation
    raise Http404
