"""The child's side of the sandbox: import the trusted handlers, seal the process, then serve jobs from standard input.

A handlers module offers ``HANDLERS`` (job kind -> function) and ``warm_up``, which does whatever may open files later.
Imports no torch itself: what is heavy comes with the handlers. Run by ``apps.kernels.sandbox`` only.
"""

import importlib
import json
import os
import select
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from apps.kernels import confinement, frames

OUT_OF_MEMORY = "needs more memory than the sandbox allows"

Announce = Callable[[str], None]
Handler = Callable[[Mapping[str, Any], bytes, Announce], tuple[dict[str, Any], bytes]]
"""(job, attachment, announce stage) -> (report, attachment); raises JobRejected."""


class JobRejected(Exception):
    """The job was done, and its subject failed. ``report`` says how far it came."""

    def __init__(self, reason: str, *, stage: str, report: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.stage = stage
        self.report = report


def main(handlers_name: str, limits_json: str) -> None:
    """Serve jobs until standard input ends, or there is none for ``idle_s`` seconds."""
    limits: dict[str, Any] = json.loads(limits_json)
    network = confinement.leave_network()
    source, sink = _take_pipes()
    os.environ["OMP_NUM_THREADS"] = "1"  # a second thread could not be sealed, nor started once sealed
    handlers = importlib.import_module(handlers_name)
    handlers.warm_up()
    os.rmdir(os.getcwd())  # nothing can be put there any more, and nothing is left behind if the parent is killed
    isolation = confinement.seal(
        memory_bytes=limits["memory_bytes"],
        # Whole seconds round up for each job, and the last one must meet its soft limit before this hard one.
        cpu_s=(limits["cpu_s"] + 1) * limits["jobs"] + 10,
        file_bytes=limits["file_bytes"],
    )
    frames.write_frame(sink, {"event": "ready", "isolation": {"network": network, **isolation}})
    # The parent asks only after the last answer, so nothing waits in the stream's buffer while select looks at it.
    while select.select([source], [], [], limits["idle_s"])[0] and (frame := frames.read_frame(source)) is not None:
        confinement.allow_cpu_seconds(limits["cpu_s"])
        if not _serve(handlers.HANDLERS, frame, sink):
            return


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes for ourselves, and standard output onto standard error: a library's print must not break a frame."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return source, sink


def _serve(handlers: Mapping[str, Handler], frame: frames.Frame, sink: BinaryIO) -> bool:
    """Do one job; false when the process may be unfit for another."""
    job, attachment = frame
    stage = "start"

    def announce(name: str) -> None:
        nonlocal stage
        stage = name
        frames.write_frame(sink, {"event": "stage", "stage": name})

    try:
        report, produced = handlers[job["kind"]](job, attachment, announce)
        frames.write_frame(sink, {"event": "passed", "report": report}, produced)
        return True
    except JobRejected as error:
        rejected = {"reason": str(error), "stage": error.stage, "report": error.report, "reusable": True}
    except BaseException as error:  # a panic in a Rust library is no Exception; either way it is the job's verdict
        rejected = {"reason": _explain(error), "stage": stage, "report": {}, "reusable": False}
    # Only here, where the failed job's memory is free again: an answer needs some too.
    frames.write_frame(sink, {"event": "rejected", **rejected})
    return bool(rejected["reusable"])


def tells_of_memory(text: str) -> bool:
    """Is this how torch, C++ or Rust say that they could not allocate?"""
    return any(mark in text for mark in ("allocate memory", "bad_alloc", "memory allocation of"))


def _explain(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or tells_of_memory(text):
        return OUT_OF_MEMORY
    return f"failed unexpectedly: {type(error).__name__}: {text[:300]}"
