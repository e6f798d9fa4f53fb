"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("blueprints", "0001_initial"),
    ]

    operations = [
        watch(
            "blueprints_blueprint", subject="blueprint", columns=["id", "workspace_id", "name", "title", "card", "tags"]
        ),
        watch(
            "blueprints_blueprintversion",
            subject="blueprint_version",
            columns=["id", "blueprint_id", "number", "spec", "digest", "operator", "parameters", "state"],
        ),
    ]
