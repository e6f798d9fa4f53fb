"""Frames to and from a child process, without ever blocking past a deadline or trusting a length."""

import contextlib
import os
import selectors
import subprocess
import time

from apps.kernels import frames

_CHUNK = 1 << 20


class PipeClosed(Exception):
    """The child closed its pipe: there will be no more frames."""


class ProtocolBroken(Exception):
    """The child sent what is no frame, or not the one that was due. Nothing else that it says can be read."""


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
            TimeoutError: none came before ``deadline`` (of time.monotonic).
            PipeClosed, ProtocolBroken: none will come.
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

    def close(self) -> None:
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def _take_frame(self) -> frames.Frame | None:
        """The first whole frame received, if there is one."""
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
            raise ProtocolBroken(str(error)) from error

    def _read(self) -> None:
        chunk = os.read(self._stdout.fileno(), _CHUNK)
        if not chunk:
            raise PipeClosed("it ended")
        self._incoming += chunk

    def _write(self) -> bool:
        """Write what the pipe takes; false once all is written."""
        try:
            written = os.write(self._stdin.fileno(), self._outgoing[:_CHUNK])
        except BrokenPipeError as error:
            raise PipeClosed("it ended") from error
        self._outgoing = self._outgoing[written:]
        return bool(self._outgoing)
