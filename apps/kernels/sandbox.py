"""The compile sandbox, parent side: a confined child process does jobs; a typed outcome for each. No torch here.

    with Sandbox() as sandbox:
        outcome = sandbox.run({"kind": "compile", "spec": spec, "seed": 0})

The child gets an empty environment, an empty folder of its own, three descriptors and no more, its own process group,
and seals itself before it reads a job (``confinement``). What it may use is in ``Limits``. One child serves many jobs,
one after another: starting it costs more than most jobs. A child that died or hung is replaced for the next job.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from apps.kernels import frames

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
WORKER = "apps.kernels.sandbox_worker"
MEBIBYTE = 1 << 20

# -I takes the working directory and the user's packages off the path, so the project's root is put there explicitly.
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from apps.kernels.sandbox_child import main; main(*sys.argv[2:])"
_STDERR_KEPT = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sandbox may use. Seconds and CPU seconds are per job."""

    memory_bytes: int = 2048 * MEBIBYTE
    """Address space. torch takes 640 MiB of it before the first job."""
    cpu_s: int = 60
    wall_s: float = 90.0
    start_s: float = 120.0
    """For importing torch, on a machine that may be busy."""
    jobs: int = 64
    """Jobs per child; then a fresh one takes over."""
    file_bytes: int = 65_536
    """Largest file it may write (its standard error: it can open no other)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """The job was done and its subject is good."""

    report: Mapping[str, Any]
    data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The job's subject is at fault; trying again gives the same. ``reason`` is a sentence for people."""

    reason: str
    stage: str
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The machine is at fault: the sandbox did not start or was killed from outside. The only outcome worth a retry."""

    error: str


Outcome = Passed | Rejected | Fault


class _ChildLost(Exception):
    """The child closed its pipe or broke the protocol."""


class Sandbox:
    """A context manager around one child at a time. Not shared between threads: the child dies with its thread."""

    def __init__(self, worker: str = WORKER, *, limits: Limits | None = None, workdir: Path | None = None) -> None:
        self._worker = worker
        self._limits = limits or Limits()
        self._workdir = workdir
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if one runs."""
        if self._child is not None:
            self._child.close()
            self._child = None

    @property
    def isolation(self) -> Mapping[str, str]:
        """What the running child's confinement achieved; empty while none runs."""
        return self._child.isolation if self._child else {}

    def run(self, job: Mapping[str, Any], data: bytes = b"") -> Outcome:
        """Do one job, in a fresh child when none is fit."""
        try:
            request = frames.encode(job, data)
        except frames.FrameError as error:
            return Rejected(reason=str(error), stage="start")
        if self._child is not None and self._child.jobs_left <= 0:
            self.close()
        if self._child is None:
            try:
                self._child = _Child(self._worker, self._limits, self._workdir)
            except OSError as error:
                return Fault(error=f"the sandbox did not start: {error}")
            try:
                self._child.wait_until_ready()
            except (_ChildLost, TimeoutError) as error:
                fault = Fault(error=f"the sandbox did not start: {self._child.explain(error)}")
                self.close()
                return fault
        outcome, reusable = self._child.do(request)
        if not reusable:
            self.close()
        return outcome


def run_in_sandbox(
    job: Mapping[str, Any], data: bytes = b"", *, limits: Limits | None = None, workdir: Path | None = None
) -> Outcome:
    """Do one job in a child of its own. ``workdir``: where its temporary folder is made (default: the system's)."""
    with Sandbox(limits=limits, workdir=workdir) as sandbox:
        return sandbox.run(job, data)


