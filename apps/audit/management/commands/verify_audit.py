"""`manage.py verify_audit`: is every event still as it was signed?"""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.services.verifying import verify_trail
from apps.audit.verification import Outcome
from apps.audit.verifier import Verifier, Wrong
from apps.core.actors import SYSTEM
from apps.core.console import progress_bar
from apps.core.errors import ServiceError

SHOWN = 100


class Command(BaseCommand):
    help = "Verify the audit trail: events, tree, signatures and copies. Exits with 1 if anything was altered."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", type=int, default=0, metavar="SIZE", help="only what follows this checkpoint")
        parser.add_argument(
            "--key",
            action="append",
            default=[],
            metavar="VERIFIER",
            help="trust only these public keys (name+hash+key); without any, those that the database names",
        )
        parser.add_argument(
            "--note",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            help="a checkpoint note that you kept elsewhere: the trail must still agree with it",
        )
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, since: int, key: list[str], note: list[Path], json: bool, **options: Any) -> None:
        try:
            trusted = [Verifier.parse(text) for text in key]
            notes = [path.read_text(encoding="utf-8") for path in note]
        except Wrong as error:
            raise CommandError(f"--key: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"--note: {error}") from None
        try:
            with progress_bar("events verified") as progress:
                outcome = verify_trail(actor=SYSTEM, since=since, trusted=trusted, notes=notes, progress=progress)
        except ServiceError as error:
            raise CommandError(f"--since: {error.detail}") from None
        self._print(outcome, as_json=json, own_keys=not key)
        if not outcome.is_right:
            raise SystemExit(1)

    def _print(self, outcome: Outcome, *, as_json: bool, own_keys: bool) -> None:
        if as_json:
            answer = asdict(outcome) | {"right": outcome.is_right, "findings": outcome.findings[:SHOWN]}
            answer["findings"] = [asdict(finding) for finding in outcome.findings[:SHOWN]]
            self.stdout.write(json.dumps(answer))
            return
        for finding in outcome.findings[:SHOWN]:
            self.stdout.write(f"WRONG {finding}")
        if outcome.findings_count > SHOWN:
            self.stdout.write(f"... and {outcome.findings_count - SHOWN} more")
        for unchecked in outcome.unchecked[:SHOWN]:
            self.stdout.write(f"not checked: {unchecked}")
        rate = outcome.events / outcome.seconds if outcome.seconds else 0.0
        self.stdout.write(
            f"{'right' if outcome.is_right else 'ALTERED'}: {outcome.events:,} sealed events from {outcome.first:,} to "
            f"{outcome.size:,}, {outcome.checkpoints:,} checkpoints, {outcome.unsealed:,} events that wait for their "
            f"seal, in {outcome.seconds:.1f} s ({rate:,.0f} events/s)"
        )
        if own_keys:
            self.stdout.write(
                "The keys came from the database itself. Against its owner, give --key (and --note) from elsewhere."
            )
