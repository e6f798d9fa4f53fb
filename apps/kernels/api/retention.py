"""`/retention/policies`, `/retention/plans`, and what retires, restores, moves and explains one kernel."""

from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.core.actors import actor_of
from apps.core.api import ApiView, DetailView, ListView
from apps.core.concurrency import content_etag
from apps.core.errors import Invalid
from apps.core.idempotency import idempotent
from apps.core.ids import parse_id
from apps.kernels import selectors, services
from apps.kernels.api.retention_forms import (
    Because,
    NewPlan,
    NewPolicy,
    PlanItemSerializer,
    PlanSerializer,
    PolicyChange,
    PolicySerializer,
    RetentionExplanation,
    Retirement,
    TierChange,
)
from apps.kernels.api.serializers import KernelSerializer, Reason
from apps.kernels.filters import PlanFilter
from apps.kernels.lifecycle import PlanState
from apps.kernels.models import Kernel, RetentionItem, RetentionPlan, RetentionPolicy
from apps.kernels.retention.explaining import explain


class PolicyListView(ListView):
    """Policies of retention, newest first."""

    queryset = RetentionPolicy.objects.all()
    serializer_class = PolicySerializer
    sorts = ("-id", "id", "name", "-name")
    scopes = {"GET": "library:read", "POST": "library:write"}

    @extend_schema(request=NewPolicy, responses={201: PolicySerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Create a policy. Nothing is retired by it: it makes plans, which people approve and apply."""
        policy = services.create_policy(actor=actor_of(request), **self.parse(NewPolicy))
        return self.show(policy, PolicySerializer, code=201, location=f"/api/v1/retention/policies/{policy.pk}")


class PolicyView(PastView):
    """One policy."""

    queryset = RetentionPolicy.objects.all()
    serializer_class = PolicySerializer
    scopes = {"GET": "library:read", "PATCH": "library:write"}

    @extend_schema(request=PolicyChange, responses=PolicySerializer)
    @transaction.atomic
    def patch(self, request: Request, id: UUID) -> Response:
        """Change a policy. Plans that are made already are applied by what it says then."""
        given = self.parse(PolicyChange)
        policy = services.update_policy(policy=self.matched(), actor=actor_of(request), **given)
        return self.show(policy, PolicySerializer)


class PlanListView(ListView):
    """Plans, newest first."""

    serializer_class = PlanSerializer
    filterset_class = PlanFilter
    scopes = {"GET": "library:read", "POST": "library:write"}

    def get_queryset(self) -> QuerySet[RetentionPlan]:
        return selectors.retention_plans()

    @extend_schema(request=NewPlan, responses={201: PlanSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Write down what a policy would retire now. No kernel is touched."""
        given = self.parse(NewPlan)
        plan = services.make_plan(policy=_policy(given.pop("policy")), actor=actor_of(request), **given)
        return self.show(plan, PlanSerializer, code=201, location=f"/api/v1/retention/plans/{plan.pk}")


def _policy(reference: str) -> RetentionPolicy:
    key = parse_id(reference)
    known = RetentionPolicy.objects.filter(pk=key) if key else RetentionPolicy.objects.filter(name=reference)
    policy = known.first()
    if policy is None:
        raise Invalid(f"there is no policy {reference!r}", pointer="/policy", code="not_found")
    return policy


class PlanView(PastView):
    """One plan: how much it would retire, and what kept the rest."""

    serializer_class = PlanSerializer
    scopes = {"GET": "library:read"}

    def get_queryset(self) -> QuerySet[RetentionPlan]:
        return selectors.retention_plans()


class PlanItemsView(ListView):
    """The kernels of a plan, with what became of each."""

    parent = RetentionPlan
    serializer_class = PlanItemSerializer
    scopes = {"GET": "library:read"}

    def get_queryset(self) -> QuerySet[RetentionItem]:
        return RetentionItem.objects.select_related("kernel").filter(plan_id=self.kwargs.get("id"))


class PlanStep(DetailView):
    """One step of a plan."""

    serializer_class = PlanSerializer
    scopes = {"POST": "library:write"}
    http_method_names = ["post"]
    conditional = False
    step: ClassVar[Callable[..., RetentionPlan]]

    def get_queryset(self) -> QuerySet[RetentionPlan]:
        return selectors.retention_plans()

    @extend_schema(request=Because, responses=PlanSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        plan = type(self).step(plan=self.get_object(), actor=actor_of(request), **self.parse(Because))
        return self.show(plan, PlanSerializer)


class ApproveView(PlanStep):
    """Let the plan be applied."""

    step = staticmethod(services.approve_plan)


class DiscardView(PlanStep):
    """Give up the plan, or what is left of it."""

    step = staticmethod(services.discard_plan)


class ApplyView(DetailView):
    """Retire what the plan names, where nothing has changed since and nothing protects it."""

    serializer_class = PlanSerializer
    scopes = {"POST": "library:write"}
    http_method_names = ["post"]
    conditional = False

    def get_queryset(self) -> QuerySet[RetentionPlan]:
        return selectors.retention_plans()

    @extend_schema(request=None, responses={200: PlanSerializer, 202: PlanSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """202 while a worker goes on with the rest of a large plan. An applied plan is answered again."""
        plan = services.apply_plan(plan=self.get_object(), actor=actor_of(request))
        return self.show(plan, PlanSerializer, code=200 if plan.state == PlanState.APPLIED else 202)


class OfKernel(DetailView):
    """Something that is done to a kernel."""

    serializer_class = KernelSerializer
    content_tagged = True
    scopes = {"POST": "library:write"}
    http_method_names = ["post"]
    conditional = False

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()


class RetireView(OfKernel):
    @extend_schema(request=Retirement, responses=KernelSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Take the kernel out of the library, or out of quarantine. It can be restored until it is purged, if it was
        ever VALIDATED."""
        given = self.parse(Retirement)
        successor = _successor(given.pop("successor", None))
        kernel = services.retire_kernel(kernel=self.get_object(), successor=successor, actor=actor_of(request), **given)
        return self.show(kernel, KernelSerializer)


def _successor(reference: str | None) -> Kernel | None:
    if reference is None:
        return None
    key = parse_id(reference)
    kernel = Kernel.objects.filter(pk=key).first() if key else None
    if kernel is None:
        raise Invalid("there is no such kernel", pointer="/successor", code="not_found")
    return kernel


class RestoreView(OfKernel):
    @extend_schema(request=Reason, responses=KernelSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Bring a retired kernel back, its bytes verified, from the object storage if they lie there."""
        kernel = services.restore_kernel(kernel=self.get_object(), actor=actor_of(request), **self.parse(Reason))
        return self.show(kernel, KernelSerializer)


class TierView(OfKernel):
    @extend_schema(request=TierChange, responses=KernelSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Move the bytes: hot and warm lie in the database, cold and archive in the object storage alone.

        An archived kernel cannot be read until it is moved to another tier.
        """
        kernel = services.change_tier(kernel=self.get_object(), actor=actor_of(request), **self.parse(TierChange))
        return self.show(kernel, KernelSerializer)


class ExplainView(ApiView):
    """Every rule that keeps or condemns the kernel, and when it would go."""

    serializer_class = RetentionExplanation
    scopes = {"GET": "library:read"}
    conditional = True

    def get_queryset(self) -> QuerySet[Kernel]:
        return selectors.kernels()

    def get(self, request: Request, id: UUID) -> Response:
        data: Any = RetentionExplanation(explain(self.get_object(), timezone.now())).data
        return self.read(data, content_etag(None, data))