def _field(message: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a child's message. Raises _ChildLost: nothing that a child says is taken on trust."""
    value = message.get(name)
    if not isinstance(value, kind):
        raise _ChildLost("it broke the protocol")
    return value


def _spawn(worker: str, limits: Limits, folder: str, stderr: IO[bytes]) -> "subprocess.Popen[bytes]":
    settings = {name: getattr(limits, name) for name in ("memory_bytes", "cpu_s", "jobs", "file_bytes")}
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


class _Child:
    """One child process: its pipes, its folder, its end."""

    def __init__(self, worker: str, limits: Limits, workdir: Path | None) -> None:
        self._limits = limits
        self.jobs_left = limits.jobs
        self.isolation: Mapping[str, str] = {}
        with contextlib.ExitStack() as resources:
            folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="sandbox-", dir=workdir))
            self._stderr = resources.enter_context(tempfile.TemporaryFile(dir=folder))
            self._process = _spawn(worker, limits, folder, self._stderr)
            self._wire = _Wire(self._process)
            self._resources = resources.pop_all()

    def wait_until_ready(self) -> None:
        """Raises TimeoutError or _ChildLost."""
        message, _ = self._wire.receive(time.monotonic() + self._limits.start_s)
        self.isolation = _field(message, "isolation", dict)

    def do(self, request: bytes) -> tuple[Outcome, bool]:
        """(outcome, whether the child is fit for another job)."""
        self.jobs_left -= 1
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
                        raise _ChildLost("it broke the protocol")
        except TimeoutError:
            return Rejected(reason=f"did not finish within {self._limits.wall_s:g} seconds", stage=stage), False
        except _ChildLost as error:
            return self._post_mortem(error, stage), False

    def explain(self, error: Exception) -> str:
        """Why there is no answer, with the end of what the child printed."""
        self._kill()
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_KEPT))
        printed = self._stderr.read().decode(errors="replace").strip()
        status = f"{str(error) or 'no answer in time'}, status {self._process.returncode}"
        return f"{status}: {printed}" if printed else status

    def close(self) -> None:
        self._kill()
        self._wire.close()
        self._resources.close()

    def _report(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**_field(message, "report", dict), "isolation": dict(self.isolation)}

    def _rejected(self, message: Mapping[str, Any]) -> Rejected:
        reason, stage = _field(message, "reason", str), _field(message, "stage", str)
        return Rejected(reason=reason, stage=stage, report=self._report(message))

    def _post_mortem(self, error: _ChildLost, stage: str) -> Outcome:
        """The child is gone in the middle of a job: the job's doing, unless someone outside killed it."""
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return Rejected(reason=f"stopped answering: {error}", stage=stage)
        if status == -signal.SIGKILL:
            return Fault(error=f"the sandbox was killed from outside in stage {stage} (is the machine out of memory?)")
        if status == -signal.SIGXCPU:
            return Rejected(reason=f"used more than {self._limits.cpu_s} seconds of CPU time", stage=stage)
        end = signal.Signals(-status).name if status < 0 else f"status {status}"
        return Rejected(reason=f"crashed the sandbox ({end})", stage=stage)

    def _kill(self) -> None:
        """End the process group. The child leads it and is not yet reaped, so the id cannot be someone else's."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class _Wire:
    """Frames over the child's pipes, without ever blocking past a deadline."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)

    def send(self, frame: bytes) -> None:
        """Queue a frame; ``receive`` writes it."""
        self._outgoing = memoryview(frame)

    def receive(self, deadline: float) -> frames.Frame:
        """The child's next frame. Raises TimeoutError at the deadline, _ChildLost when there will be none."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            if self._outgoing:
                selector.register(self._stdin, selectors.EVENT_WRITE)
            while (frame := self._take_frame()) is None:
                left = deadline - time.monotonic()
                # Asked first: a child that never stops talking is always ready to be read.
                if left <= 0 or not (ready := selector.select(left)):
                    raise TimeoutError
                for key, _ in ready:
                    if key.fileobj is self._stdout:
                        self._read()
                    elif not self._write():
                        selector.unregister(self._stdin)
        return frame

    def close(self) -> None:
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def _take_frame(self) -> frames.Frame | None:
        if len(self._incoming) < frames.LENGTHS_SIZE:
            return None
        try:
            message_size, data_size = frames.frame_size(bytes(self._incoming[: frames.LENGTHS_SIZE]))
            start = frames.LENGTHS_SIZE + message_size
            if len(self._incoming) < start + data_size:
                return None
            message = bytes(self._incoming[frames.LENGTHS_SIZE : start])
            data = bytes(self._incoming[start : start + data_size])
            del self._incoming[: start + data_size]
            return frames.decode(message, data)
        except frames.FrameError as error:
            raise _ChildLost(f"it broke the protocol: {error}") from error

    def _read(self) -> None:
        chunk = os.read(self._stdout.fileno(), MEBIBYTE)
        if not chunk:
            raise _ChildLost("it ended")
        self._incoming += chunk

    def _write(self) -> bool:
        """Write what the pipe takes; false once all is written."""
        try:
            written = os.write(self._stdin.fileno(), self._outgoing[:MEBIBYTE])
        except BrokenPipeError as error:
            raise _ChildLost("it ended") from error
        self._outgoing = self._outgoing[written:]
        return bool(self._outgoing)
