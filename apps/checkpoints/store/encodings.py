"""How the bytes of an object are stored: as they are, or compressed by blosc2 (the default) or gzip.

Nothing decoded is ever larger than its entry says, and no decoder of blosc2 sees a chunk whose header is not one that
``encode`` writes: the library trusts the header for the size of the buffer that it writes to.

Measured on the AdamW state of a trained transformer (11 M parameters, fp32, 130 MB; one thread of an EPYC, MB per
second of CPU), each stream of like bytes compressed by itself in blocks of 256 KiB (``ALWAYS_SPLIT``):

    shuffle + zstd-1                 ratio 1.221   encode 487   decode 2081      (taken)
    ... in blocks of 64 KiB / 1 MiB        1.215 / 1.221   310 / 424   1444 / 1659
    ... all streams of a block at once     1.191   257   1452
    bit shuffle + zstd-1                   1.201   484   2160
    shuffle + lz4                          1.104   642   2527
    shuffle + zstd-3                       1.219   163   1821
"""

import functools
import zlib
from enum import StrEnum
from importlib import import_module
from types import ModuleType

from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.leaves import Buffer


class Encoding(StrEnum):
    """The name that stands in the index of a pack."""

    RAW = "raw"
    BLOSC2 = "blosc2"
    GZIP = "gzip"


THREADS = 2
"""For the whole of a save or a restore: each encodes or decodes one object at a time, in C, without Python's lock."""

SAMPLE_BYTES = 256 * 1024
WORTHWHILE = 0.97
"""Compressed to original: above it the time to compress and to read back is not worth the bytes."""

_GZIP_LEVEL = 6
_HEADER_BYTES = 32  # of a blosc2 chunk: C-Blosc2, README_CHUNK_FORMAT.rst
_BLOCK_BYTES = 256 * 1024


def choose(data: Buffer, itemsize: int) -> Encoding:
    """What suits these bytes, judged by a sample of 256 KiB in four pieces."""
    view = memoryview(data).cast("B")
    if len(view) < 512:
        return Encoding.RAW
    sample = _sample(view, itemsize)
    return Encoding.BLOSC2 if len(_blosc2_encode(sample, itemsize)) < WORTHWHILE * len(sample) else Encoding.RAW


def encode(encoding: Encoding, data: Buffer, itemsize: int) -> Buffer:
    """``data`` as it is stored; ``itemsize`` (bytes per number) tells blosc2 which bytes are alike."""
    if encoding is Encoding.RAW:
        return data
    if encoding is Encoding.GZIP:
        compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return compressor.compress(data) + compressor.flush()
    return _blosc2_encode(data, itemsize)


def decode(
    encoding: Encoding, stored: Buffer, raw_size: int, itemsize: int, into: memoryview | None = None
) -> memoryview:
    """The ``raw_size`` bytes that were encoded, in ``into`` where that is given (writable, of that size).

    Raises:
        CorruptCheckpoint: ``stored`` is anything but an encoding of ``raw_size`` bytes.
    """
    target = memoryview(bytearray(raw_size)) if into is None else into
    if len(target) != raw_size:
        raise ValueError(f"a buffer of {len(target)} bytes for {raw_size}")
    view = memoryview(stored).cast("B")
    if encoding is Encoding.RAW:
        if len(view) != raw_size:
            raise _corrupt(f"{len(view):,} bytes where {raw_size:,} should be.")
        target[:] = view
    elif encoding is Encoding.GZIP:
        target[:] = _gzip_decode(view, raw_size)
    else:
        _blosc2_decode(view, raw_size, itemsize, target)
    return target


def _sample(view: memoryview, itemsize: int) -> Buffer:
    if len(view) <= SAMPLE_BYTES:
        return view
    piece, pieces = SAMPLE_BYTES // 4, []
    for quarter in range(4):
        start = (len(view) - piece) * quarter // 3 // itemsize * itemsize
        pieces.append(view[start : start + piece])
    return b"".join(pieces)


def _gzip_decode(view: memoryview, raw_size: int) -> bytes:
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        data = decompressor.decompress(view, raw_size + 1)
    except zlib.error as error:
        raise _corrupt(f"gzip cannot read it: {error}.") from None
    if len(data) != raw_size or not decompressor.eof or decompressor.unused_data:
        raise _corrupt(f"It does not decode to {raw_size:,} bytes.")
    return data


def _blosc2_encode(data: Buffer, itemsize: int) -> bytes:
    blosc2 = _blosc2()
    compressed: bytes = blosc2.compress2(
        data,
        codec=blosc2.Codec.ZSTD,
        clevel=1,
        typesize=_typesize(len(data), itemsize),
        filters=[blosc2.Filter.SHUFFLE],
        splitmode=blosc2.SplitMode.ALWAYS_SPLIT,
        blocksize=_BLOCK_BYTES,
        nthreads=1,
    )
    return compressed


def _typesize(size: int, itemsize: int) -> int:
    """blosc2 4.14 loses the end of a single block that is no whole number of items: give it such bytes as bytes."""
    return itemsize if size % itemsize == 0 else 1


def _blosc2_decode(view: memoryview, raw_size: int, itemsize: int, target: memoryview) -> None:
    _check_header(view, raw_size, itemsize)
    try:
        _blosc2().decompress2(view, dst=target, nthreads=1)
    except (ValueError, RuntimeError):
        raise _corrupt("blosc2 cannot read it.") from None


def _check_header(view: memoryview, raw_size: int, itemsize: int) -> None:
    """Refuse every header that our encoder would not have written: the library believes what it says.

    Bytes: version, version of the codec's format, flags, item size, 4 raw size, 4 block size, 4 stored size, 6 filters,
    ..., all little endian. A flag of "special values" (zeros that take no bytes) is allowed: the raw size bounds them.
    """
    if len(view) < _HEADER_BYTES:
        raise _corrupt("Too short for blosc2.")
    raw, block, stored = (int.from_bytes(view[at : at + 4], "little") for at in (4, 8, 12))
    if raw != raw_size or stored != len(view):
        raise _corrupt(f"blosc2 would make {raw:,} bytes of {stored:,}: {raw_size:,} of {len(view):,} are expected.")
    if not 0 < block <= raw_size or view[3] != _typesize(raw_size, itemsize):
        raise _corrupt("blosc2 would read it in other blocks or items than it was written in.")


def prepare() -> None:
    """Load the library now (a third of a second), not at the first save or restore."""
    _blosc2()


@functools.cache
def _blosc2() -> ModuleType:
    """The library, loaded at its first use: a web process never does."""
    module = import_module("blosc2")
    module.set_releasegil(True)
    return module


def _corrupt(message: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(message, part="object")
