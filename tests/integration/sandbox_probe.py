"""Jobs for the sandbox's own tests: a worker that tries to get out, and one that misbehaves. Imports no torch."""

import ctypes
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from apps.kernels.sandbox_child import Announce, JobRejected

Answer = tuple[dict[str, Any], bytes]


def warm_up() -> None:
    """Nothing to load."""


def _try(action: Callable[[], object]) -> str:
    """ "done: ..." when the action worked, else the name of the error."""
    try:
        return f"done: {action()!r}"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "OSError")
    except (RuntimeError, MemoryError) as error:
        return type(error).__name__


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _connect(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=2):
        return "connected"


def escape(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    """Try every way out; report what each attempt gave."""
    attempts: dict[str, Callable[[], object]] = {
        "read": lambda: _read(job["secret"]),
        "list": lambda: os.listdir(os.path.dirname(job["secret"])),
        "truncate": lambda: os.truncate(job["open_file"], 0),
        "unlink": lambda: os.unlink(job["open_file"]),
        "connect": lambda: _connect(job["port"]),
        "socket": lambda: socket.socket().close(),
        "fork": os.fork,
        "thread": lambda: threading.Thread(target=int).start(),
        "signal_parent": lambda: os.kill(os.getppid(), 0),
    }
    report: dict[str, Any] = {name: _try(attempt) for name, attempt in attempts.items()}
    return {**report, "uid": os.getuid(), "environment": dict(os.environ), "directory": _try(os.getcwd)}, b""


def execute(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    """Become another program, one that writes a file."""
    return {"execute": _try(lambda: os.execv("/bin/sh", ["sh", "-c", f"echo > '{job['file']}'"]))}, b""


def echo(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    return {"pid": os.getpid(), "job": dict(job)}, data


def noise(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    """Print far more than a pipe holds, on both standard streams."""
    for stream in (sys.stdout, sys.stderr):
        stream.write("x" * 200_000)
    return {"pid": os.getpid()}, b""


def reject(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    raise JobRejected("not good enough", stage="taste", report={"sweet": False})


def wait(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    announce("waiting")
    threading.Event().wait()
    raise AssertionError("nobody sets the event")


def chatter(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    while True:
        announce("talking")


def spin(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    announce("spinning")
    while True:
        pass


def allocate(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    announce("allocating")
    return {"bytes": len(bytearray(job["bytes"]))}, b""


def fail(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    announce("failing")
    raise ZeroDivisionError("no reason")


def die(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    announce("dying")
    os.kill(os.getpid(), signal.Signals[job["signal"]])
    raise AssertionError("it was fatal")


def crash(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    announce("crashing")
    ctypes.string_at(0)
    raise AssertionError("it was fatal")


def leave(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    announce("leaving")
    os._exit(0)


def garble(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    """Write what is no frame into every pipe that is open for writing."""
    announce("garbling")
    for descriptor in range(3, 16):
        _try(lambda descriptor=descriptor: os.write(descriptor, b"\xff" * 64))
    return {}, b""


def lie(job: Mapping[str, Any], data: bytes, announce: Announce) -> Answer:
    """A report that is no object."""
    return [], b""  # type: ignore[return-value]


HANDLERS = {
    function.__name__: function
    for function in (
        escape,
        execute,
        echo,
        noise,
        reject,
        wait,
        chatter,
        spin,
        allocate,
        fail,
        die,
        crash,
        leave,
        garble,
        lie,
    )
}
