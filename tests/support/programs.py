"""Real processes for tests: Celery workers and the web server, as `manage.py up` runs them."""

import dataclasses
import http.client
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from esper_site.embedded import ports, processes
from esper_site.embedded.process import Program, spawn, stop_all, wait_for
from tests.support.stack import Servers

READY_SECONDS = 60.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class RunningProgram:
    """A process of a test; `pid` for those tests that kill it."""

    program: Program
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


Start = Callable[[Program, Callable[["RunningProgram"], bool]], RunningProgram]


@pytest.fixture
def start_program(servers: Servers, tmp_path: Path) -> Iterator[Start]:
    """Start a program, wait until it is ready, and stop it with the test; its output shows if the test fails."""
    started: list[RunningProgram] = []

    def start(program: Program, is_ready: Callable[[RunningProgram], bool]) -> RunningProgram:
        log = tmp_path / f"{program.name}-{next(_numbers)}.log"
        with log.open("wb") as output:
            process = spawn(program, account=None, keeper=servers.keeper, output=output)
        running = RunningProgram(program, process, log)
        started.append(running)
        if not wait_for(lambda: is_ready(running) or process.poll() is not None, seconds=READY_SECONDS) or (
            process.poll() is not None
        ):
            raise AssertionError(f"{program.name} did not get ready:\n{running.output[-4000:]}")
        return running

    yield start
    stop_all([(running.process, running.program) for running in started], servers.keeper)
    for running in started:
        print(f"--- {running.program.name}\n{running.output[-8000:]}")  # noqa: T201 - pytest shows it on failure


@pytest.fixture
def worker(committed_db: str, start_program: Start) -> Callable[..., RunningProgram]:
    """`worker("train")` starts the real worker of that queue on this test's database, and returns once it answers."""

    def start(queue: str, **environment: str) -> RunningProgram:
        host = f"test-{os.getpid()}-{next(_numbers)}"
        program = processes.worker(queue, os.environ | environment, host=host)
        return start_program(dataclasses.replace(program, patience=10.0), lambda running: _answers(f"{queue}@{host}"))

    return start


@pytest.fixture
def live_site(committed_db: str, start_program: Start) -> str:
    """The URL of a real web server on this test's database, without a slash at the end."""
    port = ports.private_port(None)
    start_program(processes.web(os.environ | {"ESPER_WEB_PORT": str(port)}, port), lambda running: _healthy(port))
    return f"http://127.0.0.1:{port}"


def _answers(worker_name: str) -> bool:
    """True once this worker replies to a ping over the broker."""
    from esper_site.celery import app

    return bool(app.control.ping(destination=[worker_name], timeout=0.5))


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
