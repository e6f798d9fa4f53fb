"""Run as a script, by path: end the stack's process groups once the pipe on standard input closes.

Standard library only and no import of our own: it starts in milliseconds and cannot be broken by the rest. Lines read:
`+ GROUP SIGNAL` registers a process group, `- GROUP 0` forgets one. While it works it also holds the stack's lock, by
an inherited descriptor, so that the next start waits for it.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

PATIENCE = 5.0  # seconds between each group's own stop signal and SIGKILL


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: dict[int, int] = {}
    for line in sys.stdin:
        sign, group, number = line.split()
        if sign == "+":
            groups[int(group)] = int(number)
        else:
            groups.pop(int(group), None)
    end(groups)


def end(groups: dict[int, int]) -> None:
    """Ask each group's leader, wait a little, then kill whatever is left."""
    for group, number in groups.items():
        send(os.kill, group, number)
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    # The leader gone, what it started has nobody left to answer to.
    while time.monotonic() < deadline and any(send(os.kill, group, 0) for group in groups):
        for group in groups:
            if not send(os.kill, group, 0):
                send(os.killpg, group, signal.SIGKILL)
        pause.wait(0.05)
    for group in groups:
        send(os.killpg, group, signal.SIGKILL)


def send(call: Callable[[int, int], None], target: int, number: int) -> bool:
    """Send a signal; False where the target does not exist (any more)."""
    try:
        call(target, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
