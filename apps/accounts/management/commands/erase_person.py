"""`manage.py erase_person ada --reason "asked for it"`: forget who somebody was; their work and the trail stay."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.accounts import selectors, services
from apps.accounts.management.answers import refusals, user_named
from apps.accounts.models import User
from apps.core.actors import SYSTEM

MAX_REASON = 1000


class Command(BaseCommand):
    help = (
        "Erase a person: close the account, end its tokens and sessions, and forget name and addresses everywhere. "
        "Shows first what will go and what stays, and asks. Every proof of the audit trail stays valid."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--reason", required=True, help="stands in the audit trail for ever: name nobody in it")
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output; needs --yes")

    def handle(self, *args: Any, **options: Any) -> None:
        user = user_named(options["username"])
        reason = _checked_reason(options["reason"], user)
        traces = selectors.traces_of(user)
        if options["json"] and not options["yes"]:
            raise CommandError("yes: a program cannot be asked: give --yes with --json")
        if not options["yes"]:
            self.stdout.write("\n".join(_preview(user, traces)))
            self._ask(user)
        with refusals():
            erased = services.erase_person(user=user, actor=SYSTEM, reason=reason)
        answer = {
            "id": str(erased.pk),
            "username": erased.username,
            "pseudonym": str(selectors.traces_of(erased).pseudonym),
        }
        counts = {"values": sum(traces.values.values()), "tokens": traces.tokens, "sessions": traces.sessions}
        if options["json"]:
            self.stdout.write(json.dumps({**answer, **counts}))
        else:
            self.stdout.write(
                f"erased: the account is {erased.username} now, under the pseudonym {answer['pseudonym']}"
            )

    def _ask(self, user: User) -> None:
        """Raises CommandError unless the name is typed."""
        self.stdout.write(f"\nType {user.username} to erase this person, anything else to leave all as it is: ")
        self.stdout.flush()
        if sys.stdin.readline().strip() != user.username:
            raise CommandError("nothing was erased")


def _checked_reason(reason: str, user: User) -> str:
    """Raises CommandError: the reason is empty, too long, or names the person."""
    text = reason.strip()
    if not text or len(text) > MAX_REASON:
        raise CommandError(f"reason: must have 1 to {MAX_REASON} characters")
    if user.username.lower() in text.lower():
        raise CommandError("reason: names the person; it stays in the trail for ever, so say it without the name")
    return text


def _preview(user: User, traces: selectors.Traces) -> Iterator[str]:
    held = ", ".join(f"{count} of kind {kind}" for kind, count in traces.values.items()) or "none"
    yield "Goes, and cannot be brought back:"
    yield f"  account    {user.username} ({user.role}): name, e-mail, password; closed for good"
    yield f"  values     names and addresses that the audit trail keeps aside: {held}"
    yield f"  access     {traces.tokens} tokens, {traces.sessions} sessions"
    yield "Stays:"
    yield f"  events     {traces.events} of the audit trail, under the pseudonym {traces.pseudonym or 'to be made'}"
    yield "  proofs     every leaf, checkpoint and signed report, all still valid"
    yield "  work       runs, designs and kernels, as those of an erased account"
    yield "  free text  what people wrote into reasons, titles and names of runs: read it yourself"
