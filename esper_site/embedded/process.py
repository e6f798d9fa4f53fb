"""One child process: its description, its start, and its end together with everything it started itself."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from esper_site.embedded.errors import StackError
from esper_site.embedded.privileges import Account, child_setup

KEEPER = Path(__file__).with_name("keeper.py")


@dataclass(frozen=True)
class Program:
    """What to run, how to see in its output that it is ready, and how to end it.

    `patience` is the time in seconds between `stop_signal` and SIGKILL. A service (PostgreSQL, Valkey) is stopped after
    the processes that use it, and shows only alarms on the terminal.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    stop_signal: signal.Signals = signal.SIGTERM
    patience: float = 10.0
    ready_pattern: str | None = None
    is_service: bool = False


class Keeper:
    """A tiny process of its own that ends all children if this process is killed with no chance to do so itself.

    The parent-death signal reaches direct children only; the keeper holds the read end of a pipe, sees it close when we
    die in whatever way, and then ends every registered process group (a worker's pool included).
    """

    def __init__(self, inherit: Sequence[int] = ()) -> None:
        self._inherit = tuple(inherit)
        self._groups: dict[int, signal.Signals] = {}
        self._process = self._start()

    def announce(self, stop_signal: signal.Signals) -> None:
        """Called by a forked child about itself, before it becomes the program: no moment is left uncovered."""
        pipe = self._process.stdin
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # the parent starts another keeper and tells it all
                os.write(pipe.fileno(), f"+ {os.getpid()} {int(stop_signal)}\n".encode())

    def add(self, group: int, stop_signal: signal.Signals) -> None:
        """Remember a child that has announced itself."""
        self._groups[group] = stop_signal

    def remove(self, group: int) -> None:
        """Forget a child that has ended."""
        if self._groups.pop(group, None) is not None:
            self._write(f"- {group} 0\n")

    def ensure(self) -> None:
        """Start another keeper if somebody has killed it, and tell it all."""
        if self._process.poll() is not None:
            self._process = self._start()
            for group, number in self._groups.items():
                self._write(f"+ {group} {int(number)}\n")

    def close(self) -> None:
        """Let the keeper end what is still registered, and go."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=self._inherit,
            start_new_session=True,
        )

    def _write(self, message: str) -> None:
        pipe = self._process.stdin
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # `ensure` starts another and tells it all
                os.write(pipe.fileno(), message.encode())


def spawn(
    program: Program, *, account: Account | None, keeper: Keeper, output: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    """Start the program in its own session (our Ctrl-C does not reach it) and under `account`.

    Raises:
        StackError: it cannot be executed.
    """
    become = child_setup(account, program.stop_signal)

    def setup() -> None:
        keeper.announce(program.stop_signal)
        become()

    try:
        process = subprocess.Popen(
            program.command,
            env=dict(program.environment),
            cwd=program.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=setup,  # noqa: PLW1509 - see `supervisor`: no threads
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StackError(f"Cannot start {program.name} ({program.command[0]}): {reason}.") from None
    keeper.add(process.pid, program.stop_signal)
    return process


def end_group(group: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal every process that is left in a child's group."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def stop_all(children: Sequence[tuple[subprocess.Popen[bytes], Program]], keeper: Keeper) -> None:
    """Signal all, wait for each up to its patience, then kill what is left of each group."""
    for process, program in children:
        process.send_signal(program.stop_signal)
    started = time.monotonic()
    for process, program in children:
        try:
            process.wait(timeout=max(0.0, started + program.patience - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_group(process.pid)
        keeper.remove(process.pid)


def wait_for(condition: Callable[[], bool], *, seconds: float, interval: float = 0.05) -> bool:
    """Poll `condition` until it holds or the time is over; returns whether it held."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(interval)
    return True
