"""`manage.py issue_token ada --name ci --scope runs:read`: an API token, from the terminal."""

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.accounts import services
from apps.accounts.management.answers import refusals, user_named
from apps.accounts.roles import Scope
from apps.core.actors import SYSTEM

DEFAULT_DAYS = 30
MAX_DAYS = 3650


class Command(BaseCommand):
    help = "Issue an API token and print its secret once: only a digest of it is stored."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", help="whose token it is")
        parser.add_argument("--name", required=True, help="what it is for: people read it in lists")
        parser.add_argument(
            "--scope",
            action="append",
            metavar="SCOPE",
            dest="scopes",
            help=f"may be given several times; {', '.join(Scope)} (default: all of the user's role)",
        )
        parser.add_argument("--days", type=int, default=DEFAULT_DAYS, help=f"lifetime (default: {DEFAULT_DAYS})")
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["days"] <= MAX_DAYS:
            raise CommandError(f"days: must be from 1 to {MAX_DAYS}")
        user = user_named(options["username"])
        with refusals():
            token, secret = services.issue_token(
                user=user,
                name=options["name"],
                scopes=user.scopes if options["scopes"] is None else options["scopes"],
                lifetime=timedelta(days=options["days"]),
                actor=SYSTEM,
            )
        if options["json"]:
            answer = {"id": str(token.id), "name": token.name, "scopes": token.scopes, "token": secret}
            self.stdout.write(json.dumps({**answer, "expiry": token.expiry.isoformat()}))
            return
        self.stdout.write(
            f"token: {secret}\nscopes: {', '.join(token.scopes)}\nexpires: {token.expiry:%Y-%m-%d %H:%M} UTC"
        )
        self.stdout.write("(shown once: store it now)")
