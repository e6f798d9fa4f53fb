"""What the net of the audit trail watches here: see ``apps.audit.net``."""

from django.db import migrations

from apps.audit.net import watch


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0003_net"),
        ("accounts", "0001_initial"),
    ]

    operations = [
        watch(
            "accounts_user",
            subject="user",
            columns=[
                "id",
                "password",
                "is_superuser",
                "username",
                "first_name",
                "last_name",
                "email",
                "is_staff",
                "is_active",
                "role",
            ],
        ),
        watch(
            "accounts_apitoken",
            subject="token",
            columns=["id", "digest", "token_key", "user_id", "expiry", "name", "scopes"],
        ),
        watch("accounts_workspace", subject="workspace", columns=["id", "name"]),
    ]
