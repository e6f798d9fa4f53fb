"""Messages by e-mail: one for each address over one connection, so that one refused address stops no other."""

import smtplib
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage, get_connection

from apps.observability.delivery import payloads
from apps.observability.delivery.outcomes import Outcome

SECONDS = 30.0
"""After which no further address is begun; each step of the SMTP dialogue has EMAIL_TIMEOUT."""
SHOWN = 300
SMTP = "django.core.mail.backends.smtp.EmailBackend"


def is_configured() -> bool:
    """Whether there is a server that takes messages (``ESPER_EMAIL_URL``)."""
    return settings.EMAIL_BACKEND != SMTP or bool(settings.EMAIL_HOST)


def recipients(target: str) -> list[str]:
    """The addresses in the target of a route, one a line."""
    return [line.strip() for line in target.splitlines() if line.strip()]


def send(told: payloads.Payload, addresses: Sequence[str], *, notification: UUID) -> Outcome:
    """Send the message to each address once.

    Delivered: every address has it. Final: those that have not will never (SMTP 5xx). ``waiting`` is who has not.
    """
    if not is_configured():
        return Outcome(delivered=False, problem="no mail server is configured: ESPER_EMAIL_URL", waiting=(*addresses,))
    deadline = time.monotonic() + SECONDS
    connection: Any = get_connection()
    try:
        connection.open()
    except (OSError, smtplib.SMTPException) as error:
        return Outcome(delivered=False, status=_code(error), problem=_words(error), waiting=(*addresses,))
    refused: dict[str, Exception] = {}
    try:
        for place, address in enumerate(addresses):
            if time.monotonic() > deadline:
                fault: Exception = TimeoutError(f"it took longer than {SECONDS:.0f} s")
                return _judged(refused | dict.fromkeys(addresses[place:], fault), addresses)
            try:
                connection.send_messages([_message(told, address, notification)])
            except smtplib.SMTPServerDisconnected as error:
                return _judged(refused | dict.fromkeys(addresses[place:], error), addresses)
            except (OSError, smtplib.SMTPException) as error:
                refused[address] = error
    finally:
        with suppress(OSError, smtplib.SMTPException):
            connection.close()
    return _judged(refused, addresses)


def _message(told: payloads.Payload, address: str, notification: UUID) -> EmailMessage:
    """The same Message-ID for each try: mail programs show a repetition once."""
    domain = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].rstrip(">") or "localhost"
    return EmailMessage(
        subject=payloads.subject(told),
        body=payloads.text(told),
        to=[address],
        headers={
            "Message-ID": f"<{notification}@{domain}>",
            "References": f"<{told['groupKey']}@{domain}>",
            "Auto-Submitted": "auto-generated",
            "Esper-Notification": str(notification),
        },
    )


def _judged(refused: dict[str, Exception], addresses: Sequence[str]) -> Outcome:
    if not refused:
        return Outcome(delivered=True, status=250)
    problems = [f"{address}: {_words(error)}" for address, error in refused.items()]
    have = f"; {len(addresses) - len(refused)} of {len(addresses)} have it" if len(addresses) > 1 else ""
    return Outcome(
        delivered=False,
        status=_code(next(iter(refused.values()))),
        problem="; ".join(problems)[: SHOWN * 4] + have,
        final=all(map(_is_final, refused.values())),
        waiting=tuple(refused),
    )


def _is_final(error: Exception) -> bool:
    """The server knows this address and will never take a message for it (RFC 5321, section 4.2.1)."""
    return isinstance(error, smtplib.SMTPRecipientsRefused) and 500 <= (_code(error) or 0) < 600


def _code(error: Exception) -> int | None:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return next((code for code, _ in error.recipients.values()), None)
    code = getattr(error, "smtp_code", None)
    return code if isinstance(code, int) and 0 < code < 1000 else None


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        said: Any = next((said for _, said in error.recipients.values()), b"refused")
    else:
        said = getattr(error, "smtp_error", None) or str(error) or type(error).__name__
    words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    code = _code(error)
    return " ".join(f"{code or ''} {words}".replace("\0", "").split())[:SHOWN]
