"""Signed webhooks: one POST over one connection, to an address that was checked, within one time limit.

    Esper-Signature: t=1764230400,v1=<hex HMAC-SHA256 of "1764230400.<body>" under the route's secret>
    Esper-Notification: <id>      the same for each try: who has it already can drop a repetition

``verify`` is what a receiver does; ``docs/alert-routes.md`` shows it in other words.
"""

import hashlib
import hmac
import http.client
import io
import socket
import ssl
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from functools import cache
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from apps.observability.delivery.addresses import Network, Refused, Resolver, Target, Unreachable, check, networks
from apps.observability.delivery.outcomes import Outcome

SECONDS = 5.0
"""For everything: looking up, connecting, TLS, sending, waiting and reading."""
MOST_BYTES = 64 << 10
"""Of the answer, with its headers, that are read."""
SHOWN = 200
MOST_PATIENCE = 3600.0
USER_AGENT = "Esper-Alerts/1"
GONE = 410
TOLERANCE = 300


def signature(secret: str, body: bytes, at: int) -> str:
    """The value of ``Esper-Signature`` at ``at`` (seconds since 1970)."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def verify(secret: str, body: bytes, header: str, now: float, tolerance: float = TOLERANCE) -> bool:
    """Whether the header signs this body, not longer ago than ``tolerance`` seconds: what a receiver checks."""
    parts = dict(part.partition("=")[::2] for part in header.split(","))
    stamp = parts.get("t", "")
    if not stamp.isdecimal() or len(stamp) > 12 or abs(now - int(stamp)) > tolerance:
        return False
    return hmac.compare_digest(signature(secret, body, int(stamp)).encode(), header.encode())


def allowed_networks() -> tuple[Network, ...]:
    """Networks that webhooks may go to though they are not public (``ESPER_WEBHOOK_ALLOWED_NETWORKS``)."""
    return networks(settings.WEBHOOK_ALLOWED_NETWORKS)


def post(
    url: str,
    body: bytes,
    *,
    secret: str,
    notification: UUID,
    allowed: Sequence[Network] = (),
    resolver: Resolver | None = None,
    context: ssl.SSLContext | None = None,
    seconds: float = SECONDS,
) -> Outcome:
    """Send ``body`` (JSON) once. 2xx is a success; a redirect is not followed; 410 says that nobody wants it."""
    deadline = time.monotonic() + seconds
    try:
        target = check(url, allowed=allowed, resolver=resolver, seconds=seconds)
    except Refused as error:
        return Outcome(delivered=False, problem=f"the URL {error}", final=True)
    except Unreachable as error:
        return Outcome(delivered=False, problem=str(error))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "Esper-Notification": str(notification),
        "Esper-Signature": signature(secret, body, int(time.time())),
        "Connection": "close",
    }
    connection = _Pinned(target, deadline, context)
    try:
        connection.request("POST", target.path, body=body, headers=headers)
        return _judged(connection.getresponse())
    except ssl.SSLCertVerificationError as error:
        return Outcome(delivered=False, problem=f"its certificate is not that of {target.host}: {error.verify_message}")
    except TimeoutError:
        return Outcome(delivered=False, problem=f"no answer within {seconds:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        return Outcome(delivered=False, problem=f"{target.host}: {str(error) or type(error).__name__}"[:SHOWN])
    finally:
        connection.finish()


def _judged(response: http.client.HTTPResponse) -> Outcome:
    status = response.status
    if 200 <= status < 300:
        return Outcome(delivered=True, status=status)
    if 300 <= status < 400:
        where = response.headers.get("Location", "elsewhere")[:SHOWN]
        return Outcome(
            delivered=False,
            status=status,
            problem=f"{status}: redirects to {where!r}, which is not followed: give the route that address",
        )
    if status == GONE:
        return Outcome(delivered=False, status=status, problem="410: it wants no more messages", final=True)
    return Outcome(
        delivered=False,
        status=status,
        problem=f"{status}: {_beginning(response)}".removesuffix(": "),
        retry_after=_patience(response.headers.get("Retry-After", "")),
    )


def _beginning(response: http.client.HTTPResponse) -> str:
    """Of the body, for people; what does not come in time is not missed."""
    try:
        text = response.read(SHOWN).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _patience(text: str) -> float | None:
    """Seconds that Retry-After (RFC 9110, section 10.2.3) asks to wait, an hour at most; None: nothing sensible."""
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), MOST_PATIENCE)
    try:
        wait = (parsedate_to_datetime(text) - timezone.now()).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(wait, 0.0), MOST_PATIENCE)


class _Pinned(http.client.HTTPConnection):
    """A connection to the checked addresses of a target, whose every step ends at ``deadline``."""

    def __init__(self, target: Target, deadline: float, context: ssl.SSLContext | None) -> None:
        super().__init__(target.host, target.port)
        self.target = target
        self.deadline = deadline
        self.context = context
        self.connected: socket.socket | None = None

    def connect(self) -> None:
        self.connected = self._opened()
        if self.target.scheme == "https":
            self.connected.settimeout(_left(self.deadline))
            context = self.context or _trusting_the_system()
            self.connected = context.wrap_socket(self.connected, server_hostname=self.target.host)
        self.sock = _Bounded(self.connected, self.deadline)

    def finish(self) -> None:
        if self.connected is not None:
            self.connected.close()

    def _opened(self) -> socket.socket:
        """To the first of its addresses that answers."""
        fault: OSError | None = None
        for address in self.target.addresses:
            try:
                return socket.create_connection((address, self.target.port), timeout=_left(self.deadline))
            except OSError as error:
                fault = error
        raise fault or OSError("there is no address")


@cache
def _trusting_the_system() -> ssl.SSLContext:
    """The certificate authorities of the system, or of SSL_CERT_FILE."""
    return ssl.create_default_context()


class _Bounded:
    """The socket as http.client uses it: nothing lasts beyond the deadline, and no answer is too long."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self.connected = connected
        self.deadline = deadline

    def sendall(self, data: bytes) -> None:
        self.connected.settimeout(_left(self.deadline))
        self.connected.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Answer(self.connected, self.deadline))

    def close(self) -> None:
        """http.client closes it before the body is read: ``_Pinned.finish`` does, afterwards."""


class _Answer(io.RawIOBase):
    """What comes back: a body that drips ends at the deadline, because each read waits only for what is left."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self.connected = connected
        self.deadline = deadline
        self.left = MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self.left:
            raise OSError(f"its answer is longer than {MOST_BYTES >> 10} KiB")
        self.connected.settimeout(_left(self.deadline))
        count = self.connected.recv_into(buffer[: self.left])
        self.left -= count
        return count


def _left(deadline: float) -> float:
    """Seconds until the deadline.

    Raises:
        TimeoutError: it is over.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
