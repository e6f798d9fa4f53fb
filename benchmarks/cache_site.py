"""What the bench of the kernel cache works on: servers of its own, and processes that were started with them.

    with own_site(say) as site:               # PostgreSQL, two Valkeys, a folder as object storage
        found = in_fresh_process(measure, site)    # its Django has the settings of this environment

The variables that name the user's own servers are taken out of the environment meanwhile, so no process that is started
here can reach them.
"""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.database import own_database
from esper_site.embedded import ports, valkey
from esper_site.embedded.privileges import child_setup
from esper_site.embedded.process import wait_for

READY_SECONDS = 20.0
L2, BROKER = "cache", "broker"


@dataclass
class Valkey:
    """One server on a port of its own; any process may kill it and start it again, and it ends with who started it."""

    server: valkey.Server
    pid: int = 0
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return self.server.url

    def client(self) -> redis.Redis:
        """As redis-py makes it, but without retries and for bytes."""
        return redis.Redis.from_url(self.url, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError: it does not."""
        with (self.server.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.server.program(dict(os.environ)).command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=child_setup(None, signal.SIGKILL),  # noqa: PLW1509 - no threads were started
            )
        self.pid = self._process.pid
        if not wait_for(self.server.answers, seconds=READY_SECONDS, interval=0.005):
            raise RuntimeError((self.server.folder / "log").read_text(errors="replace")[-2000:])

    def kill(self) -> None:
        """As a machine that loses its power."""
        os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # another process started it, and has to wait for it
            os.waitpid(self.pid, 0)

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __getstate__(self) -> dict[str, Any]:
        """For other processes."""
        return {"server": self.server, "pid": self.pid, "_process": None}


@dataclass(frozen=True, slots=True)
class Site:
    """The servers of one part of the bench; ``folder`` has the object storage in it."""

    folder: Path
    l2: Valkey
    broker: Valkey


@contextmanager
def own_site(say: Callable[[str], Any]) -> Iterator[Site]:
    """A PostgreSQL, two Valkeys and a folder, all thrown away in the end. Raises StackError."""
    with own_database(say), own_valkeys(Path(settings.ESPER_HOME)) as site:
        yield site


@contextmanager
def own_valkeys(folder: Path, **cache: Any) -> Iterator[Site]:
    """Two Valkeys on the database that the environment names; ``cache``: settings of the cache, by their name."""
    before = dict(os.environ)
    servers = {role: Valkey(_server(role, folder)) for role in (L2, BROKER)}
    try:
        for server in servers.values():
            server.start()
        _use(folder, servers, cache)
        yield Site(folder, servers[L2], servers[BROKER])
    finally:
        os.environ.clear()
        os.environ.update(before)
        for server in servers.values():
            with suppress(ProcessLookupError):
                server.kill()


def _server(role: str, folder: Path) -> valkey.Server:
    own = folder / f"valkey-{role}"
    own.mkdir(mode=0o755, exist_ok=True)
    server = valkey.Server(role, valkey.find_binary(), own, ports.private_port(None), "bench", None)
    server.configure()
    return server


def _use(folder: Path, servers: Mapping[str, Valkey], cache: Mapping[str, Any]) -> None:
    for name in [name for name in os.environ if name.startswith(("ESPER_S3_", "ESPER_CACHE_"))]:
        del os.environ[name]
    os.environ |= {
        "ESPER_HOME": str(folder),
        "REDIS_URL": servers[L2].url,
        "BROKER_URL": servers[BROKER].url,
        "ESPER_LOG_LEVEL": "CRITICAL",  # faults are what is measured here
        **{f"ESPER_CACHE_{name.upper()}": str(value) for name, value in cache.items()},
    }


# --- Processes


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a process that loads Django with the environment as it is now.

    Raises:
        RuntimeError: it ended without an answer; what went wrong is on its standard error.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} ended without an answer") from None
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()
    return found


def _call(pipe: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    import django

    django.setup()
    pipe.send(function(*arguments))


class Child:
    """A forked process that works on orders: Django is loaded already, servers are connected to anew.

    ``work(pipe, *arguments)`` runs in it. It dies when its parent does.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        from django.db import connections

        connections.close_all()
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        tie = child_setup(None, signal.SIGKILL)
        self._process = context.Process(target=_work, args=(tie, work, theirs, arguments))
        self._process.start()
        theirs.close()

    def send(self, message: Any) -> None:
        """Lost if it is dead: its end is what ``receive`` tells."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(message)

    def receive(self) -> Any:
        """Its next message. Raises EOFError: it is dead."""
        try:
            return self.pipe.recv()
        except ConnectionResetError:
            raise EOFError from None

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._process.kill()
        self._process.join()

    def end(self) -> None:
        """Wait for the end of one that was told to end, or dies by itself."""
        self._process.join()
        self.pipe.close()


def _work(tie: Callable[[], None], work: Callable[..., None], pipe: Connection, arguments: tuple[Any, ...]) -> None:
    tie()
    work(pipe, *arguments)
