"""`/healthz` (is the process alive), `/readyz` (can it work) and `/metrics` (Prometheus).

The last two tell about the inside: they answer to a token with `runs:read` or to a direct call from an allow-listed
network (ESPER_METRICS_NETWORKS). A call through a proxy is not direct, whatever the address it comes from.
"""

import ipaddress
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from drf_spectacular.utils import extend_schema
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core import process_metrics
from apps.core.api import ApiView
from apps.core.collectors import read_collectors
from apps.core.errors import FieldError
from apps.core.permissions import HasScope
from apps.core.problems import Problem
from apps.core.readiness import CACHE_SECONDS, readiness

FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_VIA")


class NetworkOrScope(HasScope):
    """A direct call from an allow-listed network needs no token."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return is_local(request) or super().has_permission(request, view)


def is_local(request: Any) -> bool:
    if any(request.META.get(header) for header in FORWARDED):
        return False
    try:
        address = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network) for network in settings.METRICS_ALLOWED_NETWORKS)


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Liveness: answers as long as the process serves. Asks nobody else, so that a dead database restarts no web."""
    return JsonResponse({"status": "ok"})


class ReadyView(ApiView):
    """Everything that a run needs answers; otherwise 503, naming each part that does not."""

    permission_classes = (NetworkOrScope,)
    throttle_classes = ()
    scopes = {"GET": "runs:read"}

    @extend_schema(exclude=True)
    def get(self, request: Request) -> Response | HttpResponse:
        wrong = readiness.wrong()
        if not wrong:
            return Response({"status": "ready"})
        return Problem(
            status=503,
            code="not_ready",
            detail="; ".join(f"{name}: {what}" for name, what in wrong.items()),
            errors=tuple(FieldError(f"/{name}", "not_ready", what) for name, what in wrong.items()),
            headers={"Retry-After": str(int(CACHE_SECONDS))},
        ).response()


class EveryCollector:
    """What the processes of this host count, and what the apps registered: read once, not once a process."""

    def collect(self) -> Iterable[Metric]:
        yield from process_metrics.counted()
        yield from read_collectors()


class MetricsView(ApiView):
    permission_classes = (NetworkOrScope,)
    throttle_classes = ()
    scopes = {"GET": "runs:read"}

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return HttpResponse(encode(EveryCollector()), content_type=content_type)
