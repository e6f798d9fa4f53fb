"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("blueprints", "0003_lineage"),
    ]

    operations = [
        watch(
            "blueprints_versionlineage",
            subject="blueprint_version",
            columns=["id", "kind", "weight", "run_id", "child_id", "parent_id"],
            of="child_id",
        ),
    ]
