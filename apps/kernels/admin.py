"""Kernels, as far as their life cycle lets people touch them, and what they did to real runs."""

from typing import Any

from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter, RangeNumericFilter
from unfold.decorators import display

from apps.accounts.admin_steps import Step, StepAdmin
from apps.accounts.roles import Scope
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import link, link_to, number, short, size, state_column
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import FieldReport, Kernel

KERNEL_LABELS = {
    KernelState.UPLOADED: "info",
    KernelState.COMPILED: "info",
    KernelState.BENCHMARKING: "info",
    KernelState.VALIDATED: "success",
    KernelState.REJECTED: "danger",
    KernelState.DEPRECATED: "warning",
    KernelState.RETIRED: "warning",
    KernelState.QUARANTINED: "danger",
}
VERDICT_LABELS = {"FOSSILIZED": "success", "CULLED": "danger", "ROLLED_BACK": "danger", "CANCELLED": "warning"}

DEPRECATE = Step(
    title="Deprecate",
    promises=(
        "New runs no longer get the kernel.",
        "Runs that hold it keep it, and it can still be downloaded.",
        "Its bytes, its report and its outcomes stay.",
    ),
    done="deprecated",
    call=lambda kernel, actor, data: services.deprecate_kernel(kernel=kernel, reason=data["reason"], actor=actor),
)
QUARANTINE = Step(
    title="Quarantine",
    promises=(
        "The kernel is out of use at once: no run gets it, nobody can download it.",
        "A run that asks for its bytes after this treats the germination as refused and goes on.",
        "There is no way back to use but through retirement.",
    ),
    done="quarantined",
    call=lambda kernel, actor, data: services.quarantine_kernel(kernel=kernel, reason=data["reason"], actor=actor),
    is_destructive=True,
)


@admin.register(Kernel)
class KernelAdmin(StepAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type, page = "kernel", "dashboards:kernel"
    steps = {"deprecate": DEPRECATE, "quarantine": QUARANTINE}

    list_display = [
        "name",
        "state_label",
        "operator",
        "parameter_count",
        "stored_size",
        "digest_short",
        "usage_count",
        "created_at",
    ]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        "operator",
        "storage_tier",
        ("parameters", RangeNumericFilter),
        ("created_at", RangeDateTimeFilter),
    ]
    search_fields = ["name", "digest__startswith", "id__exact"]
    list_select_related = ["blueprint_version__blueprint"]
    fieldsets = [
        (None, {"fields": ["name", "state_label", "rejection", "version_link", "operator", "parameter_count"]}),
        ("Artefact", {"fields": ["digest", "stored_size", "storage_tier", "awaits_upload", "bindings", "compat"]}),
        ("Proof", {"fields": ["report", "metrics", "toolchain", "hardware"]}),
        ("Use", {"fields": ["usage_count", "last_used_at", "tags", "pinned_until", "legal_hold", "successor"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at", "retired_at", "purge_after"]}),
    ]

    state_label = state_column(KERNEL_LABELS)

    @display(description="version")
    def version_link(self, kernel: Kernel) -> str:
        return link(kernel.blueprint_version)

    @display(description="parameters", ordering="parameters")
    def parameter_count(self, kernel: Kernel) -> str:
        return number(kernel.parameters, ",d")

    @display(description="size", ordering="size")
    def stored_size(self, kernel: Kernel) -> str:
        return size(kernel.size)

    @display(description="digest", ordering="digest")
    def digest_short(self, kernel: Kernel) -> str:
        return short(kernel.digest)


@admin.register(FieldReport)
class FieldReportAdmin(ScopedAdmin):
    """What grafts did to runs: gain in nats per held-out sample, with its 95 % interval, against the rent."""

    read_scope = Scope.LIBRARY_READ

    list_display = [
        "created_at",
        "kernel_link",
        "verdict_label",
        "gain",
        "rent_paid",
        "task",
        "host",
        "site",
        "run_link",
    ]
    list_filter = ["verdict", "task", "host", ("contribution", RangeNumericFilter)]
    list_select_related = ["kernel"]
    search_fields = ["kernel__name", "run_id__exact", "site"]
    fieldsets = [
        (None, {"fields": ["kernel_link", "run_link", "seed_number", "task", "host", "site", "verdict_label"]}),
        (
            "Gain and cost",
            {
                "fields": [
                    *("gain", "contribution", "contribution_low", "contribution_high", "rent_paid"),
                    *("loss_before", "loss_after", "accuracy_difference", "mcnemar_p", "parameters", "train_flops"),
                ]
            },
        ),
        ("Row", {"fields": ["id", "created_at"]}),
    ]

    verdict_label = state_column(VERDICT_LABELS, "verdict")

    @display(description="kernel", ordering="kernel__name")
    def kernel_link(self, report: FieldReport) -> str:
        return link(report.kernel)

    @display(description="run")
    def run_link(self, report: FieldReport) -> str:
        return link_to("training.trainingrun", report.run_id, f"run …{str(report.run_id)[-6:]}")

    @display(description="gain (nats)", ordering="contribution")
    def gain(self, report: FieldReport) -> str:
        if report.contribution is None:
            return "not measured"
        low, high = number(report.contribution_low, "+.4f"), number(report.contribution_high, "+.4f")
        return f"{report.contribution:+.4f} ({low} to {high})"

    @display(description="rent (nats)", ordering="rent")
    def rent_paid(self, report: Any) -> str:
        return number(report.rent, ".4f")
