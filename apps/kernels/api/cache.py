"""`/cache`: what the tiers did and how they are; plans to move bytes between them, made first and then carried out."""

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.actors import actor_of
from apps.core.api import ApiView, DetailView, ListView
from apps.core.errors import Invalid
from apps.core.idempotency import idempotent
from apps.core.operations import OperationSerializer, accepted
from apps.kernels import selectors, services
from apps.kernels.api.cache_forms import (
    CachePlanDetail,
    CachePlanSerializer,
    CacheStatsSerializer,
    NewCachePlan,
    StatsQuestion,
    told,
)
from apps.kernels.api.serializers import Reason
from apps.kernels.cache.reporting import SCOPES, WINDOWS, window_of
from apps.kernels.filters import CachePlanFilter
from apps.kernels.models import CachePlan, CachePlanKind
from apps.kernels.operations import operation_of


class StatsView(ApiView):
    serializer_class = CacheStatsSerializer
    scopes = {"GET": "library:read"}
    query_parameters = frozenset({"scope", "window"})

    @extend_schema(
        responses=CacheStatsSerializer,
        parameters=[
            OpenApiParameter("scope", str, enum=SCOPES, default="fleet", description="all processes, or this one"),
            OpenApiParameter(
                "window",
                str,
                enum=WINDOWS,
                description="1h by default; a process knows only `total`: since it started",
            ),
        ],
    )
    def get(self, request: Request) -> Response:
        """What each tier did in a window, by size class, and how the cache is now.

        503 when the broker, which has the fleet's counts, does not answer: `scope=process` then still does.
        """
        asked = self.parse(StatsQuestion, request.query_params.dict())
        return Response(told(asked["scope"], window_of(asked["scope"], asked.get("window"))))


class OptimiseView(ApiView):
    content_tagged = True
    scopes = {"POST": "library:write"}

    @extend_schema(
        request=NewCachePlan,
        responses={200: OperationSerializer, 201: CachePlanDetail, 202: OperationSerializer},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Plan what the cache would move and why (201), or let a worker carry a plan out (202).

        Without members it only plans. 200: the plan was carried out before.
        """
        given = self.parse(NewCachePlan)
        because = {"actor": actor_of(request), "reason": given.get("reason", "")}
        if "plan" in given:
            return _begun(services.apply_cache_plan(plan=_plan(given["plan"]), **because))
        with transaction.atomic():
            plan = services.plan_cache(kind=given.get("kind", CachePlanKind.OPTIMISE), **because)
            if not given.get("dry_run", True):
                return _begun(services.apply_cache_plan(plan=plan, **because))
        return self.show(plan, CachePlanDetail, code=201, location=f"/api/v1/cache/plans/{plan.pk}")


def _plan(plan_id: UUID) -> CachePlan:
    plan = CachePlan.objects.filter(pk=plan_id).first()
    if plan is None:
        raise Invalid("there is no such plan", pointer="/plan", code="not_found")
    return plan


def _begun(plan: CachePlan) -> Response:
    return accepted(operation_of(plan.pk))


class PlanListView(ListView):
    """Plans, newest first, without their moves."""

    serializer_class = CachePlanSerializer
    filterset_class = CachePlanFilter
    scopes = {"GET": "library:read"}

    def get_queryset(self) -> QuerySet[CachePlan]:
        return selectors.cache_plans()


class OfPlan(DetailView):
    """One plan, or something that is done to it."""

    serializer_class = CachePlanDetail
    content_tagged = True  # its progress does not count as a new version
    queryset = CachePlan.objects.all()


class PlanView(OfPlan):
    """One plan: each move with its reason, what the plan was made from, and what came of it."""

    scopes = {"GET": "library:read"}


class ApplyView(OfPlan):
    scopes = {"POST": "library:write"}
    http_method_names = ["post"]
    conditional = False

    @extend_schema(request=Reason, responses={200: OperationSerializer, 202: OperationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Let a worker make the moves. 200: it was carried out before."""
        given = self.parse(Reason)
        return _begun(services.apply_cache_plan(plan=self.get_object(), actor=actor_of(request), **given))


class CancelView(OfPlan):
    scopes = {"POST": "library:write"}
    http_method_names = ["post"]
    conditional = False

    @extend_schema(request=Reason, responses=CachePlanDetail)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Give the plan up. What it has moved already stays moved."""
        given = self.parse(Reason)
        plan = services.cancel_cache_plan(plan=self.get_object(), actor=actor_of(request), **given)
        return self.show(plan, CachePlanDetail)
