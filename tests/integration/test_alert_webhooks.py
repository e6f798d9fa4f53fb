"""Webhooks over real connections: signed, to the address that was checked, within one time limit, reading little."""

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apps.core.ids import new_id
from apps.observability.delivery.addresses import networks
from apps.observability.delivery.outcomes import Outcome
from apps.observability.delivery.webhooks import post, signature, verify
from tests.support.receivers import LOOPBACK, Receiver, drip, hang, receiving, status

SECRET = "a-secret-of-the-tests"
BODY = b'{"version": "4"}'
ALLOWED = networks(LOOPBACK)
SHORT = 0.3
"""Seconds that the tests of the time limit give; everything else has the usual five."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def sent(url: str, **values: Any) -> Outcome:
    return post(url, BODY, **{"secret": SECRET, "notification": new_id(), "allowed": ALLOWED, **values})


class TestWhatIsSent:
    def test_is_the_body_signed_with_its_time_and_named(self, receiver: Receiver) -> None:
        notification = new_id()

        outcome = sent(f"{receiver.url}?team=a", notification=notification)

        (hook,) = receiver.got
        assert outcome == Outcome(delivered=True, status=204)
        assert (hook.path, hook.body) == ("/hook?team=a", BODY)
        assert hook.headers["Content-Type"] == "application/json"
        assert hook.headers["Esper-Notification"] == str(notification)
        assert hook.headers["User-Agent"].startswith("Esper-Alerts/")
        assert verify(SECRET, hook.body, hook.headers["Esper-Signature"], time.time())

    def test_says_the_name_of_the_url_to_the_address_that_was_checked(self, receiver: Receiver) -> None:
        asked: list[str] = []

        def resolver(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["127.0.0.1"]

        outcome = sent(receiver.url.replace("127.0.0.1", "hooks.example.org"), resolver=resolver)

        assert outcome.delivered
        assert asked == ["hooks.example.org"]
        assert receiver.got[0].headers["Host"].startswith("hooks.example.org:")

    @pytest.mark.parametrize(
        ("secret", "body", "header", "now"),
        [
            ("another-secret-of-tests", BODY, signature(SECRET, BODY, 1000), 1000),
            (SECRET, b"{}", signature(SECRET, BODY, 1000), 1000),
            (SECRET, BODY, signature(SECRET, BODY, 1000), 1301),
            (SECRET, BODY, signature(SECRET, BODY, 1000).replace("t=1000", "t=1001"), 1001),
            (SECRET, BODY, "", 1000),
            (SECRET, BODY, "t=,v1=", 1000),
            (SECRET, BODY, "t=1000", 1000),
            (SECRET, BODY, "t=" + "9" * 5000, 1000),
        ],
    )
    def test_is_believed_only_with_its_secret_its_body_and_its_time(
        self, secret: str, body: bytes, header: str, now: float
    ) -> None:
        assert verify(SECRET, BODY, signature(SECRET, BODY, 1000), 1000)
        assert not verify(secret, body, header, now)


class TestAnswers:
    def test_that_are_no_success_are_told_with_their_beginning(self, receiver: Receiver) -> None:
        receiver.answers = [status(500, body=b"out of\r\n\x00 order " + b"x" * 1000)]

        outcome = sent(receiver.url)

        assert (outcome.delivered, outcome.final, outcome.status) == (False, False, 500)
        assert outcome.problem.startswith("500: out of order xxx")
        assert len(outcome.problem) < 250

    def test_that_redirect_are_not_followed(self, receiver: Receiver) -> None:
        receiver.answers = [status(302, {"Location": receiver.url})]

        outcome = sent(receiver.url)

        assert (outcome.delivered, outcome.status, len(receiver.got)) == (False, 302, 1)
        assert "not followed" in outcome.problem

    def test_gone_ends_it(self, receiver: Receiver) -> None:
        receiver.answers = [status(410)]

        assert sent(receiver.url).final

    @pytest.mark.parametrize(
        ("header", "least", "most"),
        [
            ("120", 120, 120),
            ("9999999999999", 3600, 3600),
            (format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True), 0, 0),
        ],
    )
    def test_say_how_long_to_wait(self, receiver: Receiver, header: str, least: float, most: float) -> None:
        receiver.answers = [status(429, {"Retry-After": header})]

        asked = sent(receiver.url).retry_after

        assert asked is not None
        assert least <= asked <= most

    def test_say_until_when_to_wait(self, receiver: Receiver) -> None:
        in_ten_minutes = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
        receiver.answers = [status(429, {"Retry-After": in_ten_minutes})]

        asked = sent(receiver.url).retry_after

        assert asked is not None
        assert 500 <= asked <= 600

    def test_that_say_it_wrongly_say_nothing(self, receiver: Receiver) -> None:
        receiver.answers = [status(503, {"Retry-After": "soon"})]

        assert sent(receiver.url).retry_after is None

    def test_of_a_megabyte_are_not_read(self, receiver: Receiver) -> None:
        receiver.answers = [status(200, body=b"x" * (1 << 20)), status(400, body=b"x" * (1 << 20))]

        assert [sent(receiver.url).status for _ in range(2)] == [200, 400]

    def test_whose_headers_never_end_are_given_up(self, receiver: Receiver) -> None:
        receiver.answers = [
            lambda handler: handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000) and None,
            lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 17)) and None,
        ]

        assert [sent(receiver.url).delivered for _ in range(2)] == [False, False]

    def test_that_are_no_http_are_a_problem(self, receiver: Receiver) -> None:
        receiver.answers = [lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n") and None]

        outcome = sent(receiver.url)

        assert (outcome.delivered, outcome.status) == (False, None)
        assert outcome.problem


class TestTheTimeLimit:
    @pytest.mark.parametrize("answer", [hang, drip])
    def test_ends_what_hangs_and_what_drips(self, receiver: Receiver, answer: Any) -> None:
        receiver.answers = [answer]

        outcome = sent(receiver.url, seconds=SHORT)

        assert outcome.problem.startswith("no answer within")

    def test_ends_a_lookup(self, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: receiver.closing.wait(30))

        assert "no answer" in sent("https://hooks.example.org/", seconds=0.05).problem
        receiver.closing.set()


class TestWhereItGoes:
    def test_is_never_an_address_inside_that_is_not_allowed(self, receiver: Receiver) -> None:
        outcome = sent(receiver.url, allowed=())

        assert (outcome.delivered, outcome.final, receiver.got) == (False, True, [])
        assert "ESPER_WEBHOOK_ALLOWED_NETWORKS" in outcome.problem

    def test_is_the_next_address_where_the_first_is_closed(self, receiver: Receiver) -> None:
        assert sent(receiver.url, resolver=lambda host, port: ["127.0.0.2", "127.0.0.1"]).delivered

    def test_may_be_closed_now_and_open_later(self) -> None:
        with receiving() as gone:
            url = gone.url

        outcome = sent(url)

        assert (outcome.delivered, outcome.final) == (False, False)
        assert "refused" in outcome.problem


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of hooks.example.org, vouched for by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.org")])
    names = x509.SubjectAlternativeName([x509.DNSName("hooks.example.org"), x509.IPAddress(ip_address("127.0.0.9"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "pair.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


class TestTls:
    @pytest.fixture
    def receiver(self, certificate: Path) -> Iterator[Receiver]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        with receiving(partial(context.wrap_socket, server_side=True)) as receiver:
            yield receiver

    @pytest.fixture
    def trusting(self, certificate: Path) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(certificate))

    def test_is_of_the_name_in_the_url(self, receiver: Receiver, trusting: ssl.SSLContext) -> None:
        url = receiver.url.replace("127.0.0.1", "hooks.example.org")

        assert sent(url, context=trusting, resolver=lambda host, port: ["127.0.0.1"]).delivered

    def test_of_another_name_gets_nothing(self, receiver: Receiver, trusting: ssl.SSLContext) -> None:
        url = receiver.url.replace("127.0.0.1", "other.example.org")

        outcome = sent(url, context=trusting, resolver=lambda host, port: ["127.0.0.1"])

        assert (outcome.delivered, receiver.got) == (False, [])
        assert "its certificate is not that of other.example.org" in outcome.problem

    def test_that_nobody_vouches_for_gets_nothing(self, receiver: Receiver) -> None:
        url = receiver.url.replace("127.0.0.1", "hooks.example.org")

        outcome = sent(url, resolver=lambda host, port: ["127.0.0.1"])

        assert (outcome.delivered, outcome.final, receiver.got) == (False, False, [])
        assert "certificate" in outcome.problem
