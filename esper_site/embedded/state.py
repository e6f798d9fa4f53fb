"""What a stack remembers (ports, passwords, secret key) and how others learn that it runs.

`stack.json` (0600) holds both; `stack.lock` is held by flock while the stack runs, by the supervisor and by its keeper,
so that a second start waits until the first has really gone.
"""

import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from esper_site.embedded.errors import StackError
from esper_site.embedded.home import Home, explain, write_private

PASSWORDS = ("superuser", "owner", "app", "valkey")


@dataclass
class Running:
    """The live part: written by a supervisor once its services answer."""

    pid: int
    environment: dict[str, str]
    url: str | None = None


@dataclass
class State:
    """The content of `stack.json`."""

    secret_key: str
    passwords: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    prepared: str | None = None
    running: Running | None = None

    def save(self, home: Home) -> None:
        write_private(home.state, json.dumps(asdict(self), indent=2) + "\n")


def load(home: Home) -> State | None:
    """Read the state; None where there is none yet.

    Raises:
        StackError: it cannot be read, or is no state.
    """
    try:
        content: dict[str, Any] = json.loads(home.state.read_text())
        running = content.pop("running", None)
        return State(**content, running=Running(**running) if running else None)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StackError(explain(error, home.state)) from None
    except (ValueError, TypeError, AttributeError):
        raise StackError(
            f"{home.state} is damaged. Restore it from a backup: it holds the passwords of the data beside it. "
            f"To start over with nothing, move {home.root} away."
        ) from None


def load_or_create(home: Home) -> State:
    """Read the state, or make one with fresh secrets and save it."""
    state = load(home)
    if state is None:
        state = State(
            secret_key=secrets.token_urlsafe(48),
            passwords={name: secrets.token_urlsafe(24) for name in PASSWORDS},
        )
        state.save(home)
    return state


class Lock:
    """An flock on a home; released when the last process that holds its descriptor ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, home: Home) -> "Lock | None":
        """Take the lock without waiting; None while another process holds it."""
        try:
            descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StackError(explain(error, home.root)) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def release(self) -> None:
        os.close(self.descriptor)


def is_locked(home: Home) -> bool:
    """True while a stack (or what cleans up after it) holds the home. Does not create anything."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def running(home: Home) -> Running | None:
    """The stack that runs in `home` now: its lock is held and its supervisor is alive."""
    if not is_locked(home):
        return None
    state = load(home)
    if state is None or state.running is None or not is_alive(state.running.pid):
        return None
    return state.running


def is_alive(pid: int) -> bool:
    """True while a process with this id exists, whoever it belongs to."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
