"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("checkpoints", "0001_initial"),
    ]

    operations = [
        watch(
            "checkpoints_checkpoint",
            subject="checkpoint",
            columns=[
                "id",
                "workspace_id",
                "run_id",
                "epoch",
                "step",
                "fencing_token",
                "state",
                "name",
                "format",
                "digest",
                "size",
                "location",
                "pinned",
            ],
        ),
    ]
