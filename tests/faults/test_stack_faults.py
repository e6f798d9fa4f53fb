"""The whole stack under attack: Ctrl-C, kill -9 of any part, a full disk, a home that others cannot enter."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from esper_site.embedded.home import REPOSITORY
from esper_site.embedded.process import KEEPER, wait_for
from tests.support.up import Up, clean_environment, manage


def answers(up: Up) -> bool:
    """True once the stack's database takes a query."""
    running = up.state.running
    if running is None:
        return False
    try:
        with psycopg.connect(running.environment["DATABASE_URL"], connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}healthz", timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture
def up(home: Path) -> Iterator[Up]:
    """Services only."""
    with Up(home, "--only", "none") as running:
        yield running.wait_until_ready()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_leaves_nothing_running(up: Up, number: signal.Signals) -> None:
    assert up.interrupt(number) == 0
    assert up.survivors() == {}
    assert up.state.running is None


def test_a_killed_database_comes_back_with_its_data(up: Up) -> None:
    os.kill(up.pid_of("postgres", "-D"), signal.SIGKILL)
    up.wait_for_line("postgres ended by SIGKILL; starting it again")
    assert wait_for(lambda: answers(up), seconds=20)


def test_after_kill_9_of_the_supervisor_all_is_gone_and_a_new_start_works(up: Up) -> None:
    up.interrupt(signal.SIGKILL)
    with Up(up.home, "--only", "none") as again:
        again.wait_until_ready()
        assert "taken by another program" not in again.output
        assert answers(again)
        assert again.interrupt() == 0
        assert again.survivors() == {}


def test_a_killed_keeper_is_replaced(up: Up) -> None:
    first = up.pid_of("keeper.py")
    os.kill(first, signal.SIGKILL)
    assert wait_for(lambda: any("keeper.py" in command for command in up.survivors().values()), seconds=5)
    up.interrupt(signal.SIGKILL)
    assert wait_for(lambda: not up.survivors(), seconds=15), up.survivors()


def test_a_worker_whose_child_hangs_does_not_outlive_a_killed_supervisor(home: Path) -> None:
    with Up(home, "--only", "train") as up:
        up.wait_until_ready()
        parent = up.pid_of("celery", "--queues=train")
        (child,) = (int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        os.kill(child, signal.SIGSTOP)  # it can react to nothing any more, like one deep in a computation
        up.interrupt(signal.SIGKILL)
        assert wait_for(lambda: not up.survivors(), seconds=20), up.survivors()


def test_the_whole_platform_runs_heals_and_ends(home: Path) -> None:
    with Up(home) as up:
        up.wait_until_ready()
        url = up.state.running.url  # type: ignore[union-attr]
        assert f"ready at {url}" in up.output
        assert healthy(url)
        if os.geteuid() == 0:
            assert [command.split()[-1] for command in up.commands_of_root()] == [str(KEEPER)]

        os.kill(up.pid_of("granian"), signal.SIGKILL)
        os.kill(up.pid_of("celery", "--queues=compile"), signal.SIGKILL)
        up.wait_for_line("web ended by SIGKILL; starting it again")
        up.wait_for_line("compile ended by SIGKILL; starting it again")
        assert wait_for(lambda: healthy(url), seconds=30)

        assert up.interrupt() == 0
        assert up.survivors() == {}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    """Write until the disk takes no more."""
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(b"\0" * 65536):
            pass


@pytest.mark.root
def test_a_disk_too_small_is_said_before_anything_starts(small_disk: Path) -> None:
    result = manage(small_disk / "home", "up", "--only", "none")
    assert result.returncode == 1
    assert "No space to start" in result.stdout
    assert "ESPER_HOME" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.root
def test_a_disk_that_is_full_now_is_named(small_disk: Path) -> None:
    home = small_disk / "home"
    (home / "postgres").mkdir(parents=True)
    fill(small_disk)
    result = manage(home, "up", "--only", "none")
    assert result.returncode == 1
    assert f"No space left on the disk of {home}" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.root
def test_a_home_closed_to_others_still_gets_unprivileged_servers(home: Path) -> None:
    home.parent.chmod(0o700)
    with Up(home, "--only", "none") as up:
        up.wait_until_ready()
        assert "with leave to read everything" in up.output
        for word in ("postgres", "valkey"):
            assert (Path("/proc") / str(up.pid_of(word))).stat().st_uid != 0


@pytest.mark.root
def test_a_home_that_cannot_be_written_is_explained(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    result = manage(small_disk / "home", "up", "--only", "none")
    assert result.returncode == 1
    assert f"{small_disk / 'home'} cannot be written (Read-only file system)" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.root
def test_a_home_that_no_account_can_read_is_explained(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    without_capability = ["setpriv", "--bounding-set=-dac_read_search", sys.executable, REPOSITORY / "manage.py"]
    result = subprocess.run(
        [*without_capability, "up", "--only", "none"],
        env=clean_environment(closed / "home"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert "that account cannot read" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
