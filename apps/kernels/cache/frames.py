"""How a segment lies in Redis: each chunk in a frame that proves what it is, so that nothing else is taken for it.

    magic  version  codec  chunk index  length  blob size  blob digest  sha256 of the chunk  MAC of these  | the chunk
      4       1       1         4          4        8          32               32                16       | length

The MAC (keyed BLAKE2b, RFC 7693, with a key of settings.SECRET_KEY) binds the sha256 to its place: this chunk of this
blob. So what is refused is garbage, a flipped bit, a cut value, the value of another key, the format of another
version, and a frame made up by somebody who can write to Redis but does not know the secret. After SECRET_KEY is
rotated, all that lies in Redis is refused, and loaded anew.

"There are no such bytes" is a frame too, without a chunk.
"""

import hashlib
import hmac
from enum import Enum
from functools import lru_cache
from struct import Struct
from typing import Final

from django.conf import settings

from apps.kernels.cache.segments import SEGMENT_CHUNKS, CorruptSegment, Segment, segment_count, segment_size
from apps.kernels.models.blobs import CHUNK_BYTES

MAGIC = b"ESK\n"
VERSION = 1
CODEC_RAW, CODEC_ABSENT = 0, 1
"""The only codec of bytes is none: weights hardly compress (docs/cache.md)."""
FIELDS = Struct(">4sBBIIQ32s32s")
MAC_BYTES = 16
HEADER_BYTES = FIELDS.size + MAC_BYTES
NO_DIGEST = bytes(32)


class Absent(Enum):
    """What is known of bytes that no tier has."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


def encode(digest: str, index: int, segment: Segment) -> bytes:
    """The value for segment ``index`` of the blob ``digest``."""
    blob, view = bytes.fromhex(digest), memoryview(segment.data)
    parts: list[bytes | memoryview] = []
    for number, sha256 in enumerate(segment.digests):
        chunk = view[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        place = index * SEGMENT_CHUNKS + number
        parts += (_header(CODEC_RAW, place, len(chunk), segment.blob_size, blob, sha256), chunk)
    return b"".join(parts)


def encode_absent(digest: str, index: int) -> bytes:
    """The value that says that no tier has segment ``index`` of the blob ``digest``."""
    return _header(CODEC_ABSENT, index * SEGMENT_CHUNKS, 0, 0, bytes.fromhex(digest), NO_DIGEST)


def decode(digest: str, index: int, raw: bytes) -> Segment | Absent:
    """What ``encode`` or ``encode_absent`` was given for this segment of this blob; every byte of it is verified.

    Raises:
        CorruptSegment: ``raw`` is anything else; says what is wrong with it.
    """
    blob, first = bytes.fromhex(digest), index * SEGMENT_CHUNKS
    codec, _, blob_size, _ = _read_header(raw, 0, blob, first)
    if codec == CODEC_ABSENT:
        if len(raw) != HEADER_BYTES:
            raise CorruptSegment("more bytes than there should be")
        return ABSENT
    if index >= segment_count(blob_size):
        raise CorruptSegment("a segment past the end of the blob")
    size = segment_size(blob_size, index)
    count = -(-size // CHUNK_BYTES)
    if len(raw) != size + count * HEADER_BYTES:
        raise CorruptSegment(f"{len(raw)} bytes instead of {size + count * HEADER_BYTES}")
    view, pieces, digests = memoryview(raw), [], []
    for number in range(count):
        start = number * (HEADER_BYTES + CHUNK_BYTES)
        codec, length, stated_size, sha256 = _read_header(raw, start, blob, first + number)
        if (codec, length, stated_size) != (CODEC_RAW, min(size - number * CHUNK_BYTES, CHUNK_BYTES), blob_size):
            raise CorruptSegment(f"chunk {first + number} does not fit the others")
        chunk = view[start + HEADER_BYTES : start + HEADER_BYTES + length]
        if hashlib.sha256(chunk).digest() != sha256:
            raise CorruptSegment(f"chunk {first + number} has other bytes than it should")
        pieces.append(chunk)
        digests.append(sha256)
    if blob_size <= CHUNK_BYTES and digests[0] != blob:
        raise CorruptSegment("the bytes of another blob")
    return Segment(b"".join(pieces), blob_size, tuple(digests))


def _header(codec: int, place: int, length: int, blob_size: int, blob: bytes, sha256: bytes) -> bytes:
    fields = FIELDS.pack(MAGIC, VERSION, codec, place, length, blob_size, blob, sha256)
    return fields + _mac(fields)


def _read_header(raw: bytes, start: int, blob: bytes, place: int) -> tuple[int, int, int, bytes]:
    """Codec, length, blob size and sha256 of the frame that begins at ``start``, which is to be chunk ``place``.

    Raises:
        CorruptSegment.
    """
    if len(raw) < start + HEADER_BYTES:
        raise CorruptSegment("too short for a frame")
    magic, version, codec, number, length, blob_size, owner, sha256 = FIELDS.unpack_from(raw, start)
    if magic != MAGIC:
        raise CorruptSegment("no frame of ours")
    if version != VERSION:
        raise CorruptSegment(f"a frame of version {version}, not {VERSION}")
    end = start + FIELDS.size
    if not hmac.compare_digest(_mac(raw[start:end]), raw[end : end + MAC_BYTES]):
        raise CorruptSegment("a header that was not written with this SECRET_KEY, or not like this")
    if owner != blob or number != place:
        raise CorruptSegment(f"chunk {number} of {owner.hex()} in the place of chunk {place} of {blob.hex()}")
    return codec, length, blob_size, sha256


def _mac(fields: bytes) -> bytes:
    return hashlib.blake2b(fields, digest_size=MAC_BYTES, key=_key(settings.SECRET_KEY)).digest()


@lru_cache(maxsize=2)
def _key(secret: str) -> bytes:
    return hmac.digest(secret.encode(), b"apps.kernels.cache.frames", "sha256")
