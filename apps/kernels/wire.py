"""Frames to and from a child process, without ever blocking past a deadline or trusting a length."""

import contextlib
import os
import selectors
import subprocess
import time

from apps.kernels import frames

_CHUNK = 1 << 20


class PipeClosed(Exception):
    """The child closed its pipe, or broke the protocol: there will be no more frames."""


class Wire:
    """The parent's end of a child's standard input and output."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)

    def send(self, frame: bytes) -> None:
        """Queue a frame; ``receive`` writes it while it waits."""
        self._outgoing = memoryview(frame)

    def receive(self, deadline: float) -> frames.Frame:
        """The child's next frame.

        Raises:
            TimeoutError: none came before ``deadline`` (of time.monotonic). PipeClosed: none will come.
        """
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

    def ended(self) -> bool:
        """Has the child closed its end, or said something unasked?"""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            return bool(self._incoming or selector.select(0)) and not self._awaits_first_frame
