"""The real web server on the bench's own database, with two Valkeys of its own, and eight clients that ask it."""

import http.client
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from django.conf import settings

from esper_site.embedded import ports, postgres, processes, valkey
from esper_site.embedded.process import Keeper, spawn, stop_all, wait_for

READY_SECONDS = 60.0
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Site:
    """``url`` has no slash at its end; ``pid`` leads the server's processes."""

    url: str
    pid: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)

    def memory_mib(self) -> float:
        """Resident memory of the server with its children."""
        leader = psutil.Process(self.pid)
        return sum(process.memory_info().rss for process in (leader, *leader.children(recursive=True))) / 2**20


@contextmanager
def web_site(cluster: postgres.Cluster) -> Iterator[Site]:
    """Granian with the whole application, as `manage.py up` runs it."""
    home = Path(settings.ESPER_HOME)
    keeper, children = Keeper(), []
    environment = dict(os.environ)
    try:
        for name, role in (("REDIS_URL", "cache"), ("BROKER_URL", "broker")):
            folder = home / f"bench-{role}"
            folder.mkdir(mode=0o755)
            port = ports.private_port(None)
            server = valkey.Server(role, valkey.find_binary(), folder, port, "bench", None)
            server.configure()
            children.append(_start(server.program(environment), keeper, home))
            wait_for(server.answers, seconds=READY_SECONDS)
            environment[name] = server.url
        port = ports.private_port(None)
        web = processes.web(environment | {"ESPER_WEB_PORT": str(port)}, port)
        children.append(_start(web, keeper, home))
        site = Site(f"http://127.0.0.1:{port}", children[-1][0].pid)
        if not wait_for(lambda: _answers(site), seconds=READY_SECONDS):
            raise RuntimeError((home / "web.log").read_text(errors="replace")[-2000:])
        yield site
    finally:
        stop_all(children, keeper)
        keeper.close()


def _start(program: processes.Program, keeper: Keeper, home: Path) -> tuple:
    with (home / f"{program.name}.log").open("wb") as log:
        return spawn(program, account=None, keeper=keeper, output=log), program


def _answers(site: Site) -> bool:
    try:
        connection = site.connect()
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False


def rate(site: Site, requests: Callable[[int], tuple[str, dict[str, str]]], *, clients: int, seconds: float) -> float:
    """Answers per second that ``clients`` get together, each over one kept connection.

    ``requests(n)`` is the path and the headers of a client's next request. Raises AssertionError on another status
    than 200: a refusal is no answer.
    """
    until = time.monotonic() + seconds
    counts = [0] * clients
    faults: list[str] = []

    def ask(client: int) -> None:
        connection = site.connect()
        number = client
        while time.monotonic() < until and not faults:
            path, headers = requests(number)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != http.client.OK:
                faults.append(f"{answer.status} {body[:300]!r}")
            counts[client] += 1
            number += clients
        connection.close()

    begun = time.monotonic()
    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]
    return sum(counts) / (time.monotonic() - begun)


@dataclass(frozen=True, slots=True)
class Download:
    """One file, whole: how long it took, and how much more memory the server had meanwhile at most."""

    seconds: float
    bytes: int
    grown_mib: float


def download(site: Site, path: str, headers: dict[str, str]) -> Download:
    """Read it in pieces of 1 MiB, asking for the server's memory after every eighth."""
    before = site.memory_mib()
    connection = site.connect()
    begun = time.monotonic()
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    assert answer.status == http.client.OK, f"{answer.status} {answer.read(300)!r}"
    size, peak = 0, before
    while piece := answer.read(PIECE):
        size += len(piece)
        if size % (8 * PIECE) < PIECE:
            peak = max(peak, site.memory_mib())
    seconds = time.monotonic() - begun
    connection.close()
    return Download(seconds=seconds, bytes=size, grown_mib=peak - before)


def median_seconds(downloads: Sequence[Download]) -> float:
    return statistics.median(found.seconds for found in downloads)
