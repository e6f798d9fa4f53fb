"""What a person sees of the stack: one terminal, each line with its process in front; the same lines in log files."""

import os
import sys
from pathlib import Path
from typing import TextIO

COLOURS = {
    "postgres": "34",
    "cache": "36",
    "broker": "36",
    "setup": "33",
    "web": "32",
    "default": "35",
    "train": "31",
    "compile": "95",
    "beat": "90",
}
WIDTH = 9
LOG_BYTES = 5 * 1024 * 1024


class Console:
    """Writes prefixed lines, in colour on a terminal (unless NO_COLOR is set)."""

    def __init__(self, stream: TextIO, *, show_processes: bool = True) -> None:
        self._stream = stream
        self._show_processes = show_processes
        self._colour = stream.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str) -> None:
        """A line from the supervisor itself."""
        self._write(self._paint("esper".ljust(WIDTH), "1"), text)

    def process_line(self, name: str, text: str) -> None:
        """A line that a child wrote."""
        if self._show_processes:
            self._write(self._paint(name.ljust(WIDTH), COLOURS.get(name, "0")), text)

    def _write(self, prefix: str, text: str) -> None:
        try:
            print(f"{prefix}| {text}", file=self._stream, flush=True)
        except (BrokenPipeError, OSError):  # the terminal went away; the log files still have it all
            self._stream = open(os.devnull, "w")  # noqa: SIM115

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


class LogFile:
    """A log of bounded size: at the limit it becomes `NAME.log.1`, replacing the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._complained = False

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
            if self._file.tell() > LOG_BYTES:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._path.open("ab")
        except OSError as error:  # a full disk must not take the running stack with it
            if not self._complained:
                sys.stderr.write(f"{self._path} cannot be written: {error.strerror}\n")
                self._complained = True

    def close(self) -> None:
        self._file.close()
