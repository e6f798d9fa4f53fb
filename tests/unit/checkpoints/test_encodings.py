"""How the bytes of an object are stored: any bytes come back, and a bomb never becomes large."""

import random
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.checkpoints.store import encodings
from apps.checkpoints.store.encodings import Encoding, choose, decode, encode
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.leaves import ITEM_SIZES

NOISE = random.Random(3).randbytes(300_000)
TEXT = b"weights " * 5000
encoded = st.sampled_from(Encoding)
itemsizes = st.sampled_from(sorted(set(ITEM_SIZES.values())))


@given(encoded, itemsizes, st.binary(min_size=1, max_size=3000), st.integers(1, 30))
def test_any_bytes_come_back(encoding: Encoding, itemsize: int, data: bytes, times: int) -> None:
    raw = data * times
    assert decode(encoding, encode(encoding, raw, itemsize), len(raw), itemsize) == raw


def test_bytes_are_decoded_into_the_memory_that_is_given() -> None:
    target = memoryview(bytearray(len(TEXT) + 8))
    decode(Encoding.BLOSC2, encode(Encoding.BLOSC2, TEXT, 4), len(TEXT), 4, target[8:])
    assert target[8:] == TEXT
    assert target[:8] == bytes(8)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [(NOISE, Encoding.RAW), (TEXT, Encoding.BLOSC2), (b"few", Encoding.RAW), (NOISE + bytes(300_000), Encoding.BLOSC2)],
    ids=["noise", "text", "few bytes", "half of it noise"],
)
def test_what_does_not_compress_is_stored_as_it_is(data: bytes, encoding: Encoding) -> None:
    assert choose(data, 4) is encoding


@given(encoded, st.data())
def test_a_cut_encoding_is_refused(encoding: Encoding, data: st.DataObject) -> None:
    stored = bytes(encode(encoding, TEXT, 4))
    with pytest.raises(CorruptCheckpoint):
        decode(encoding, stored[: data.draw(st.integers(0, len(stored) - 1))], len(TEXT), 4)


@given(encoded, st.binary(min_size=1, max_size=100))
def test_more_bytes_than_were_encoded_are_refused(encoding: Encoding, more: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        decode(encoding, bytes(encode(encoding, TEXT, 4)) + more, len(TEXT), 4)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("size", [1, len(TEXT) - 1, len(TEXT) + 1])
def test_an_encoding_of_more_or_fewer_bytes_is_refused(encoding: Encoding, size: int) -> None:
    with pytest.raises(CorruptCheckpoint):
        decode(encoding, encode(encoding, TEXT, 4), size, 4)


@given(st.data())
def test_a_changed_chunk_of_blosc2_is_refused_or_decodes_within_its_memory(data: st.DataObject) -> None:
    stored = bytearray(encode(Encoding.BLOSC2, TEXT, 4))
    for _ in range(data.draw(st.integers(1, 8))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    memory = bytearray(b"\xa5" * (len(TEXT) + 2048))
    target = memoryview(memory)[1024:-1024]
    with suppress(CorruptCheckpoint):
        decode(Encoding.BLOSC2, bytes(stored), len(TEXT), 4, target)
    assert memory[:1024] == memory[-1024:] == b"\xa5" * 1024


def blosc2_bomb() -> bytes:
    """Zeros that take no bytes: 32 bytes that say they are 2 GB."""
    chunk = bytearray(encode(Encoding.BLOSC2, bytes(1 << 20), 4))
    chunk[4:8] = (2**31 - 64).to_bytes(4, "little")
    return bytes(chunk)


def gzip_bomb() -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "bomb"), [(Encoding.BLOSC2, blosc2_bomb()), (Encoding.GZIP, gzip_bomb())], ids=["blosc2", "gzip"]
)
def test_a_bomb_is_refused_within_the_memory_of_what_it_should_be(encoding: Encoding, bomb: bytes) -> None:
    encodings.decode(Encoding.BLOSC2, encode(Encoding.BLOSC2, TEXT, 4), len(TEXT), 4)  # the library is loaded
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpoint):
            decode(encoding, bomb, 1 << 20, 4)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
