"""`manage.py rotate_audit_key`: sign checkpoints with another key from now on."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.keys import KeyFault, SigningKey
from apps.audit.services.sealing import rotate_key, seal
from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError


class Command(BaseCommand):
    help = "Sign audit checkpoints with a new key; the old one vouches for it in the next checkpoint."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--reason", default="", help="why: it stands in the trail")
        parser.add_argument(
            "--old-key-is-lost", action="store_true", help="nobody can vouch for the new key: say so in the trail"
        )
        parser.add_argument(
            "--print-new", action="store_true", help="only print a new private key, for ESPER_AUDIT_KEY; change nothing"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(
        self, *args: Any, reason: str, old_key_is_lost: bool, print_new: bool, json: bool, **options: Any
    ) -> None:
        if print_new:
            self.stdout.write(SigningKey.make().text)
            return
        if not reason:
            raise CommandError("--reason: say why the key is changed")
        try:
            verifier = rotate_key(actor=SYSTEM, reason=reason, old_key_is_lost=old_key_is_lost)
            sealed = seal()
        except (KeyFault, ServiceError) as error:
            raise CommandError(error.detail) from None
        self._print(verifier, sealed.size if sealed else None, json)

    def _print(self, verifier: str, size: int | None, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps({"verifier": verifier, "size": size}))
            return
        self.stdout.write(f"the new public key: {verifier}")
        self.stdout.write(
            f"the checkpoint of {size} events is the first that it signed"
            if size is not None
            else "another process is sealing: the next checkpoint is the first that it signs"
        )
        self.stdout.write("Keep the public key where the trail is verified from. See docs/audit.md.")
