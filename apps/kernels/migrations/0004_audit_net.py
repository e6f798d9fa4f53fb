"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("kernels", "0003_life_cycle"),
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
                "pipeline",
                "compile_ms",
                "operator",
                "parameters",
                "compat",
                "tags",
                "metrics",
                "report",
                "toolchain",
                "hardware",
                "risk",
                "risk_confidence",
                "storage_tier",
                "pinned_until",
                "legal_hold",
                "retired_at",
                "purge_after",
                "successor_id",
            ],
        ),
        watch(
            "kernels_kernelvariant",
            subject="kernel",
            columns=["id", "kernel_id", "memory_format", "dtype", "digest", "size", "report"],
            of="kernel_id",
        ),
        watch(
            "kernels_kernelalias",
            subject="alias",
            columns=["id", "blueprint_id", "name", "kernel_id", "is_protected"],
        ),
        watch(
            "kernels_aliasperiod",
            subject="alias",
            columns=["id", "alias_id", "kernel_id", "started_at", "ended_at"],
            of="alias_id",
        ),
        watch(
            "kernels_kernellineage",
            subject="kernel",
            columns=["id", "kind", "weight", "run_id", "child_id", "parent_id"],
            of="child_id",
        ),
        watch(
            "kernels_tagkey",
            subject="tag_key",
            columns=["id", "workspace_id", "name", "type", "choices", "description"],
        ),
        watch(
            "kernels_retentionpolicy",
            subject="retention_policy",
            columns=[
                "id",
                "workspace_id",
                "name",
                "description",
                "is_enabled",
                "match",
                "unused_for_days",
                "older_than_days",
                "metric",
                "metric_below",
                "risk_above",
                "keep_latest",
                "keep_best",
                "storage_cap_bytes",
                "max_share",
                "max_bytes",
                "grace_days",
                "purge_after_days",
            ],
        ),
        watch(
            "kernels_retentionplan",
            subject="retention_plan",
            columns=[
                "id",
                "workspace_id",
                "policy_id",
                "state",
                "item_count",
                "byte_count",
                "kept",
                "outcome",
                "expires_at",
            ],
        ),
        watch(
            "kernels_retentionitem",
            subject="retention_plan",
            columns=["id", "plan_id", "kernel_id", "reason", "bytes", "outcome", "detail"],
            of="plan_id",
        ),
        migrations.RunSQL(
            # How rare a tag is decides how a search is run: 100 sampled rows do not tell of one in a hundred.
            "ALTER TABLE kernels_kernel ALTER COLUMN tags SET STATISTICS 1000",
            "ALTER TABLE kernels_kernel ALTER COLUMN tags SET STATISTICS -1",
        ),
    ]
