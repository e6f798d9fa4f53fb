"""`manage.py up` as a person runs it: a process of its own, in a home of its own, watched from outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from esper_site.embedded.home import REPOSITORY, Home
from esper_site.embedded.process import wait_for
from esper_site.embedded.stack import URLS
from esper_site.embedded.state import State, load

START_SECONDS = 90.0
# What would point the new stack at this session's servers, or at this session's settings.
FOREIGN = (*URLS, "DATABASE_OWNER_URL", "ESPER_SECRET_KEY", "ESPER_WEB_PORT", "DJANGO_SETTINGS_MODULE")


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without any server in it, and with this home."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN} | {
        "ESPER_HOME": str(home),
        **(extra or {}),
    }


def manage(home: Path, *arguments: str, timeout: float = 60, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a manage.py command to its end."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "manage.py"), *arguments],
        env=clean_environment(home, extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped home with a migrated database; tests work on copies, which start in half a second."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    with Up(home, "--only", "none") as up:
        up.wait_until_ready()
        assert up.interrupt() == 0
    return home


@pytest.fixture
def home(prepared_home: Path, tmp_path: Path) -> Path:
    """A stopped home of this test's own, with a migrated database."""
    return copy_home(prepared_home, tmp_path)


def copy_home(stopped: Path, folder: Path) -> Path:
    """Copy a stopped home into a folder, owners and all."""
    subprocess.run(["cp", "-a", stopped, folder / "home"], check=True)
    return folder / "home"


class Up:
    """One `manage.py up`; use as a context manager, which kills what is left."""

    def __init__(self, home: Path, *arguments: str, **extra: str) -> None:
        self.home = home
        self.log = home.parent / f"{home.name}-up.log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "manage.py"), "up", *arguments],
                env=clean_environment(home, extra),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "Up":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not self.survivors(), seconds=15)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def state(self) -> State:
        state = load(Home(self.home))
        assert state is not None
        return state

    def wait_for_line(self, text: str, *, seconds: float = START_SECONDS) -> None:
        """Wait until the terminal shows `text`; fails with the whole output if `up` ends first."""
        wait_for(lambda: text in self.output or self.process.poll() is not None, seconds=seconds)
        assert text in self.output, self.output

    def wait_until_ready(self) -> "Up":
        self.wait_for_line("esper    | ready")
        return self

    def interrupt(self, number: signal.Signals = signal.SIGINT, *, seconds: float = 40) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=seconds)

    def survivors(self) -> dict[int, str]:
        """Process id -> command line of everything that belongs to this home, except `up` itself."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in (self.process.pid, os.getpid()):
                command = _belonging(entry, str(self.home))
                if command is not None:
                    found[int(entry.name)] = command
        return found

    def commands_of_root(self) -> list[str]:
        """Command lines of those that run as root."""
        return [command for pid, command in self.survivors().items() if (Path("/proc") / str(pid)).stat().st_uid == 0]

    def pid_of(self, *words: str) -> int:
        """The process whose command line has all these words (the lowest id, if several: the parent)."""
        return min(pid for pid, command in self.survivors().items() if all(word in command for word in words))


def _belonging(entry: Path, home: str) -> str | None:
    """The command line of a process that names `home` in it, in its environment or as its working folder."""
    try:
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        environment = (entry / "environ").read_bytes().decode(errors="replace")
        folder = os.readlink(entry / "cwd")
        zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return None
    if zombie or (home not in command and f"ESPER_HOME={home}" not in environment and not folder.startswith(home)):
        return None
    return command
