"""The wire between the sandbox and its parent: JSON messages, each with an attachment of raw bytes, over a pipe.

A frame is two 4-byte big-endian lengths (message, attachment), the message in UTF-8 JSON, the attachment. The reader
checks both lengths before it takes a byte more.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

MAX_MESSAGE_BYTES = 1 << 20
MAX_ATTACHMENT_BYTES = 65 << 20

_LENGTHS = struct.Struct(">II")
LENGTHS_SIZE = _LENGTHS.size

Frame = tuple[dict[str, Any], bytes]


class FrameError(ValueError):
    """A frame is too large or not JSON."""


def encode(message: Mapping[str, Any], attachment: bytes = b"") -> bytes:
    """One frame. Raises FrameError when it is over the limits."""
    return _head(message, len(attachment)) + attachment


def write_frame(stream: BinaryIO, message: Mapping[str, Any], attachment: bytes = b"") -> None:
    """Write one frame without a copy of its attachment. Raises FrameError when it is over the limits."""
    stream.write(_head(message, len(attachment)))
    stream.write(attachment)
    stream.flush()


def frame_size(lengths: bytes) -> tuple[int, int]:
    """(message bytes, attachment bytes) from a frame's first ``LENGTHS_SIZE`` bytes. Raises FrameError."""
    message, attachment = _LENGTHS.unpack(lengths)
    _check(message, attachment)
    return message, attachment


def decode(message: bytes, attachment: bytes) -> Frame:
    """The frame of these parts. Raises FrameError."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise FrameError("a message is not JSON") from error
    if not isinstance(value, dict):
        raise FrameError("a message must be a JSON object")
    return value, attachment


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame of a blocking stream, None at its end. Raises FrameError."""
    lengths = stream.read(LENGTHS_SIZE)
    if len(lengths) < LENGTHS_SIZE:
        return None
    message, attachment = frame_size(lengths)
    return decode(stream.read(message), stream.read(attachment))


def _head(message: Mapping[str, Any], attachment_size: int) -> bytes:
    text = json.dumps(message, allow_nan=False).encode()
    _check(len(text), attachment_size)
    return _LENGTHS.pack(len(text), attachment_size) + text


def _check(message: int, attachment: int) -> None:
    if message > MAX_MESSAGE_BYTES:
        raise FrameError(f"a message of {message:,} bytes is over the limit of {MAX_MESSAGE_BYTES:,}")
    if attachment > MAX_ATTACHMENT_BYTES:
        raise FrameError(f"an attachment of {attachment:,} bytes is over the limit of {MAX_ATTACHMENT_BYTES:,}")
