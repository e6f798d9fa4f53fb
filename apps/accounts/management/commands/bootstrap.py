"""`manage.py bootstrap`: the first administrator, and the audit trail's next partitions. `manage.py up` calls it."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts import services
from apps.accounts.management.answers import refusals
from apps.audit.tasks import make_partitions
from apps.core.actors import SYSTEM


class Command(BaseCommand):
    help = "Create the first administrator and print its generated password, this once. Does nothing if there is one."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--username", default="admin", help="name of the administrator (default: admin)")
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        make_partitions()  # beat does this hourly; a stack that is only ever started for an evening has it from here
        with refusals():
            created = services.create_first_admin(username=options["username"], actor=SYSTEM)
        if options["json"]:
            self.stdout.write(json.dumps(_answer(created)))
        elif created is not None:
            user, password = created
            self.stdout.write(f"administrator: {user.username}\npassword: {password}\n(shown once: store it now)")
        elif options["verbosity"] > 1:
            self.stdout.write("there is an administrator already")


def _answer(created: tuple[Any, str] | None) -> dict[str, Any]:
    if created is None:
        return {"created": False}
    user, password = created
    return {"created": True, "username": user.username, "password": password}
