"""Packed samples come back bit by bit, and bytes that are none are refused."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.observability.store import packing
from apps.observability.store.packing import CorruptChunk, packed, unpacked
from apps.observability.store.samples import Samples

HOUR_MS = 3_600_000
FIRST = 1_764_230_400_000
BITS = st.one_of(
    st.integers(0, 2**64 - 1),
    st.floats(allow_nan=True).map(lambda value: struct.unpack("<Q", struct.pack("<d", value))[0]),
    st.sampled_from([0x7FF0000000000001, 0xFFF8DEADBEEF0001, 0x8000000000000000, 1]),  # NaNs with payload, -0, denormal
)
MANY = st.lists(st.tuples(st.integers(0, HOUR_MS - 1), BITS, st.booleans()), min_size=1, max_size=60).map(
    lambda rows: sorted({row[0]: row for row in rows}.values())
)


def samples_of(rows, first=FIRST):
    at, bits, odd = zip(*rows, strict=True)
    return Samples(np.array(at, np.int64) + first, np.array(bits, np.uint64).view(np.float64), np.array(odd, np.bool_))


def regular(values, step_ms=15_000):
    count = len(values)
    return Samples(FIRST + np.arange(count) * step_ms, np.asarray(values, np.float64), np.zeros(count, np.bool_))


@given(MANY, st.sampled_from([FIRST, -FIRST, 0]))
def test_every_bit_comes_back(rows, first):
    given_samples = samples_of(rows, first)

    found = unpacked(packed(given_samples))

    assert (found.at == given_samples.at).all()
    assert (found.values.view(np.uint64) == given_samples.values.view(np.uint64)).all()
    assert (found.anomalous == given_samples.anomalous).all()


def test_regular_times_cost_nothing():
    assert len(packed(regular(np.zeros(240)))) < 40


def test_a_random_walk_stays_below_nine_bytes_a_sample():
    walk = np.random.default_rng(7).standard_normal(240).cumsum()

    assert len(packed(regular(walk))) / 240 < 9


def test_a_broken_chunk_is_refused_or_reads_as_samples():
    whole = packed(regular(np.random.default_rng(3).standard_normal(100)))
    for place in range(len(whole)):
        for bit in (0, 7):
            broken = bytearray(whole)
            broken[place] ^= 1 << bit
            try:
                found = unpacked(bytes(broken))
            except CorruptChunk:
                continue
            assert len(found.at) == len(found.values) == len(found.anomalous)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no header"),
        (packing.HEADER.pack(9, 0, 1, 0), "version 9"),
        (packing.HEADER.pack(1, 0, 0, 0), "0 samples"),
        (packing.HEADER.pack(1, 0, 4_000_000_000, 0), "4000000000 samples"),
        (packing.HEADER.pack(1, 64, 1, 0), "flags 64"),
        (packing.HEADER.pack(1, 2, 1, 0) + b"\xff\xff", "cannot be inflated"),
        (packed(regular([1.0, 2.0]))[:-1], "other than"),
        (packed(regular([1.0, 2.0])) + b"more", "other than"),
    ],
)
def test_what_is_no_chunk_is_refused(data, said):
    with pytest.raises(CorruptChunk, match=said):
        unpacked(data)


def test_a_chunk_that_swells_is_not_swollen():
    deflate = zlib.compressobj(9, zlib.DEFLATED, packing.WINDOW)
    bomb = deflate.compress(b"\0" * 50_000_000) + deflate.flush()

    with pytest.raises(CorruptChunk, match="other than the 8 bytes"):
        unpacked(packing.HEADER.pack(1, packing.REGULAR, 1, 0) + bomb)


def test_times_that_do_not_ascend_are_refused():
    backwards = Samples(np.array([5, 3, 1], np.int64), np.zeros(3), np.zeros(3, np.bool_))

    with pytest.raises(CorruptChunk, match="do not ascend"):
        unpacked(packed(backwards))
