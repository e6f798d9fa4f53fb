"""One loop for all children: pump their output, notice deaths, start them again, stop them together.

Single-threaded on purpose: the parent-death signal follows the *thread* that forked, so every child has to be started
by the main thread.
"""

import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from esper_site.embedded.console import Console, LogFile
from esper_site.embedded.errors import StackError
from esper_site.embedded.privileges import Account
from esper_site.embedded.process import Keeper, Program, end_group, spawn

MAX_DEATHS = 5
DEATH_WINDOW = 60.0  # seconds
FIRST_BACKOFF = 0.5  # seconds, doubled with each further death in the window
TAIL_LINES = 12
MAX_LINE = 64 * 1024
TICK = 0.1  # seconds; deaths and signals wake the loop earlier
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CONTROLS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_SERVICE_ALARM = re.compile(r"\b(FATAL|PANIC|OOM|No space left)\b")


class StopAsked(Exception):
    """A person pressed Ctrl-C, or the system asked us to end."""


@dataclass
class Child:
    """A program under supervision, over all its incarnations."""

    program: Program
    log: LogFile
    process: subprocess.Popen[bytes] | None = None
    deaths: deque[float] = field(default_factory=deque)
    start_at: float | None = None
    ready: bool = False
    rest: bytes = b""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))


class Supervisor:
    """The children of one stack. A context manager: leaving it stops them all, whatever happened inside."""

    def __init__(self, *, account: Account | None, keeper: Keeper, console: Console, logs: Path) -> None:
        self.children: dict[str, Child] = {}
        self._account = account
        self._keeper = keeper
        self._console = console
        self._logs = logs
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []

    def __enter__(self) -> "Supervisor":
        # The handlers do nothing but wake the loop: what a signal means is decided there, at a safe point.
        self._wake, self._wake_write = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._old_wakeup = signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {
            number: signal.signal(number, lambda *_: None) for number in (*STOP_SIGNALS, signal.SIGCHLD)
        }
        return self

    def __exit__(self, *exception: object) -> None:
        if self.children:
            self._console.say("stopping")
        self.stop()
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        self._wake.close()
        self._wake_write.close()

    def start(self, program: Program) -> None:
        """Start a program and keep it running from now on.

        Raises:
            StackError: it cannot be executed.
        """
        child = Child(program, LogFile(self._logs / f"{program.name}.log"))
        self.children[program.name] = child
        self._spawn(child)

    def wait_for(self, condition: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Run the loop until `condition` holds.

        Raises:
            StopAsked: a signal arrived first.
            StackError: a child keeps dying, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.pump(TICK / 2):
                raise StopAsked
            if time.monotonic() > deadline:
                raise StackError(f"{what} did not get ready within {seconds:.0f} s. The logs are in {self._logs}.")

    def run(self, *, until: Callable[[], bool] = lambda: False) -> None:
        """Keep everything running until asked to stop, or until the condition holds."""
        while not until():
            if self.pump(TICK):
                raise StopAsked

    def pump(self, timeout: float) -> list[int]:
        """One turn of the loop; returns the stop signals that arrived."""
        self._listen(timeout)
        self._keeper.ensure()
        now = time.monotonic()
        for child in self.children.values():
            if child.process is not None and child.process.poll() is not None:
                self._bury(child, now)
            if child.start_at is not None and child.start_at <= now:
                self._spawn(child)
        signals, self._signals = self._signals, []
        return signals

    def ready(self, names: Iterable[str]) -> bool:
        """True once each of these programs has said that it is ready."""
        return all(self.children[name].ready for name in names)

    def stop(self) -> None:
        """Stop the processes, then the services that they use; a second Ctrl-C stops waiting."""
        for services in (False, True):
            level = [child for child in self.children.values() if child.program.is_service is services]
            self._stop_level(level)
        for child in self.children.values():
            child.log.close()
        self.children.clear()

    def _spawn(self, child: Child) -> None:
        read, write = os.pipe()
        try:
            child.process = spawn(child.program, account=self._account, keeper=self._keeper, output=write)
        except StackError:
            os.close(read)
            raise
        finally:
            os.close(write)
        child.start_at, child.ready, child.rest = None, False, b""
        os.set_blocking(read, False)
        self._selector.register(read, selectors.EVENT_READ, child)

    def _listen(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                received = self._wake.recv(512)
                self._signals += [number for number in received if number in STOP_SIGNALS]
            else:
                self._read(key.fd, key.data)

    def _read(self, descriptor: int, child: Child) -> None:
        """Take what the child wrote; at end of file forget the pipe."""
        try:
            data = os.read(descriptor, MAX_LINE)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(descriptor)
            os.close(descriptor)
            return
        child.log.write(data)
        *lines, child.rest = (child.rest + data).split(b"\n")
        if len(child.rest) > MAX_LINE:
            lines, child.rest = [*lines, child.rest], b""
        for line in lines:
            self._show(child, _CONTROLS.sub("", line.decode(errors="replace")).rstrip())

    def _show(self, child: Child, line: str) -> None:
        child.tail.append(line)
        pattern = child.program.ready_pattern
        if pattern is not None and not child.ready:
            child.ready = re.search(pattern, line) is not None
        if line and (not child.program.is_service or _SERVICE_ALARM.search(line)):
            self._console.process_line(child.program.name, line)

    def _bury(self, child: Child, now: float) -> None:
        """A child died unasked: sweep up after it and plan its next start."""
        process, child.process, child.ready = child.process, None, False
        if process is None:
            return
        self._sweep(process)
        self._listen(0)  # its last words
        child.deaths.append(now)
        while child.deaths[0] < now - DEATH_WINDOW:
            child.deaths.popleft()
        name, how = child.program.name, describe_end(process.returncode)
        if len(child.deaths) >= MAX_DEATHS:
            words = "\n".join(f"    {line}" for line in child.tail) or "    (nothing)"
            raise StackError(
                f"{name} ended {MAX_DEATHS} times within a minute, the last time {how}. Its last words:\n{words}\n"
                f"The whole log is {self._logs / name}.log."
            )
        backoff = FIRST_BACKOFF * 2 ** (len(child.deaths) - 1)
        child.start_at = now + backoff
        self._console.say(f"{name} ended {how}; starting it again in {backoff:.1f} s")

    def _stop_level(self, level: list[Child]) -> None:
        alive: list[tuple[Child, subprocess.Popen[bytes]]] = []
        for child in level:
            child.start_at = None
            if child.process is not None:
                alive.append((child, child.process))
                child.process.send_signal(child.program.stop_signal)
        started, hurried = time.monotonic(), False
        while alive:
            self._listen(TICK)
            hurried = hurried or bool(self._signals)
            self._signals.clear()
            waited = time.monotonic() - started
            for child, process in tuple(alive):
                if process.poll() is None and (hurried or waited > child.program.patience):
                    end_group(process.pid)
                if process.poll() is not None:
                    self._sweep(process)
                    child.process = None
                    alive.remove((child, process))
        self._listen(0)

    def _sweep(self, process: subprocess.Popen[bytes]) -> None:
        end_group(process.pid)
        self._keeper.remove(process.pid)


def describe_end(returncode: int) -> str:
    """`with exit code 3`, or `by SIGKILL`."""
    if returncode >= 0:
        return f"with exit code {returncode}"
    return f"by {signal.Signals(-returncode).name}"
