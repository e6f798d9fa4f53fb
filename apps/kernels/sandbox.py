"""The compile sandbox, parent side: a confined child process does jobs; a typed outcome for each. No torch here.

    with Sandbox() as sandbox:
        outcome = sandbox.run({"kind": "compile", "spec": spec, "seed": 0})

The child gets an empty environment, an empty folder of its own, three descriptors and no more, its own process group,
and seals itself before it reads a job (``confinement``). What it may use is in ``Limits``. One child serves many jobs,
one after another: starting it costs more than most jobs. A child that died or hung is replaced for the next job.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from apps.kernels import frames
from apps.kernels.sandbox_child import OUT_OF_MEMORY, tells_of_memory
from apps.kernels.wire import PipeClosed, ProtocolBroken, Wire

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
WORKER = "apps.kernels.sandbox_worker"
MEBIBYTE = 1 << 20

# -I takes the working directory and the user's packages off the path, so the project's root is put there explicitly.
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from apps.kernels.sandbox_child import main; main(*sys.argv[2:])"
_STDERR_KEPT = 2_000
_REASON_KEPT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sandbox may use. Seconds, and CPU seconds, are per job."""

    memory_bytes: int = 1024 * MEBIBYTE
    """Address space beyond what the loaded torch takes itself (650 MiB; builds for GPUs much more)."""
    cpu_s: int = 60
    wall_s: float = 90.0
    start_s: float = 120.0
    """For importing torch, on a machine that may be busy."""
    jobs: int = 64
    """Jobs per child; then a fresh one takes over."""
    idle_s: float = 60.0
    """A child without a job for so long ends itself and frees its memory (300 MiB)."""
    file_bytes: int = MEBIBYTE
    """Largest file it may write (its standard error: it can open no other)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """The job was done and its subject is good. ``data`` is what it produced, if anything."""

    report: Mapping[str, Any]
    data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The job's subject is at fault; trying again gives the same. ``reason`` is a sentence for people.

    ``exceeded`` names the limit (a field of ``Limits``) that it went over, if that was its fault.
    """

    reason: str
    stage: str
    report: Mapping[str, Any] = field(default_factory=dict)
    exceeded: str = ""


Outcome = Passed | Rejected


class InfrastructureFault(Exception):
    """The machine is at fault, not the subject: the sandbox did not start, or was killed from outside. Do retry."""


