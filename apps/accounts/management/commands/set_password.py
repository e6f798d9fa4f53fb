"""`manage.py set_password ada --reason "forgot it"`: another password, from the terminal."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts import services
from apps.accounts.management.answers import password_from_stdin, refusals, user_named
from apps.core.actors import SYSTEM


class Command(BaseCommand):
    help = "Give a user another password. Prints the generated one once, unless one comes on standard input."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--reason", default="", help="why: it stands in the audit trail")
        parser.add_argument(
            "--password-stdin", action="store_true", help="read the password from the first line of standard input"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        given = password_from_stdin() if options["password_stdin"] else None
        user = user_named(options["username"])
        with refusals():
            user, password = services.set_password(user=user, password=given, reason=options["reason"], actor=SYSTEM)
        answer = {"id": str(user.pk), "username": user.username}
        if given is None:
            answer["password"] = password
        if options["json"]:
            self.stdout.write(json.dumps(answer))
            return
        self.stdout.write(f"changed the password of {user.username}")
        if given is None:
            self.stdout.write(f"password: {password}\n(shown once: store it now)")
