"""What every tier holds: segments of a blob, up to eight chunks (4 MiB) each, and what a tier can do with them.

A blob of at most 4 MiB is one segment. A larger one is read, cached and streamed segment by segment, so that no reader
holds more than a few of them, and a range reads only those that it touches.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from apps.kernels.models.blobs import CHUNK_BYTES

SEGMENT_CHUNKS = 8
SEGMENT_BYTES = SEGMENT_CHUNKS * CHUNK_BYTES


class TierName(StrEnum):
    """L1 the memory of a process, L2 Redis, L3 PostgreSQL, L4 the object storage."""

    L1 = "l1"
    L2 = "l2"
    L3 = "l3"
    L4 = "l4"


class TierAway(Exception):
    """The tier does not answer, or not in time: the next one is asked."""


class CorruptSegment(Exception):
    """What the tier holds is not what was put there: it must not be used."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The bytes of one segment, the size of the whole blob, and the sha256 of each chunk in it."""

    data: bytes
    blob_size: int
    digests: tuple[bytes, ...]

    @classmethod
    def of(cls, data: bytes, *, blob_size: int) -> "Segment":
        """A segment of bytes that are known to be right."""
        return cls(data, blob_size, chunk_digests(data))

    def is_intact(self) -> bool:
        """Are the bytes still what they were?"""
        return chunk_digests(self.data) == self.digests


class Tier(Protocol):
    """One tier. What ``get`` returns was verified when it was read."""

    name: TierName

    def get(self, digest: str, index: int) -> Segment | None:
        """Segment ``index`` of the blob ``digest``; None: not here.

        Raises:
            TierAway, CorruptSegment.
        """

    def put(self, digest: str, index: int, segment: Segment) -> bool:
        """Keep a copy, if there is room for it; whether it was taken. Raises TierAway."""

    def drop(self, digest: str) -> None:
        """Forget every segment of the blob. Raises TierAway."""


def chunk_digests(data: bytes) -> tuple[bytes, ...]:
    """The sha256 of each chunk of ``data``."""
    view = memoryview(data)
    return tuple(
        hashlib.sha256(view[start : start + CHUNK_BYTES]).digest() for start in range(0, len(data), CHUNK_BYTES)
    )


def segment_count(blob_size: int) -> int:
    return -(-blob_size // SEGMENT_BYTES)


def segment_size(blob_size: int, index: int) -> int:
    """Bytes of segment ``index``."""
    return min(blob_size - index * SEGMENT_BYTES, SEGMENT_BYTES)
