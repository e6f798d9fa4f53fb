"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("observability", "0001_initial"),
    ]

    operations = [
        watch(
            "observability_alertrule",
            subject="alert_rule",
            columns=[
                "id",
                "workspace_id",
                "name",
                "description",
                "kind",
                "metric",
                "matchers",
                "parameters",
                "for_seconds",
                "keep_firing_seconds",
                "severity",
                "labels",
                "summary",
                "remedy",
                "inhibited_by",
                "enabled",
                "shipped",
            ],
        ),
        watch(
            "observability_alert",
            subject="alert",
            columns=[
                "id",
                "workspace_id",
                "rule_id",
                "rule_name",
                "fingerprint",
                "state",
                "severity",
                "metric",
                "series_id",
                "run_id",
                "labels",
                "summary",
                "remedy",
                "threshold",
                "evidence",
                "started_at",
                "fired_at",
                "resolved_at",
                "acknowledged_at",
                "acknowledged_by_id",
                "note",
            ],
        ),
        watch(
            "observability_silence",
            subject="silence",
            columns=[
                "id",
                "workspace_id",
                "matchers",
                "starts_at",
                "ends_at",
                "comment",
                "created_by_id",
            ],
        ),
        watch(
            "observability_alertroute",
            subject="alert_route",
            columns=[
                "id",
                "workspace_id",
                "name",
                "channel",
                "target",
                "secret",
                "matchers",
                "group_by",
                "group_wait_seconds",
                "group_interval_seconds",
                "repeat_interval_seconds",
                "send_resolved",
                "enabled",
            ],
        ),
    ]
