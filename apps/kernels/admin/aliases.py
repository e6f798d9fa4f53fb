"""Aliases: what each name of a blueprint points at, and pointed at. Kernels have the button that sets one."""

from typing import Any

from django.contrib import admin
from django.db.models import Max, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from apps.accounts.admin_steps import Step, StepAdmin
from apps.accounts.roles import Scope
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import EMPTY, chip, link, time_column
from apps.kernels import services
from apps.kernels.admin.kernels import KERNEL_LABELS
from apps.kernels.models import AliasPeriod, KernelAlias

PROTECT = Step(
    title="Protect",
    promises=(
        "The alias moves only with a reason, and only to VALIDATED kernels.",
        "What it points at stays as it is.",
    ),
    done="is protected",
    call=lambda alias, actor, data: services.protect_alias(alias=alias, reason=data["reason"], actor=actor),
    offered=lambda alias: not alias.is_protected,
    icon="lock",
)
UNPROTECT = Step(
    title="Lift the protection",
    promises=(
        "The alias moves without a reason, also to a DEPRECATED kernel.",
        "What it points at stays as it is, and is still never retired while it does.",
    ),
    done="is not protected any more",
    call=lambda alias, actor, data: services.unprotect_alias(alias=alias, reason=data["reason"], actor=actor),
    offered=lambda alias: alias.is_protected,
    icon="lock_open",
)
REMOVE = Step(
    title="Take away",
    promises=(
        "Clients that ask for this name are told that there is none.",
        "The kernel stays as it is; nothing but other protections keeps it from retirement any more.",
        "What the alias pointed at, and when, stays in its history. It can be set again.",
    ),
    done="points at nothing",
    call=lambda alias, actor, data: services.remove_alias(alias=alias, reason=data["reason"], actor=actor),
    offered=lambda alias: alias.kernel_id is not None,
    icon="label_off",
    is_destructive=True,
)


@admin.register(KernelAlias)
class KernelAliasAdmin(StepAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type = "alias"
    steps = {"protect": PROTECT, "unprotect": UNPROTECT, "remove": REMOVE}

    list_display = ["alias", "kernel_link", "kernel_state", "is_protected", "since"]
    list_filter = ["name", "is_protected", ("kernel", admin.EmptyFieldListFilter)]
    list_select_related = ["blueprint", "kernel"]
    search_fields = ["blueprint__name", "name", "kernel__name", "id__exact"]
    ordering = ["blueprint__name", "name"]
    fieldsets = [
        (None, {"fields": ["blueprint_link", "name", "kernel_link", "kernel_state", "is_protected", "since"]}),
        ("Row", {"fields": ["id", "created_at", "updated_at"]}),
    ]

    since = staticmethod(time_column("since", "since"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).annotate(since=Max("periods__started_at"))

    @display(description="alias", ordering="blueprint__name")
    def alias(self, alias: KernelAlias) -> str:
        return str(alias)

    @display(description="blueprint")
    def blueprint_link(self, alias: KernelAlias) -> str:
        return link(alias.blueprint)

    @display(description="points at", ordering="kernel__name")
    def kernel_link(self, alias: KernelAlias) -> str:
        return link(alias.kernel)

    @display(description="state of the kernel", ordering="kernel__state")
    def kernel_state(self, alias: KernelAlias) -> str:
        return EMPTY if alias.kernel is None else chip(alias.kernel.state, KERNEL_LABELS.get(alias.kernel.state, ""))


@admin.register(AliasPeriod)
class AliasPeriodAdmin(ScopedAdmin):
    """From when to when an alias pointed at a kernel."""

    read_scope = Scope.LIBRARY_READ

    list_display = ["alias_link", "kernel_link", "started_at", "ended_at"]
    list_filter = ["alias__name", ("ended_at", admin.EmptyFieldListFilter)]
    list_select_related = ["alias__blueprint", "kernel"]
    search_fields = ["alias__blueprint__name", "alias__name", "kernel__name"]
    fields = ["alias_link", "kernel_link", "started_at", "ended_at", "id"]

    @display(description="alias", ordering="alias__name")
    def alias_link(self, period: AliasPeriod) -> str:
        return link(period.alias)

    @display(description="pointed at", ordering="kernel__name")
    def kernel_link(self, period: AliasPeriod) -> str:
        return link(period.kernel)
