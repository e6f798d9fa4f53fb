"""`manage.py seal_audit`: seal now, as beat does every few seconds; or go on after an older backup was restored."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.services.sealing import accept_restored_trail, seal
from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError


class Command(BaseCommand):
    help = "Seal the events that are final, sign the tree and copy the note out of the database."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--trail-was-restored",
            action="store_true",
            help="an older backup was restored on purpose: give up what was signed after it, and say so in the trail",
        )
        parser.add_argument("--reason", default="", help="why: it stands in the trail")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, trail_was_restored: bool, reason: str, json: bool, **options: Any) -> None:
        if trail_was_restored and not reason:
            raise CommandError("--reason: say why the older state is the right one")
        try:
            if trail_was_restored:
                accept_restored_trail(actor=SYSTEM, reason=reason)
            sealed = seal()
        except ServiceError as error:
            raise CommandError(error.detail) from None
        if sealed is None:
            raise CommandError("another process is sealing")
        self._print({"first": sealed.first, "size": sealed.size, "sealed": sealed.count}, json)

    def _print(self, answer: dict[str, int], as_json: bool) -> None:
        text = f"sealed {answer['sealed']:,} events; the tree has {answer['size']:,} leaves"
        self.stdout.write(json.dumps(answer) if as_json else text)
