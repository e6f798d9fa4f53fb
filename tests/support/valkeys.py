"""Valkeys of a test's own, to freeze, kill, fill and flush: one, or a cluster of three.

with running() as valkey:
    valkey.freeze()

with running_cluster() as nodes:
    nodes[1].kill()
"""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from esper_site.embedded.ports import private_port
from esper_site.embedded.valkey import find_binary
from tests.support.waiting import wait_until

SLOTS = 16384
NODE_TIMEOUT_MS = 500
"""After which the nodes of a cluster take one that does not answer for failed."""


@dataclass
class Valkey:
    """One server on a port of its own, with nothing in it at each start."""

    folder: Path
    port: int
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """For the test itself: patient, but without retries."""
        return redis.Redis(port=self.port, socket_timeout=5, protocol=2, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Begin to start it; ``await_answers`` waits until it has."""
        command = [str(find_binary()), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def await_answers(self) -> None:
        wait_until(self.answers, seconds=10)

    def answers(self) -> bool:
        try:
            with self.client as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def cluster_info(self) -> dict[str, str]:
        """What this node knows of its cluster."""
        with self.client as client:
            info: dict[str, str] = client.execute_command("CLUSTER INFO")
        return info

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a machine that loses its power: no goodbye."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()
        self.await_answers()


@contextmanager
def running(*options: str) -> Iterator[Valkey]:
    """One server; ``options`` as on its command line."""
    with _started(*options) as valkey:
        valkey.await_answers()
        yield valkey


@contextmanager
def running_cluster() -> Iterator[list[Valkey]]:
    """Three nodes without replicas, each with a third of the slots."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-port")
    with ExitStack() as stack:
        # By default the port among nodes is 10000 above the other, where outgoing connections of the machine are.
        buses = [str(private_port(None)) for _ in range(3)]
        nodes = [stack.enter_context(_started(*options, bus)) for bus in buses]
        for number, node in enumerate(nodes):
            node.await_answers()
            with node.client as client:
                first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port, buses[0])
        wait_until(lambda: all(_is_whole(node.cluster_info()) for node in nodes), seconds=15)
        yield nodes


def _is_whole(info: dict[str, str]) -> bool:
    """Does the node know of all three, and that they have all slots?"""
    return (info["cluster_state"], info["cluster_known_nodes"], info["cluster_size"]) == ("ok", "3", "3")


@contextmanager
def _started(*options: str) -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="esper-valkey-") as folder:
        valkey = Valkey(Path(folder), private_port(None), options)
        valkey.start()
        try:
            yield valkey
        finally:
            valkey.kill()
