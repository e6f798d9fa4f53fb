"""`manage.py replay_audit`: do the events, replayed, give the rows of the tables?"""

import json
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from apps.audit.replay import Comparison, replay, subject_models
from apps.core.console import progress_bar

SHOWN = 100


class Command(BaseCommand):
    help = "Fold the events of every asset and compare them with its row. Exits with 1 if anything differs."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--type",
            action="append",
            choices=sorted(subject_models()),
            default=[],
            dest="types",
            help="only this kind of asset; may be given several times (default: all)",
        )
        parser.add_argument("--limit", type=_count, default=SHOWN, help=f"differences shown (default: {SHOWN})")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, types: list[str], limit: int, json: bool, **options: Any) -> None:
        with progress_bar("events replayed") as progress:
            found = replay(kinds=types, limit=limit, progress=progress)
        self._print(found, as_json=json)
        if not found.is_equal:
            raise SystemExit(1)

    def _print(self, found: Comparison, *, as_json: bool) -> None:
        if as_json:
            counts = {"subjects": dict(found.subjects), "archived": dict(found.archived), "erased": found.erased}
            self.stdout.write(
                json.dumps(
                    {
                        **counts,
                        "equal": found.is_equal,
                        "differences_count": found.differences_count,
                        "differences": [asdict(difference) for difference in found.differences],
                        "events": found.events,
                        "seconds": round(found.seconds, 3),
                    }
                )
            )
            return
        for difference in found.differences:
            self.stdout.write(f"DIFFERENT {difference}")
        if found.differences_count > len(found.differences):
            self.stdout.write(f"... and {found.differences_count - len(found.differences)} more")
        for kind in sorted(found.subjects | found.archived):
            archived = f", {found.archived[kind]:,} that began in an archived month" if found.archived[kind] else ""
            self.stdout.write(f"{kind}: {found.subjects[kind]:,} compared{archived}")
        if found.erased:
            self.stdout.write(f"{found.erased:,} people were erased: their names and addresses cannot be compared")
        rate = found.events / found.seconds if found.seconds else 0.0
        self.stdout.write(
            f"{'equal' if found.is_equal else f'{found.differences_count:,} DIFFERENCES'}: "
            f"{found.events:,} events replayed in {found.seconds:.1f} s ({rate:,.0f} events/s)"
        )


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
