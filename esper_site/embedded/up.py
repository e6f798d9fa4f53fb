"""`manage.py up`: services, migrations, web, workers and beat in one terminal, from start to stop.

Runs before Django is loaded, so that it starts in milliseconds and needs no database to begin with.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence

from esper_site.embedded import processes, state
from esper_site.embedded.console import Console
from esper_site.embedded.errors import StackError
from esper_site.embedded.home import Home
from esper_site.embedded.process import wait_for
from esper_site.embedded.session import Session
from esper_site.embedded.supervisor import StopAsked

LOCK_SECONDS = 60.0  # another start may be migrating, or a keeper cleaning up after a killed supervisor


def parser() -> argparse.ArgumentParser:
    """The command line of `manage.py up`."""
    result = argparse.ArgumentParser(prog="manage.py up", description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(result)
    return result


def add_arguments(target: argparse.ArgumentParser) -> None:
    target.add_argument(
        "--run", metavar="COMMAND", help="run this manage.py command inside the stack, then stop what was started"
    )
    target.add_argument(
        "--only",
        metavar="NAMES",
        type=_names,
        default=processes.NAMES,
        help=f"start only these processes beside the services: some of {','.join(processes.NAMES)}, or none",
    )
    target.add_argument(
        "--web-port",
        type=int,
        default=None,
        help="port of the web server (default: 8000 or the next free one, remembered)",
    )


def _names(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in processes.NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}. Known: {', '.join(processes.NAMES)}, none")
    return names


def main(argv: Sequence[str]) -> int:
    """Run `manage.py up` with these arguments; returns the exit code."""
    options = parser().parse_args(argv)
    return up(run=options.run, only=options.only, web_port=options.web_port or _web_port_from_environment())


def _web_port_from_environment() -> int | None:
    text = os.environ.get("ESPER_WEB_PORT", "")
    return int(text) if text.isdigit() else None


def up(*, run: str | None, only: Sequence[str], web_port: int | None) -> int:
    """Start the stack and stay until asked to stop, or until the command in it ends."""
    foreground = shlex.split(run) if run is not None else None
    # Standard output belongs to the command that runs inside, if there is one.
    console = Console(sys.stdout if foreground is None else sys.stderr, show_processes=foreground is None)
    try:
        home = Home.from_environment()
        home.create()
        lock = _take_lock(home, console)
        if lock is None:
            return _join(home, foreground, console)
        try:
            return Session(home, lock, console, only=only, web_port=web_port).run(foreground)
        finally:
            lock.release()
    except StopAsked:
        return 0 if foreground is None else 128 + signal.SIGINT
    except StackError as error:
        console.say(str(error))
        return 1


def _take_lock(home: Home, console: Console) -> state.Lock | None:
    """Take the home's lock; None where a live stack holds it.

    Raises:
        StackError: whoever holds it neither runs nor goes away.
    """
    taken: list[state.Lock] = []

    def settled() -> bool:
        lock = state.Lock.take(home)
        taken.extend([lock] if lock else [])
        return lock is not None or state.running(home) is not None

    if not wait_for(settled, seconds=0.3):
        console.say("waiting for another start or stop in this home to finish")
        if not wait_for(settled, seconds=LOCK_SECONDS):
            raise StackError(f"Another start in {home.root} has not finished. Look at the logs in {home.logs}.")
    return taken[0] if taken else None


def _join(home: Home, foreground: list[str] | None, console: Console) -> int:
    """A stack runs already: say where, or run the command inside it."""
    alive = state.running(home)
    if alive is None:
        raise StackError("The stack that was running has just ended. Start again.")
    if foreground is None:
        console.say(f"already running at {alive.url}" if alive.url else "already running (without a web process)")
        return 0
    command, environment = processes.manage(os.environ | alive.environment, *foreground)
    return subprocess.run(command, env=environment, check=False).returncode
