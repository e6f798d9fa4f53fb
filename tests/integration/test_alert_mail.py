"""Messages by e-mail, over a real SMTP dialogue: one for each address, and what becomes of each."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings

from apps.core.ids import new_id
from apps.observability.delivery import mail
from apps.observability.delivery.outcomes import Outcome
from tests.support.receivers import MailServer, mail_server

TOLD: dict[str, Any] = {
    "version": "4", "groupKey": "f" * 64, "truncatedAlerts": 0, "status": "firing", "receiver": "operators",
    "groupLabels": {}, "commonLabels": {"alertname": "Disk full", "severity": "critical"}, "commonAnnotations": {},
    "externalURL": "https://esper.example.org",
    "alerts": [
        {
            "status": "firing", "labels": {"alertname": "Disk full", "severity": "critical"},
            "annotations": {"summary": "The disk of Müller’s host is full"}, "startsAt": "2026-01-01T12:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "0",
        }
    ],
}  # fmt: skip


@pytest.fixture
def server(settings: LazySettings) -> Iterator[MailServer]:
    with mail_server() as server:
        settings.EMAIL_BACKEND = mail.SMTP
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.DEFAULT_FROM_EMAIL = "Esper <alerts@esper.example.org>"
        yield server


def sent(*recipients: str) -> Outcome:
    return mail.send(TOLD, recipients, notification=new_id())


def test_each_address_gets_its_own(server: MailServer) -> None:
    outcome = sent("ada@example.org", "grace@example.org")

    assert outcome == Outcome(delivered=True, status=250)
    assert server.recipients == ["ada@example.org", "grace@example.org"]
    first, second = (message for _, message in server.mails)
    assert (first["To"], second["To"]) == ("ada@example.org", "grace@example.org")


def test_it_says_what_fires_and_that_a_machine_wrote_it(server: MailServer) -> None:
    notification = new_id()

    mail.send(TOLD, ["ada@example.org"], notification=notification)

    ((_, message),) = server.mails
    body: Any = message.get_payload(decode=True)
    assert message["Subject"] == "[FIRING:1] Disk full (critical)"
    assert "CRITICAL: The disk of Müller’s host is full" in body.decode()
    assert message["From"] == "Esper <alerts@esper.example.org>"
    assert message["Message-ID"] == f"<{notification}@esper.example.org>"
    assert message["Auto-Submitted"] == "auto-generated"


def test_labels_cannot_add_headers(server: MailServer) -> None:
    labels = {"alertname": "x\r\nBcc: eve@example.org", "severity": "info\nX-Evil: 1"}

    outcome = mail.send({**TOLD, "commonLabels": labels}, ["ada@example.org"], notification=new_id())

    ((_, message),) = server.mails
    assert outcome.delivered
    assert (message["Bcc"], message["X-Evil"]) == (None, None)


def test_one_refused_address_stops_no_other_and_is_named(server: MailServer) -> None:
    server.refusals["ada@example.org"] = "550 no such user"

    outcome = sent("ada@example.org", "grace@example.org")

    assert server.recipients == ["grace@example.org"]
    assert (outcome.delivered, outcome.final, outcome.status) == (False, True, 550)
    assert outcome.waiting == ("ada@example.org",)
    assert outcome.problem == "ada@example.org: 550 no such user; 1 of 2 have it"


def test_one_that_is_refused_for_now_may_get_it_later(server: MailServer) -> None:
    server.refusals |= {"ada@example.org": "451 come back", "eve@example.org": "550 no such user"}

    outcome = sent("ada@example.org", "eve@example.org", "grace@example.org")

    assert (outcome.delivered, outcome.final) == (False, False)
    assert outcome.waiting == ("ada@example.org", "eve@example.org")


@pytest.mark.parametrize(("greeting", "status"), [("554 not for you", 554), ("421 too busy", 421)])
def test_a_server_that_takes_nobody_is_asked_again(server: MailServer, greeting: str, status: int) -> None:
    server.greeting = greeting

    outcome = sent("ada@example.org")

    assert (outcome.delivered, outcome.final, outcome.status) == (False, False, status)
    assert outcome.waiting == ("ada@example.org",)


def test_a_server_that_is_away_is_asked_again(settings: LazySettings, server: MailServer) -> None:
    settings.EMAIL_PORT = 1

    outcome = sent("ada@example.org")

    assert (outcome.delivered, outcome.final) == (False, False)
    assert "refused" in outcome.problem


def test_without_a_server_it_says_what_to_set(settings: LazySettings) -> None:
    settings.EMAIL_BACKEND, settings.EMAIL_HOST = mail.SMTP, ""

    outcome = sent("ada@example.org")

    assert not outcome.delivered
    assert "ESPER_EMAIL_URL" in outcome.problem
