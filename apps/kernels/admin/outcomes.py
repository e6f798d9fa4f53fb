"""What kernels did to real runs."""

from typing import Any

from django.contrib import admin
from unfold.contrib.filters.admin import RangeNumericFilter
from unfold.decorators import display

from apps.accounts.roles import Scope
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import link, link_to, number, state_column
from apps.kernels.models import FieldReport

VERDICT_LABELS = {"FOSSILIZED": "success", "CULLED": "danger", "ROLLED_BACK": "danger", "CANCELLED": "warning"}


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
