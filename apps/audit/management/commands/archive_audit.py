"""`manage.py archive_audit 2026_01`: move a month that is over to the object storage."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.services.partitions import PARENT, archive_partition, closed_partitions
from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError


class Command(BaseCommand):
    help = (
        "Move the events of a month that is over to the object storage; they still verify. Lists them without a month."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("month", nargs="?", help="such as 2026_01; without one, nothing is done but listed")
        parser.add_argument("--reason", default="archived by hand", help="why: it stands in the trail")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, month: str | None, reason: str, json: bool, **options: Any) -> None:
        if month is None:
            self._list(json)
            return
        try:
            archive = archive_partition(partition=f"{PARENT}_{month}", actor=SYSTEM, reason=reason)
        except ServiceError as error:
            raise CommandError(error.detail) from None
        self._print(
            {"partition": archive.partition, "name": archive.name, "sha256": archive.sha256, "events": archive.events},
            f"{archive.events:,} events of {archive.partition} lie in {archive.name} (sha256 {archive.sha256}).\n"
            f"The table {archive.partition} is detached; its owner may now drop it: DROP TABLE {archive.partition};",
            json,
        )

    def _list(self, as_json: bool) -> None:
        months = [name.removeprefix(f"{PARENT}_") for name in closed_partitions()]
        self._print({"months": months}, f"months that are over: {', '.join(months) or 'none yet'}", as_json)

    def _print(self, answer: dict[str, Any], text: str, as_json: bool) -> None:
        self.stdout.write(json.dumps(answer) if as_json else text)
