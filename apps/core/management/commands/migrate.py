"""`migrate` as the owner of the schema (DATABASE_OWNER_URL); every other command is the application role."""

from typing import Any

import dj_database_url
from django.conf import settings
from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import connections


class Command(MigrateCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        owner = dj_database_url.parse(settings.DATABASE_OWNER_URL)
        connection.close()
        for name in ("USER", "PASSWORD", "HOST", "PORT"):
            connection.settings_dict[name] = owner[name]
        super().handle(*args, **options)
        connection.close()