class Sandbox:
    """A context manager around one child at a time. Stays in one thread: a child dies with the thread that made it."""

    def __init__(self, worker: str = WORKER, *, limits: Limits | None = None, workdir: Path | None = None) -> None:
        self._worker = worker
        self._limits = limits or Limits()
        self._workdir = workdir
        self._process = os.getpid()
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if one runs. A forked copy of this object leaves it to the process that started it."""
        if self._child is not None and self._process == os.getpid():
            self._child.close()
        self._child = None

    def run(self, job: Mapping[str, Any], data: bytes = b"") -> Outcome:
        """Do one job, in a fresh child when none is fit.

        Raises:
            InfrastructureFault: nothing is known about the job's subject.
        """
        try:
            request = frames.encode(job, data)
        except frames.FrameError as error:
            return Rejected(reason=str(error), stage="start")
        child = self._fit_child()
        try:
            outcome, reusable = child.do(request)
        except BaseException:
            self.close()
            raise
        if not reusable:
            self.close()
        return outcome

    def _fit_child(self) -> "_Child":
        if self._child is not None and not self._child.takes_another():
            self.close()
        if self._child is None:
            try:
                self._child = _Child(self._worker, self._limits, self._workdir)
            except OSError as error:
                raise InfrastructureFault(f"the sandbox did not start: {error}") from error
        return self._child


_own = threading.local()


def shared_sandbox() -> Sandbox:
    """This thread's sandbox, with the default limits, kept between calls so that a worker pays the start once.

    For jobs made of our own grammar. Bytes from strangers get a sandbox of their own, so that they meet nobody's job.
    """
    if getattr(_own, "process", None) != os.getpid():  # a forked process must not talk to its parent's child
        _own.process, _own.sandbox = os.getpid(), Sandbox()
        atexit.register(_own.sandbox.close)
    sandbox: Sandbox = _own.sandbox
    return sandbox


class _Child:
    """One child process: its pipes, its folder, its end."""

    def __init__(self, worker: str, limits: Limits, workdir: Path | None) -> None:
        self._limits = limits
        self._last_used = time.monotonic()
        self._jobs_left = limits.jobs
        self.isolation: Mapping[str, str] = {}
        with contextlib.ExitStack() as resources:
            # The child removes it once it has started; this is for one that does not come so far.
            folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-", dir=workdir))
            self._stderr = resources.enter_context(tempfile.TemporaryFile(dir=workdir))
            self._process = _spawn(worker, limits, folder, self._stderr)
            self._wire = Wire(self._process)
            self._resources = resources.pop_all()

    def takes_another(self) -> bool:
        """Alive, not worn out, and not so long idle that it may be about to end itself?"""
        idle = time.monotonic() - self._last_used
        return self._process.poll() is None and self._jobs_left > 0 and idle < self._limits.idle_s / 2

    def do(self, request: bytes) -> tuple[Outcome, bool]:
        """(outcome, whether the child is fit for another job). Raises InfrastructureFault."""
        self._wait_until_ready()
        self._jobs_left -= 1
        try:
            return self._converse(request)
        finally:
            self._last_used = time.monotonic()

    def _converse(self, request: bytes) -> tuple[Outcome, bool]:
        deadline = time.monotonic() + self._limits.wall_s
        stage = "start"
        self._wire.send(request)
        try:
            while True:
                message, data = self._wire.receive(deadline)
                match message.get("event"):
                    case "stage":
                        stage = _field(message, "stage", str)
                    case "passed":
                        return Passed(report=self._report(message), data=data), True
                    case "rejected":
                        return self._rejected(message), _field(message, "reusable", bool)
                    case _:
                        raise ProtocolBroken("it sent an unknown event")
        except TimeoutError:
            reason = f"did not finish within {self._limits.wall_s:g} seconds"
            return Rejected(reason=reason, stage=stage, exceeded="wall_s"), False
        except ProtocolBroken as error:
            return Rejected(reason=f"broke the sandbox's protocol: {error}", stage=stage), False
        except PipeClosed:
            return self._post_mortem(stage), False

    def close(self) -> None:
        self._kill()
        self._wire.close()
        self._resources.close()

    def _wait_until_ready(self) -> None:
        if self.isolation:
            return
        try:
            message, _ = self._wire.receive(self._last_used + self._limits.start_s)
            self.isolation = _field(message, "isolation", dict)
        except (PipeClosed, ProtocolBroken, TimeoutError) as error:
            raise InfrastructureFault(f"the sandbox did not start: {self._last_words(error)}") from error

    def _last_words(self, error: Exception) -> str:
        """Why there is no answer, with the end of what the child printed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0 if isinstance(error, TimeoutError) else 5)
        status = f"{str(error) or 'no answer in time'} (status {self._process.returncode})"
        return ": ".join(filter(None, (status, self._printed())))

    def _printed(self) -> str:
        """The end of what the child printed."""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_KEPT))
        return self._stderr.read().decode(errors="replace").strip()

    def _report(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**_field(message, "report", dict), "isolation": dict(self.isolation)}

    def _rejected(self, message: Mapping[str, Any]) -> Rejected:
        reason, stage = _field(message, "reason", str), _field(message, "stage", str)
        exceeded = "memory_bytes" if reason == OUT_OF_MEMORY else ""
        return Rejected(reason=reason[:_REASON_KEPT], stage=stage, report=self._report(message), exceeded=exceeded)

    def _post_mortem(self, stage: str) -> Rejected:
        """The child is gone in the middle of a job: the job's doing, unless someone outside killed it.

        Raises:
            InfrastructureFault: someone did.
        """
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Rejected(reason="stopped answering", stage=stage)
        if status == -signal.SIGKILL:
            raise InfrastructureFault(
                f"the sandbox was killed from outside in stage {stage!r} (is the machine out of memory?)"
            )
        if status == -signal.SIGXCPU:
            reason = f"used more than {self._limits.cpu_s} seconds of CPU time"
            return Rejected(reason=reason, stage=stage, exceeded="cpu_s")
        end = signal.Signals(-status).name if status < 0 else f"status {status}"
        if tells_of_memory(self._printed()):
            return Rejected(reason=OUT_OF_MEMORY, stage=stage, exceeded="memory_bytes")
        return Rejected(reason=f"crashed the sandbox ({end})", stage=stage)

    def _kill(self) -> None:
        """End the process group. The child leads it and is not yet reaped, so the id cannot be someone else's."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _spawn(worker: str, limits: Limits, folder: str, stderr: IO[bytes]) -> "subprocess.Popen[bytes]":
    names = ("memory_bytes", "cpu_s", "jobs", "idle_s", "file_bytes")
    settings = {name: getattr(limits, name) for name in names}
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", _BOOT, str(ROOT), worker, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=folder,
        env={},
        close_fds=True,
        start_new_session=True,
    )


def _field(message: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a child's message. Raises ProtocolBroken: nothing that a child says is taken on trust."""
    value = message.get(name)
    if not isinstance(value, kind):
        raise ProtocolBroken(f"{name} is missing or wrong")
    return value
