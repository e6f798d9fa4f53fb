"""The supervisor and its keeper with small programs: deaths, stubborn children, sudden death of the parent."""

import io
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from esper_site.embedded import console, supervisor
from esper_site.embedded.console import Console
from esper_site.embedded.errors import StackError
from esper_site.embedded.home import REPOSITORY
from esper_site.embedded.process import Keeper, Program, wait_for
from esper_site.embedded.state import is_alive
from esper_site.embedded.supervisor import StopAsked, Supervisor

# A child that ignores SIGTERM, with a child of its own that does too; writes both ids. `$$` is the shell's own id.
STUBBORN = 'trap "" TERM; sleep 300 & echo "$$ $!" > {pids}; echo up; wait; sleep 300'


@pytest.fixture
def terminal() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def supervised(tmp_path: Path, terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF", 0.01)
    keeper = Keeper()
    with Supervisor(account=None, keeper=keeper, console=Console(terminal), logs=tmp_path) as running:
        yield running
    keeper.close()


def shell(command: str, *, patience: float = 5.0, ready_pattern: str | None = None) -> Program:
    return Program(
        name="program",
        command=["/bin/sh", "-c", command],
        environment={"PATH": "/usr/bin:/bin"},
        folder=Path("/"),
        patience=patience,
        ready_pattern=ready_pattern,
    )


def test_a_dead_child_is_started_again(supervised: Supervisor, tmp_path: Path, terminal: io.StringIO) -> None:
    marker = tmp_path / "once"
    program = shell(f"test -e {marker} && echo again && exec sleep 300; touch {marker}; exit 3", ready_pattern="again")
    supervised.start(program)
    supervised.wait_for(lambda: supervised.ready(["program"]), seconds=10, what="the program")
    assert "program ended with exit code 3; starting it again" in terminal.getvalue()


def test_the_fifth_death_within_a_minute_ends_it_all_with_the_last_words(supervised: Supervisor) -> None:
    supervised.start(shell("echo the reason; kill -9 $$"))
    with pytest.raises(StackError, match=r"ended 5 times within a minute, the last time by SIGKILL(.|\n)*the reason"):
        supervised.run()


def test_a_program_that_does_not_exist_is_named(supervised: Supervisor) -> None:
    program = Program(name="ghost", command=["/no/such/program"], environment={}, folder=Path("/"))
    with pytest.raises(StackError, match=r"Cannot start ghost \(/no/such/program\): No such file or directory"):
        supervised.start(program)


def test_a_child_that_ignores_the_stop_signal_is_killed_with_all_it_started(
    supervised: Supervisor, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    supervised.start(shell(STUBBORN.format(pids=pids), patience=0.3, ready_pattern="up"))
    supervised.wait_for(lambda: supervised.ready(["program"]), seconds=10, what="the program")
    supervised.stop()
    children = [int(pid) for pid in pids.read_text().split()]
    assert wait_for(lambda: not any(map(is_alive, children)), seconds=2)


def test_a_signal_to_the_supervisor_asks_it_to_stop(supervised: Supervisor) -> None:
    supervised.start(shell("exec sleep 300"))
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(StopAsked):
        supervised.run()


def test_a_line_cannot_play_tricks_with_the_terminal(supervised: Supervisor, terminal: io.StringIO) -> None:
    supervised.start(shell(r"printf '\033[2J\033]0;owned\007safe\n'; exec sleep 300", ready_pattern="safe"))
    supervised.wait_for(lambda: supervised.ready(["program"]), seconds=10, what="the program")
    assert "\033" not in terminal.getvalue()
    assert "safe" in terminal.getvalue()


def test_a_log_has_bounded_size(supervised: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LOG_BYTES", 20_000)
    supervised.start(shell("seq 1 30000; echo end; exec sleep 300", ready_pattern="^end$"))
    supervised.wait_for(lambda: supervised.ready(["program"]), seconds=10, what="the program")
    sizes = [path.stat().st_size for path in tmp_path.glob("program.log*")]
    assert len(sizes) == 2
    assert max(sizes) <= 20_000 + supervisor.MAX_LINE


PARENT = """
import sys
from pathlib import Path
from esper_site.embedded.process import Keeper, Program, spawn
program = Program(name="stubborn", command=["/bin/sh", "-c", sys.argv[1]], environment={}, folder=Path("/"))
child = spawn(program, account=None, keeper=Keeper(), output=sys.stdout.fileno())
child.wait()
"""


def test_a_parent_killed_without_warning_takes_stubborn_grandchildren_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, STUBBORN.format(pids=pids)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    parent.wait()
    children = [int(pid) for pid in pids.read_text().split()]
    assert wait_for(lambda: not any(map(is_alive, children)), seconds=15)
    parent.stdout.close()
