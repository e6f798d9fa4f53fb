"""The sandbox's child reaches nothing: no file, no network, no database, no process, nothing of its parent's."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.kernels.confinement import SANDBOX_UIDS
from apps.kernels.sandbox import ROOT, Passed, Sandbox

WORKER = "tests.integration.sandbox_probe"
SECRET = b"the database's password"
NOBODY = 65_534


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server on the loopback interface, as the embedded database is one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder like .esper: 0700, a secret of 0600 in it. Not below pytest's own folder, which is closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "secret").touch(mode=0o600)
        (Path(folder) / "secret").write_bytes(SECRET)
        yield Path(folder)


def escape(home: Path, listener: socket.socket) -> dict[str, Any]:
    """What the probe reports of its attempts, and what the confinement says of itself."""
    open_file = home / "open"
    open_file.write_bytes(b"kept")
    open_file.chmod(0o666)
    job = {
        "kind": "escape",
        "secret": str(home / "secret"),
        "open_file": str(open_file),
        "port": listener.getsockname()[1],
    }
    with Sandbox(WORKER) as sandbox:
        outcome = sandbox.run(job)
    assert isinstance(outcome, Passed), outcome
    return dict(outcome.report)


def worked(report: dict[str, Any], attempt: str) -> bool:
    return bool(report[attempt].startswith("done"))


def has_visitor(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
        return True
    except BlockingIOError:
        return False


def test_the_probe_would_succeed_outside(home: Path, listener: socket.socket) -> None:
    """The attempts are real ones: unconfined, those that hurt nobody all work."""
    from tests.integration import sandbox_probe

    assert sandbox_probe._read(str(home / "secret")) == SECRET
    assert sandbox_probe._connect(listener.getsockname()[1]) == "connected"
    assert has_visitor(listener)


def test_it_cannot_read_the_home_of_the_platform(home: Path, listener: socket.socket) -> None:
    report = escape(home, listener)
    assert not worked(report, "read")
    assert not worked(report, "list")


def test_it_cannot_read_what_everyone_may_read(home: Path, listener: socket.socket) -> None:
    """So the protection does not rest on the account alone: the workers may run as the one that owns the home."""
    home.chmod(0o755)
    (home / "secret").chmod(0o644)
    assert not worked(escape(home, listener), "read")


def test_it_cannot_reach_a_server_on_this_machine(home: Path, listener: socket.socket) -> None:
    report = escape(home, listener)
    assert not worked(report, "connect")
    assert not worked(report, "socket")
    assert not has_visitor(listener)


def test_it_cannot_start_a_thread_or_a_process(home: Path, listener: socket.socket) -> None:
    report = escape(home, listener)
    assert not any(worked(report, attempt) for attempt in ("thread", "fork"))


def test_it_gains_nothing_by_becoming_another_program(home: Path) -> None:
    home.chmod(0o777)
    with Sandbox(WORKER) as sandbox:
        sandbox.run({"kind": "execute", "file": str(home / "made")})
    assert not (home / "made").exists()


def test_it_cannot_change_files_that_everyone_may_change(home: Path, listener: socket.socket) -> None:
    home.chmod(0o777)
    report = escape(home, listener)
    isolation = report["isolation"]["filesystem"]
    assert (home / "open").read_bytes() == b"kept" or isolation.startswith("refused by this machine")


def test_it_knows_nothing_of_its_parents_environment(
    home: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://secret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    report = escape(home, listener)
    assert report["environment"].keys() <= {"OMP_NUM_THREADS", "LC_CTYPE"}


def test_the_folder_that_it_stands_in_exists_no_more(home: Path, listener: socket.socket) -> None:
    assert escape(home, listener)["directory"] == "ENOENT"


def test_every_step_of_the_confinement_is_reported(home: Path, listener: socket.socket) -> None:
    isolation = escape(home, listener)["isolation"]
    assert isolation.keys() == {"network", "account", "parent", "privileges", "filesystem", "descriptors"}


@pytest.mark.root
def test_started_as_root_it_runs_as_an_account_of_its_own(home: Path, listener: socket.socket) -> None:
    report = escape(home, listener)
    assert report["uid"] in SANDBOX_UIDS
    assert not worked(report, "signal_parent")


@pytest.mark.root
def test_it_cannot_read_what_another_account_owns(home: Path, listener: socket.socket) -> None:
    os.chown(home / "secret", 12_345, 12_345)
    os.chown(home, 12_345, 12_345)
    assert not worked(escape(home, listener), "read")


UNPRIVILEGED = """
import encodings.ascii, encodings.idna  # now: the interpreter may lie where the account below cannot read
import json, os, sys
sys.path.insert(0, sys.argv[1])
from apps.kernels import confinement
from tests.integration import sandbox_probe
job = json.loads(sys.argv[2])
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(job["uid"], job["uid"], job["uid"])
    os.setresuid(job["uid"], job["uid"], job["uid"])
before = sandbox_probe._try(lambda: sandbox_probe._read(job["secret"]))
network = confinement.leave_network()
connect = sandbox_probe._try(lambda: sandbox_probe._connect(job["port"]))
isolation = confinement.seal(memory_bytes=1 << 30, cpu_s=10, file_bytes=0)
report, _ = sandbox_probe.escape(job, b"", print)
print(json.dumps({**report, "before": before, "network": network, "outside": connect, "isolation": isolation}))
"""


@pytest.fixture
def as_the_owner(home: Path, listener: socket.socket) -> dict[str, Any]:
    """The same attempts by a process that runs as the very account that owns the home, and never was root."""
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    open_file = home / "open"
    open_file.write_bytes(b"kept")
    for path in (home, home / "secret", open_file):
        os.chown(path, uid, -1)
    job = {
        "uid": uid,
        "secret": str(home / "secret"),
        "open_file": str(open_file),
        "port": listener.getsockname()[1],
    }
    command = [sys.executable, "-I", "-c", UNPRIVILEGED, str(ROOT), json.dumps(job)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env={})
    return {**json.loads(result.stdout), "kept": open_file.exists() and open_file.read_bytes() == b"kept"}


def test_even_the_owner_of_the_home_is_shut_out_once_sealed(as_the_owner: dict[str, Any]) -> None:
    assert worked(as_the_owner, "before")
    assert not any(worked(as_the_owner, attempt) for attempt in ("read", "list", "connect", "socket", "fork", "thread"))


def test_even_the_owner_of_the_home_cannot_harm_it_once_sealed(as_the_owner: dict[str, Any]) -> None:
    assert as_the_owner["kept"] or as_the_owner["isolation"]["filesystem"].startswith("refused by this machine")


def test_the_network_is_left_before_anything_is_sealed(as_the_owner: dict[str, Any], listener: socket.socket) -> None:
    left = not worked(as_the_owner, "outside") and not has_visitor(listener)
    assert left or as_the_owner["network"].startswith("refused by this machine")
