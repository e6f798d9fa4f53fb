"""The samples of one series and hour as a few hundred bytes.

Times are written as the differences of their differences, so that regular ones are zeros; values as the XOR with the
value before (Gorilla, Pelkonen et al., VLDB 2015), so that what stays equal is zeros. Both are then turned from rows of
eight bytes into eight columns, in which zeros lie side by side, and deflated. Every bit of every float64 comes back,
those of NaNs too.

    header   version (1 byte), flags (1), count (4), first time in milliseconds since 1970 (8); little-endian
    body     deflate of: times (8 bytes each), values (8 bytes each), anomaly bits (if there are any)
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from apps.observability.store.samples import Samples

VERSION = 1
HEADER = struct.Struct("<BBIq")
ANOMALIES, REGULAR = 1, 2
"""Flags: some samples are marked; all times are as far apart as the first two, and only that distance is written."""
MOST = 3_600_000
"""Milliseconds of an hour: no chunk has more samples."""
LEVEL = 6
WINDOW = -15
"""Deflate without zlib's six bytes of header and sum: pages of the database have their own."""


class CorruptChunk(ValueError):
    """These bytes are no samples."""


def packed(samples: Samples) -> bytes:
    """At least one and at most ``MOST`` samples, ascending."""
    count = len(samples)
    steps = np.diff(samples.at)
    is_regular = count < 2 or bool((steps == steps[0]).all())
    times = steps[:1] if is_regular else np.diff(steps, prepend=np.int64(0))
    bits = samples.values.view(np.uint64)
    parts = [_columns(times), _columns(np.bitwise_xor(bits[1:], bits[:-1], out=None)), bits[:1].astype("<u8").tobytes()]
    flags = REGULAR if is_regular else 0
    if samples.anomalous.any():
        flags |= ANOMALIES
        parts.append(np.packbits(samples.anomalous).tobytes())
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW)
    body = deflate.compress(b"".join(parts)) + deflate.flush()
    return HEADER.pack(VERSION, flags, count, int(samples.at[0])) + body


def unpacked(data: bytes | memoryview) -> Samples:
    """What ``packed`` was given. Never more memory than its ``MOST`` samples take.

    Raises:
        CorruptChunk: the bytes are not from there.
    """
    data = bytes(data)
    if len(data) < HEADER.size:
        raise CorruptChunk(f"a chunk of {len(data)} bytes has no header")
    version, flags, count, first = HEADER.unpack_from(data)
    if version != VERSION or flags & ~(ANOMALIES | REGULAR) or not 1 <= count <= MOST:
        raise CorruptChunk(f"no chunk of version {VERSION}: version {version}, flags {flags}, {count} samples")
    written = min(count - 1, 1) if flags & REGULAR else count - 1
    marks = (count + 7) // 8 if flags & ANOMALIES else 0
    body = _inflated(data[HEADER.size :], 8 * (written + count) + marks)
    times = _rows(body[: 8 * written]).view(np.int64)
    steps = np.repeat(times, count - 1) if flags & REGULAR else np.cumsum(times)
    at = np.concatenate([[first], first + np.cumsum(steps)]).astype(np.int64)
    values = body[8 * written : 8 * (written + count)]
    bits = np.concatenate([np.frombuffer(values[-8:], "<u8"), _rows(values[:-8])]).astype(np.uint64)
    odd = np.frombuffer(body[8 * (written + count) :], np.uint8)
    anomalous = np.unpackbits(odd, count=count).astype(np.bool_) if marks else np.zeros(count, np.bool_)
    if (np.diff(at) <= 0).any():
        raise CorruptChunk("the times of a chunk do not ascend")
    return Samples(at, np.bitwise_xor.accumulate(bits).view(np.float64), anomalous)


def _columns(numbers: NDArray[np.int64] | NDArray[np.uint64]) -> bytes:
    """Eight columns of bytes, the lowest first."""
    return numbers.astype(numbers.dtype.newbyteorder("<")).view(np.uint8).reshape(-1, 8).T.tobytes()


def _rows(columns: bytes) -> NDArray[np.uint64]:
    turned = np.frombuffer(columns, np.uint8).reshape(8, -1).T
    return np.ascontiguousarray(turned).view("<u8").reshape(-1).astype(np.uint64)


def _inflated(body: bytes, length: int) -> bytes:
    inflate = zlib.decompressobj(WINDOW)
    try:
        found = inflate.decompress(body, length + 1)
    except zlib.error as error:
        raise CorruptChunk(f"a chunk cannot be inflated: {error}") from None
    if len(found) != length or not inflate.eof or inflate.unused_data:
        raise CorruptChunk(f"a chunk holds other than the {length} bytes that it says")
    return found
