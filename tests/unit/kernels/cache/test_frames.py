"""How segments lie in Redis: what was put reads back, and nothing else is ever taken for it."""

import hashlib
import random
from contextlib import suppress

import pytest
from django.conf import LazySettings
from hypothesis import given
from hypothesis import strategies as st

from apps.kernels.cache import frames
from apps.kernels.cache.frames import ABSENT, HEADER_BYTES, decode, encode, encode_absent
from apps.kernels.cache.segments import SEGMENT_BYTES, SEGMENT_CHUNKS, CorruptSegment, Segment
from apps.kernels.models.blobs import CHUNK_BYTES, MAX_KERNEL_BYTES

SMALL = b"a kernel of some bytes"
SMALL_DIGEST = hashlib.sha256(SMALL).hexdigest()
SMALL_RAW = encode(SMALL_DIGEST, 0, Segment.of(SMALL, blob_size=len(SMALL)))
LARGE = random.Random(5).randbytes(2 * CHUNK_BYTES + 1000)
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()
LARGE_SEGMENT = Segment.of(LARGE, blob_size=len(LARGE))
LARGE_RAW = encode(LARGE_DIGEST, 0, LARGE_SEGMENT)
FRAME = HEADER_BYTES + CHUNK_BYTES

sizes = st.one_of(
    st.integers(1, 5000),
    st.sampled_from([CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, SEGMENT_BYTES - 1, SEGMENT_BYTES]),
)
stored = st.sampled_from([(SMALL_DIGEST, SMALL_RAW), (LARGE_DIGEST, LARGE_RAW), ("a" * 64, encode_absent("a" * 64, 0))])


@given(sizes, st.integers(0, 255))
def test_a_segment_reads_back_as_it_was(size: int, fill: int) -> None:
    data = bytes([fill]) * size
    segment, digest = Segment.of(data, blob_size=size), hashlib.sha256(data).hexdigest()
    assert decode(digest, 0, encode(digest, 0, segment)) == segment


def test_the_last_segment_of_the_largest_blob_reads_back_as_it_was() -> None:
    index, data = MAX_KERNEL_BYTES // SEGMENT_BYTES - 1, random.Random(6).randbytes(SEGMENT_BYTES)
    segment = Segment.of(data, blob_size=MAX_KERNEL_BYTES)
    raw = encode("b" * 64, index, segment)
    assert len(raw) == SEGMENT_BYTES + SEGMENT_CHUNKS * HEADER_BYTES
    assert decode("b" * 64, index, raw) == segment


def test_absence_reads_back_for_its_own_segment_only() -> None:
    raw = encode_absent("a" * 64, 3)
    assert decode("a" * 64, 3, raw) is ABSENT
    for digest, index in (("a" * 64, 2), ("b" * 64, 3)):
        with pytest.raises(CorruptSegment, match="in the place of"):
            decode(digest, index, raw)


@given(stored, st.data(), st.integers(1, 255))
def test_a_changed_byte_is_refused(value: tuple[str, bytes], data: st.DataObject, change: int) -> None:
    digest, raw = value
    # In half of the cases in the first header, where there is more to get wrong.
    place = data.draw(st.one_of(st.integers(0, HEADER_BYTES - 1), st.integers(0, len(raw) - 1)))
    changed = bytearray(raw)
    changed[place] ^= change
    with pytest.raises(CorruptSegment):
        decode(digest, 0, bytes(changed))


@given(stored, st.data())
def test_a_cut_value_is_refused(value: tuple[str, bytes], data: st.DataObject) -> None:
    digest, raw = value
    with pytest.raises(CorruptSegment):
        decode(digest, 0, raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(stored, st.binary(min_size=1, max_size=300))
def test_more_bytes_than_were_put_are_refused(value: tuple[str, bytes], more: bytes) -> None:
    digest, raw = value
    with pytest.raises(CorruptSegment):
        decode(digest, 0, raw + more)


@given(st.binary(max_size=3 * HEADER_BYTES) | st.binary(max_size=500).map(lambda tail: SMALL_RAW[:6] + tail))
def test_garbage_is_refused_and_nothing_else_happens(raw: bytes) -> None:
    with pytest.raises(CorruptSegment):
        decode(SMALL_DIGEST, 0, raw)


def test_swapped_chunks_are_refused() -> None:
    swapped = LARGE_RAW[FRAME : 2 * FRAME] + LARGE_RAW[:FRAME] + LARGE_RAW[2 * FRAME :]
    with pytest.raises(CorruptSegment, match="in the place of"):
        decode(LARGE_DIGEST, 0, swapped)


def test_swapped_bytes_under_right_headers_are_refused() -> None:
    first, second = LARGE_RAW[HEADER_BYTES:FRAME], LARGE_RAW[FRAME + HEADER_BYTES : 2 * FRAME]
    swapped = LARGE_RAW[:HEADER_BYTES] + second + LARGE_RAW[FRAME : FRAME + HEADER_BYTES] + first
    with pytest.raises(CorruptSegment, match="other bytes"):
        decode(LARGE_DIGEST, 0, swapped + LARGE_RAW[2 * FRAME :])


def test_the_value_of_another_key_is_refused() -> None:
    with pytest.raises(CorruptSegment, match="in the place of"):
        decode(LARGE_DIGEST, 0, SMALL_RAW)
    with pytest.raises(CorruptSegment, match="in the place of"):
        decode(LARGE_DIGEST, 1, LARGE_RAW)


def test_a_blob_of_one_chunk_has_the_bytes_that_its_name_says() -> None:
    with pytest.raises(CorruptSegment, match="another blob"):
        decode("c" * 64, 0, encode("c" * 64, 0, Segment.of(SMALL, blob_size=len(SMALL))))


def test_the_format_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(frames, "VERSION", 2)
        raw = encode(SMALL_DIGEST, 0, Segment.of(SMALL, blob_size=len(SMALL)))
    with pytest.raises(CorruptSegment, match="version 2"):
        decode(SMALL_DIGEST, 0, raw)


def test_a_frame_of_somebody_without_the_secret_is_refused(settings: LazySettings) -> None:
    ours = settings.SECRET_KEY
    settings.SECRET_KEY = "what a stranger guesses"
    forged = encode(LARGE_DIGEST, 0, Segment.of(bytes(len(LARGE)), blob_size=len(LARGE)))
    assert decode(LARGE_DIGEST, 0, forged), "right for who has that secret"
    settings.SECRET_KEY = ours
    with pytest.raises(CorruptSegment, match="SECRET_KEY"):
        decode(LARGE_DIGEST, 0, forged)


@given(st.binary(max_size=50), st.integers(0, 2**40))
def test_bytes_that_are_not_what_their_digests_say_never_come_out(data: bytes, blob_size: int) -> None:
    """Whatever a writer that has the secret may have got wrong."""
    segment = Segment(data, blob_size, (hashlib.sha256(data).digest(),))
    with suppress(CorruptSegment):
        assert decode(SMALL_DIGEST, 0, encode(SMALL_DIGEST, 0, segment)) == Segment.of(SMALL, blob_size=len(SMALL))
