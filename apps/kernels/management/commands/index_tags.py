"""`manage.py index_tags`: make the indexes of declared tags, as the owner of the schema (DATABASE_OWNER_URL)."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from apps.kernels.tag_indexes import index_tags


class Command(BaseCommand):
    help = "Make the indexes of declared tags and drop those of removed ones, while the library is in use."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        done = index_tags(settings.DATABASE_OWNER_URL, self.stderr.write)
        if options["json"]:
            self.stdout.write(json.dumps(asdict(done)))
        else:
            self.stdout.write(f"{len(done.ready)} tags have their index; {len(done.dropped)} were dropped.")
        if done.failed:
            raise CommandError("; ".join(f"{name}: {why}" for name, why in done.failed.items()))
