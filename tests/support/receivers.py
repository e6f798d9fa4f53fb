"""What receives messages in tests: a web server that does with webhooks what it is told to, and a mail server."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

LOOPBACK = ["127.0.0.0/8"]


@dataclass(frozen=True, slots=True)
class Hook:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


Answer = Callable[["Handler"], None]


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    def answer(handler: "Handler") -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def hang(handler: "Handler") -> None:
    """Say nothing until the client goes."""
    handler.connection.settimeout(30)
    handler.rfile.read(1)


def drip(handler: "Handler") -> None:
    """A header, a byte at a time, without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.hooks.closing.wait(0.02):
        handler.wfile.write(b"x")


class Handler(BaseHTTPRequestHandler):
    hooks: ClassVar["Receiver"]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hooks.got.append(Hook(self.path, dict(self.headers), body))
        answer = self.hooks.answers.pop(0) if self.hooks.answers else status(204)
        with suppress(OSError):
            answer(self)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Tests read what they need from ``got``."""


@dataclass(slots=True)
class Receiver:
    """``answers`` are given one after another; then each request is answered 204."""

    url: str
    got: list[Hook] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def receiving(wrap: Callable[[Any], Any] | None = None) -> Iterator[Receiver]:
    """A web server on loopback; ``wrap`` puts TLS around its socket."""
    handler = type("BoundHandler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if wrap is not None:
        server.socket = wrap(server.socket)
    scheme = "http" if wrap is None else "https"
    receiver = handler.hooks = Receiver(f"{scheme}://127.0.0.1:{server.server_address[1]}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield receiver
    receiver.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass(slots=True)
class MailServer:
    """``refusals`` maps an address to what RCPT is answered; ``greeting`` to what everybody is."""

    port: int
    mails: list[tuple[str, Message]] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    greeting: str = "220 ready"

    @property
    def recipients(self) -> list[str]:
        return [address for address, _ in self.mails]


class _Dialogue(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as smtplib speaks."""

    mail: ClassVar[MailServer]

    def handle(self) -> None:
        self._say(self.mail.greeting)
        to: list[str] = []
        while line := self.rfile.readline():
            verb, _, rest = line.decode().strip().partition(" ")
            match verb.upper():
                case "DATA":
                    self._say("354 go on")
                    self._take(to)
                case "RCPT":
                    address = rest.partition("<")[2].partition(">")[0]
                    to = [address]
                    self._say(self.mail.refusals.get(address, "250 ok"))
                case "QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _take(self, to: list[str]) -> None:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        self.mail.mails += [(address, message_from_bytes(b"".join(lines))) for address in to]
        self._say("250 queued")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """An SMTP server on loopback."""
    dialogue = type("BoundDialogue", (_Dialogue,), {})
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), dialogue)
    server.daemon_threads = True
    mail = dialogue.mail = MailServer(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield mail
    server.shutdown()
    server.server_close()
    thread.join()
