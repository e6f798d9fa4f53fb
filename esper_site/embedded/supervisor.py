"""One loop for all children: pump their output, notice deaths, start them again, stop them together.

Single-threaded on purpose: the parent-death signal follows the *thread* that forked, so every child is started by the
main thread.
"""

import os
import re
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from esper_site.embedded.console import WARNING_WORDS, Console, LogFile
from esper_site.embedded.errors import StackError
from esper_site.embedded.process import Keeper, Program, end_group, spawn
from esper_site.embedded.privileges import Account

MAX_DEATHS = 5
DEATH_WINDOW = 60.0  # seconds
FIRST_BACKOFF = 0.5  # seconds, doubled with each further death in the window
TAIL_LINES = 12
MAX_LINE = 64 * 1024
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


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

    @property
    def last_words(self) -> str:
        return "\n".join(f"    {line}" for line in self.tail) or "    (it said nothing)"


class Supervisor:
    """Holds the children of one stack. Use as a context manager: leaving it stops everything."""

    def __init__(self, *, account: Account | None, keeper: Keeper, console: Console, logs: Path) -> None:
        self.children: dict[str, Child] = {}
        self._account = account
        self._keeper = keeper
        self._console = console
        self._logs = logs
        self._selector = selectors.DefaultSelector()
        self._asked: list[int] = []
        self._stopping = False

    def __enter__(self) -> "Supervisor":
        # Handlers only wake the loop: what a signal means is decided there, at a safe point.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._old_wakeup = signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, _ignore) for number in (*SIGNALS, signal.SIGCHLD)}
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(*reversed(_LEVELS))
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
