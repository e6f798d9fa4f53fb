"""`manage.py rebuild_checkpoints`: make the rows of checkpoints anew from the checkpoint folder and the archive."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.checkpoints.services.rebuilding import Rebuilt, rebuild
from apps.core.actors import SYSTEM
from apps.core.console import progress_bar
from apps.core.errors import ServiceError


class Command(BaseCommand):
    help = "Add the rows of every whole checkpoint that the files have and the database has not; change no other row."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be added")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, dry_run: bool, json: bool, **options: Any) -> None:
        try:
            with progress_bar("files") as show:
                rebuilt = rebuild(actor=SYSTEM, dry_run=dry_run, progress=show)
        except ServiceError as error:
            raise CommandError(error.detail) from None
        self._print(rebuilt, dry_run, json)

    def _print(self, rebuilt: Rebuilt, dry_run: bool, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps({**rebuilt.as_dict(), "dry_run": dry_run}))
            return
        verb = "would be added" if dry_run else "added"
        self.stdout.write(f"{rebuilt.checkpoints} checkpoints {verb}; {rebuilt.known} are known")
        if not dry_run:
            self.stdout.write(f"with {rebuilt.packs} packs of {rebuilt.objects} objects")
        for broken in rebuilt.broken:
            self.stdout.write(f"not usable: {broken['file']}: {broken['problem']}")
