"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("kernels", "0001_initial"),
    ]

    operations = [
        watch(
            "kernels_kernel",
            subject="kernel",
            columns=[
                "id",
                "workspace_id",
                "blueprint_version_id",
                "name",
                "bindings",
                "digest",
                "size",
                "state",
                "awaits_upload",
                "rejection",
                "operator",
                "parameters",
                "compat",
                "tags",
                "metrics",
                "report",
                "toolchain",
                "hardware",
                "storage_tier",
                "pinned_until",
                "legal_hold",
                "retired_at",
                "purge_after",
                "successor_id",
            ],
        ),
        watch(
            "kernels_fieldreport",
            subject="kernel",
            columns=[
                "id",
                "kernel_id",
                "run_id",
                "seed_number",
                "task",
                "host",
                "site",
                "verdict",
                "parameters",
                "train_flops",
                "loss_before",
                "loss_after",
                "contribution",
                "contribution_low",
                "contribution_high",
                "rent",
                "accuracy_difference",
                "mcnemar_p",
            ],
            of="kernel_id",
        ),
    ]
