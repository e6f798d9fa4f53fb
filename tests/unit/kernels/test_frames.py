"""Frames between the sandbox and its parent: bounded on both sides, and never anything but JSON and bytes."""

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.kernels import frames

JSON = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text())


@given(JSON, st.binary())
def test_a_frame_reads_back_as_it_was(message: dict[str, Any], attachment: bytes) -> None:
    assert frames.read_frame(io.BytesIO(frames.encode(message, attachment))) == (message, attachment)


def test_an_ended_stream_has_no_frame() -> None:
    assert frames.read_frame(io.BytesIO(b"")) is None
    assert frames.read_frame(io.BytesIO(b"\0\0\0")) is None


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(frames.FrameError, match="message of"):
        frames.encode({"text": "x" * frames.MAX_MESSAGE_BYTES})


@pytest.mark.parametrize("lengths", [(frames.MAX_MESSAGE_BYTES + 1, 0), (2, frames.MAX_ATTACHMENT_BYTES + 1)])
def test_a_claim_over_the_limit_is_refused_before_it_is_read(lengths: tuple[int, int]) -> None:
    with pytest.raises(frames.FrameError, match="over the limit"):
        frames.read_frame(io.BytesIO(struct.pack(">II", *lengths) + b"{}"))


@pytest.mark.parametrize("message", [b"[]", b"nope", b"[" * 100_000, b"\xff"])
def test_a_message_that_is_no_object_is_refused(message: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.decode(message, b"")
