"""Whatever a job does to its sandbox, the parent gets a typed outcome in bounded time and goes on with the next job."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.kernels.sandbox import ROOT, InfrastructureFault, Limits, Passed, Rejected, Sandbox, shared_sandbox

WORKER = "tests.integration.sandbox_probe"
MEBIBYTE = 1 << 20


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    limits = Limits(wall_s=5, cpu_s=2, memory_bytes=512 * MEBIBYTE)
    with Sandbox(WORKER, limits=limits) as sandbox:
        yield sandbox


@pytest.fixture
def hasty() -> Iterator[Sandbox]:
    with Sandbox(WORKER, limits=Limits(wall_s=0.3)) as sandbox:
        yield sandbox


def pid_of(sandbox: Sandbox) -> int:
    outcome = sandbox.run({"kind": "echo"})
    assert isinstance(outcome, Passed), outcome
    return int(outcome.report["pid"])


def rejection(sandbox: Sandbox, job: dict[str, Any]) -> Rejected:
    """The job is rejected, and the sandbox serves the next one."""
    outcome = sandbox.run(job)
    assert isinstance(outcome, Rejected), outcome
    assert pid_of(sandbox) > 0
    return outcome


def await_true(condition: Callable[[], bool], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


def ended(pid: int) -> bool:
    """Gone, or dead and not yet reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_job_and_its_bytes_come_back(sandbox: Sandbox) -> None:
    data = os.urandom(3 * MEBIBYTE)
    outcome = sandbox.run({"kind": "echo", "text": "ä"}, data)
    assert isinstance(outcome, Passed)
    assert outcome.data == data
    assert outcome.report["job"] == {"kind": "echo", "text": "ä"}


def test_one_child_serves_many_jobs(sandbox: Sandbox) -> None:
    assert pid_of(sandbox) == pid_of(sandbox)


def test_a_worn_out_child_is_replaced() -> None:
    with Sandbox(WORKER, limits=Limits(jobs=2)) as sandbox:
        first, second, third = (pid_of(sandbox) for _ in range(3))
    assert first == second != third


def test_an_idle_child_ends_itself_and_the_next_job_gets_another() -> None:
    with Sandbox(WORKER, limits=Limits(idle_s=0.2)) as sandbox:
        first = pid_of(sandbox)
        assert await_true(lambda: ended(first))
        assert pid_of(sandbox) != first


def test_what_a_job_prints_disturbs_nothing(sandbox: Sandbox) -> None:
    assert isinstance(sandbox.run({"kind": "noise"}), Passed)
    assert pid_of(sandbox) > 0


def test_a_rejection_keeps_its_reason_stage_and_report(sandbox: Sandbox) -> None:
    pid = pid_of(sandbox)
    outcome = rejection(sandbox, {"kind": "reject"})
    assert (outcome.reason, outcome.stage, outcome.report["sweet"]) == ("not good enough", "taste", False)
    assert pid_of(sandbox) == pid


def test_a_job_that_hangs_is_killed_at_its_deadline(hasty: Sandbox) -> None:
    pid = pid_of(hasty)
    outcome = rejection(hasty, {"kind": "wait"})
    assert (outcome.reason, outcome.stage) == ("did not finish within 0.3 seconds", "waiting")
    assert ended(pid)


def test_a_job_that_never_stops_talking_is_killed_at_its_deadline(hasty: Sandbox) -> None:
    assert rejection(hasty, {"kind": "chatter"}).reason == "did not finish within 0.3 seconds"


def test_a_job_that_burns_cpu_time_is_ended() -> None:
    with Sandbox(WORKER, limits=Limits(cpu_s=1, wall_s=30)) as sandbox:
        outcome = rejection(sandbox, {"kind": "spin"})
    assert (outcome.reason, outcome.stage) == ("used more than 1 seconds of CPU time", "spinning")


def test_a_job_that_wants_too_much_memory_is_refused(sandbox: Sandbox) -> None:
    outcome = rejection(sandbox, {"kind": "allocate", "bytes": 1024 * MEBIBYTE})
    assert (outcome.reason, outcome.stage) == ("needs more memory than the sandbox allows", "allocating")


