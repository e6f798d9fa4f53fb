"""`manage.py create_user ada --role curator`: a person or a service account, from the terminal."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts import services
from apps.accounts.management.answers import password_from_stdin, refusals
from apps.accounts.roles import Role
from apps.core.actors import SYSTEM


class Command(BaseCommand):
    help = "Create a user. Prints the generated password once, unless one comes on standard input."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--role", default=Role.VIEWER, help=f"{', '.join(Role)} (default: viewer)")
        parser.add_argument("--email", default="")
        parser.add_argument(
            "--password-stdin", action="store_true", help="read the password from the first line of standard input"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        given = password_from_stdin() if options["password_stdin"] else None
        with refusals():
            user, password = services.create_user(
                username=options["username"],
                role=options["role"],
                email=options["email"],
                password=given,
                actor=SYSTEM,
            )
        answer = {"id": str(user.pk), "username": user.username, "role": user.role}
        if given is None:
            answer["password"] = password
        if options["json"]:
            self.stdout.write(json.dumps(answer))
            return
        self.stdout.write(f"created {user.username} ({user.role})")
        if given is None:
            self.stdout.write(f"password: {password}\n(shown once: store it now)")
