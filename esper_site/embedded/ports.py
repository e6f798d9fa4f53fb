"""Ports of the stack: remembered between starts, and never one that another program has a claim on."""

import secrets
import socket
from collections.abc import Collection

from esper_site.embedded.errors import StackError

# Below the range that Linux gives to outgoing connections (32768 and up): a remembered port is then rarely in use.
PRIVATE_RANGE = range(15000, 30000)
WEB_RANGE = range(8000, 8100)


def is_free(port: int) -> bool:
    """True where a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as probe:
        # As the servers do: closed connections of the last run must not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def private_port(remembered: int | None, avoid: Collection[int] = ()) -> int:
    """The remembered port while it is free, else a random free one that nobody expects a service on."""
    if remembered is not None and is_free(remembered):
        return remembered
    for _ in range(200):
        port = secrets.choice(PRIVATE_RANGE)
        if port not in avoid and is_free(port):
            return port
    raise StackError("No free port on 127.0.0.1 between 15000 and 30000 for the embedded services.")


def web_port(asked: int | None, remembered: int | None) -> int:
    """The port asked for, or the remembered one, or the first free one from 8000.

    Raises:
        StackError: the port asked for is taken, or none is free.
    """
    if asked is not None:
        if not is_free(asked):
            raise StackError(
                f"Port {asked} is taken by another program. Stop that one, or choose another port with --web-port or "
                "ESPER_WEB_PORT."
            )
        return asked
    if remembered is not None and is_free(remembered):
        return remembered
    port = next(filter(is_free, WEB_RANGE), None)
    if port is None:
        raise StackError("No free port between 8000 and 8099. Choose one with --web-port or ESPER_WEB_PORT.")
    return port