def test_an_unexpected_error_is_a_rejection_without_a_traceback(sandbox: Sandbox) -> None:
    outcome = rejection(sandbox, {"kind": "fail"})
    assert (outcome.reason, outcome.stage) == ("failed unexpectedly: ZeroDivisionError: no reason", "failing")


def test_a_process_that_met_an_unexpected_error_is_not_used_again(sandbox: Sandbox) -> None:
    pid = pid_of(sandbox)
    rejection(sandbox, {"kind": "fail"})
    assert pid_of(sandbox) != pid


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_a_job_that_crashes_the_process_is_rejected(sandbox: Sandbox, name: str) -> None:
    outcome = rejection(sandbox, {"kind": "die", "signal": name})
    assert (outcome.reason, outcome.stage) == (f"crashed the sandbox ({name})", "dying")


def test_a_real_memory_fault_is_rejected(sandbox: Sandbox) -> None:
    assert rejection(sandbox, {"kind": "crash"}).reason == "crashed the sandbox (SIGSEGV)"


def test_a_job_that_leaves_quietly_is_rejected(sandbox: Sandbox) -> None:
    assert rejection(sandbox, {"kind": "leave"}).reason == "crashed the sandbox (status 0)"


@pytest.mark.parametrize("kind", ["garble", "lie"])
def test_a_child_that_breaks_the_protocol_is_not_believed(sandbox: Sandbox, kind: str) -> None:
    assert "broke the sandbox's protocol" in rejection(sandbox, {"kind": kind}).reason


def test_a_kill_from_outside_blames_the_machine(sandbox: Sandbox) -> None:
    with pytest.raises(InfrastructureFault, match=r"killed from outside in stage 'dying'"):
        sandbox.run({"kind": "die", "signal": "SIGKILL"})
    assert pid_of(sandbox) > 0


def test_a_sandbox_that_cannot_start_says_why() -> None:
    with (
        Sandbox("tests.integration.no_such_worker") as sandbox,
        pytest.raises(InfrastructureFault, match=r"No module named 'tests\.integration\.no_such_worker'"),
    ):
        sandbox.run({"kind": "echo"})


def test_a_missing_folder_blames_the_machine(tmp_path: Path) -> None:
    with (
        Sandbox(WORKER, workdir=tmp_path / "gone") as sandbox,
        pytest.raises(InfrastructureFault, match="No such file or directory"),
    ):
        sandbox.run({"kind": "echo"})


def test_a_job_too_large_for_the_wire_is_refused_before_it_is_sent(sandbox: Sandbox) -> None:
    outcome = sandbox.run({"kind": "echo", "text": "x" * 2 * MEBIBYTE})
    assert isinstance(outcome, Rejected)
    assert "over the limit" in outcome.reason


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with Sandbox(WORKER, workdir=tmp_path) as sandbox:
        pid = pid_of(sandbox)
    assert ended(pid)
    assert not list(tmp_path.iterdir())


def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from apps.kernels.sandbox import Sandbox\n"
        "from pathlib import Path\n"
        f"sandbox = Sandbox({WORKER!r}, workdir=Path({str(tmp_path)!r}))\n"
        "print(sandbox.run({'kind': 'echo'}).report['pid'], flush=True)\n"
        "sandbox.run({'kind': 'wait'})\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert await_true(lambda: ended(child))
    assert not list(tmp_path.iterdir())


def test_a_forked_process_leaves_its_parents_child_alone(sandbox: Sandbox) -> None:
    pid = pid_of(sandbox)
    script_pid = os.fork()
    if script_pid == 0:
        sandbox.close()
        os._exit(0)
    os.waitpid(script_pid, 0)
    assert pid_of(sandbox) == pid


def test_each_thread_keeps_a_sandbox_of_its_own() -> None:
    others: list[Sandbox] = []
    thread = threading.Thread(target=lambda: others.append(shared_sandbox()))
    thread.start()
    thread.join()
    assert shared_sandbox() is shared_sandbox()
    assert others[0] is not shared_sandbox()
