"""A pack: the new objects of one checkpoint in one file, each byte of which is covered by a digest.

    "ESPRPAK1" | uuid of the pack | objects, one after another | index | length of the index | blake3 | "ESPRIDX1"
        8              16                    ...                  ...          8 (big endian)     32         8

The blake3 is of the header and the index. The index is JSON in one spelling (``canonical``): the format, and per object
[digest, offset, stored size, raw size, encoding, item size, checksum of the stored bytes] in the order of the file,
with no gap between them. It repeats what a database knows of the pack, so that a database can be made anew from packs.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

from blake3 import blake3
from xxhash import xxh3_128_hexdigest

from apps.checkpoints.store import canonical, crashpoints
from apps.checkpoints.store.encodings import Encoding
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.leaves import Buffer

MAGIC = b"ESPRPAK1"
END_MAGIC = b"ESPRIDX1"
HEADER_BYTES = len(MAGIC) + 16
TRAILER_BYTES = 8 + 32 + len(END_MAGIC)
FORMAT = "esper-pack/1"

OBJECT_BYTES = 8 * 1024 * 1024
"""Raw bytes of an object at most: what a reader has to hold at a time."""
SMALL_LEAF_BYTES = 64 * 1024
"""Leaves below it share objects, one after another, per component."""
OVERHEAD_BYTES = 8 * 1024
"""By how much an encoding may make an object larger at most."""
MAX_INDEX_BYTES = 64 * 1024 * 1024
MAX_ITEM_BYTES = 16

DIGEST = re.compile(r"[0-9a-f]{64}")
CHECKSUM = re.compile(r"[0-9a-f]{32}")
Read = Callable[[int, int], bytes]
"""The bytes of a file from a start to a stop (less where the file ends before)."""


def digest_of(data: Buffer) -> str:
    """blake3 of ``data``, 64 hexadecimal digits. Source: the BLAKE3 paper (O'Connor and others, 2020)."""
    return blake3(data).hexdigest()


def checksum_of(data: Buffer) -> str:
    """XXH3 of ``data``, 32 hexadecimal digits: against accidents, at four times the speed of blake3.

    Who means harm can make bytes of a given checksum, and nothing but a decoder would see them: what it gives is
    compared with the object's blake3. Source: the specification of xxHash (Collet, 2021).
    """
    return xxh3_128_hexdigest(data)


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a pack. ``digest`` (blake3) is of its raw bytes, ``checksum`` of those at ``offset``; in bytes."""

    digest: str
    offset: int
    stored_size: int
    raw_size: int
    encoding: Encoding
    itemsize: int
    checksum: str

    @property
    def end(self) -> int:
        return self.offset + self.stored_size

    @property
    def is_plain(self) -> bool:
        """Whether the stored bytes are the raw ones: the digest says all of them."""
        return self.encoding is Encoding.RAW

    def as_json(self) -> list[str | int]:
        return [
            self.digest,
            self.offset,
            self.stored_size,
            self.raw_size,
            self.encoding.value,
            self.itemsize,
            self.checksum,
        ]


@dataclass(frozen=True, slots=True)
class PackIndex:
    """What a pack holds; ``size`` of the whole file, ``digest`` (blake3) of its header and index."""

    pack_id: UUID
    entries: tuple[Entry, ...]
    size: int
    digest: str


class PackWriter:
    """Writes a pack from its first byte to its last; the file is the caller's, to synchronise and to name."""

    def __init__(self, file: BinaryIO, pack_id: UUID) -> None:
        self.pack_id = pack_id
        self._file = file
        self._entries: dict[str, Entry] = {}
        self._offset = HEADER_BYTES
        file.write(_header(pack_id))

    def __contains__(self, digest: str) -> bool:
        return digest in self._entries

    def add(self, digest: str, stored: Buffer, *, raw_size: int, encoding: Encoding, itemsize: int) -> Entry:
        """Append an object, encoded already; once, however often it is added. Raises OSError."""
        if digest in self._entries:
            return self._entries[digest]
        entry = Entry(digest, self._offset, len(stored), raw_size, encoding, itemsize, checksum_of(stored))
        _check_sizes(entry)
        self._file.write(stored)
        crashpoints.reached("pack.written")
        self._entries[digest] = entry
        self._offset = entry.end
        return entry

    def close(self) -> PackIndex:
        """Write the index and the trailer; the file stays open. Raises OSError."""
        entries = tuple(self._entries.values())
        index = canonical.dumps({"format": FORMAT, "entries": [entry.as_json() for entry in entries]})
        digest = blake3(_header(self.pack_id) + index).digest()
        self._file.write(index + len(index).to_bytes(8, "big") + digest + END_MAGIC)
        size = self._offset + len(index) + TRAILER_BYTES
        return PackIndex(self.pack_id, entries, size, digest.hex())


def read_index(read: Read, size: int, expected_id: UUID) -> PackIndex:
    """The index of a pack of ``size`` bytes, verified; the objects themselves are not read.

    Raises:
        CorruptCheckpoint: it is no pack, a pack of another name, a cut one, or one that nobody of ours would write.
    """
    header, index, digest = _read_ends(read, size, expected_id)
    if blake3(header + index).digest() != digest:
        raise _corrupt("The index or the header has other bytes than were written.", "pack index")
    document = canonical.loads(index, part="pack index")
    if not isinstance(document, dict) or list(document) != ["format", "entries"] or document["format"] != FORMAT:
        raise _corrupt(f"Not of the format {FORMAT}.", "pack index")
    if not isinstance(document["entries"], list):
        raise _corrupt("Its entries are no list.", "pack index")
    entries = tuple(_entries(document["entries"], size - TRAILER_BYTES - len(index)))
    return PackIndex(expected_id, entries, size, digest.hex())


def check_stored(entry: Entry, stored: Buffer) -> None:
    """Refuse stored bytes that are not the entry's, before any decoder sees them. Raises CorruptCheckpoint."""
    is_right = digest_of(stored) == entry.digest if entry.is_plain else checksum_of(stored) == entry.checksum
    if len(stored) != entry.stored_size or not is_right:
        raise _corrupt("Its stored bytes are not those that were written.", object_name(entry.digest))


def check_raw(entry: Entry, raw: Buffer) -> None:
    """Refuse decoded bytes that are not those of the entry's name. Raises CorruptCheckpoint."""
    if digest_of(raw) != entry.digest:
        raise _corrupt("Its bytes are not those of its name.", object_name(entry.digest))


def object_name(digest: str) -> str:
    """How messages name an object."""
    return f"object {digest[:12]}"


def _header(pack_id: UUID) -> bytes:
    return MAGIC + pack_id.bytes


def _read_ends(read: Read, size: int, expected_id: UUID) -> tuple[bytes, bytes, bytes]:
    """Header, index and the digest that is stated of them; not verified yet, but of the right length and name."""
    if size < HEADER_BYTES + TRAILER_BYTES:
        raise _corrupt(f"{size} bytes are too few for a pack.", "pack header")
    header = _read_exactly(read, 0, HEADER_BYTES, "pack header")
    if header[: len(MAGIC)] != MAGIC:
        raise _corrupt("No pack of ours.", "pack header")
    if header != _header(expected_id):
        raise _corrupt(f"The pack {UUID(bytes=header[len(MAGIC) :])} in the place of {expected_id}.", "pack header")
    trailer = _read_exactly(read, size - TRAILER_BYTES, size, "pack trailer")
    if trailer[40:] != END_MAGIC:
        raise _corrupt("The pack does not end as packs do: it was cut or written over.", "pack trailer")
    length = int.from_bytes(trailer[:8], "big")
    if not 0 < length <= min(MAX_INDEX_BYTES, size - HEADER_BYTES - TRAILER_BYTES):
        raise _corrupt(f"An index of {length:,} bytes does not fit a pack of {size:,}.", "pack trailer")
    end = size - TRAILER_BYTES
    return header, _read_exactly(read, end - length, end, "pack index"), trailer[8:40]


def _read_exactly(read: Read, start: int, stop: int, part: str) -> bytes:
    data = bytes(read(start, stop))
    if len(data) != stop - start:
        raise _corrupt(f"The pack ends before byte {stop:,}.", part)
    return data


def _entries(rows: list[Any], end: int) -> Iterator[Entry]:
    """The entries that ``rows`` spell, which fill the pack from the header to ``end`` without gap or overlap."""
    offset, seen = HEADER_BYTES, set()
    for row in rows:
        entry = _entry(row)
        if entry.offset != offset or entry.end > end:
            raise _corrupt(f"An object at {entry.offset:,} to {entry.end:,} lies on others or outside.", "pack index")
        if entry.digest in seen:
            raise _corrupt(f"The {object_name(entry.digest)} stands there twice.", "pack index")
        seen.add(entry.digest)
        offset = entry.end
        yield entry
    if offset != end:
        raise _corrupt(f"The bytes {offset:,} to {end:,} belong to no object.", "pack index")


def _entry(row: Any) -> Entry:
    if not isinstance(row, list) or [type(item) for item in row] != [str, int, int, int, str, int, str]:
        raise _corrupt("An entry that is not made as entries are.", "pack index")
    digest, offset, stored_size, raw_size, encoding, itemsize, checksum = row
    if not DIGEST.fullmatch(digest) or not CHECKSUM.fullmatch(checksum):
        raise _corrupt("An entry whose digest is none.", "pack index")
    if encoding not in list(Encoding):
        raise _corrupt(f"An encoding that is not known: {encoding:.20}.", "pack index")
    entry = Entry(digest, offset, stored_size, raw_size, Encoding(encoding), itemsize, checksum)
    try:
        _check_sizes(entry)
    except ValueError as error:
        raise _corrupt(f"The {object_name(digest)} {error}.", "pack index") from None
    return entry


def _check_sizes(entry: Entry) -> None:
    """Raises ValueError for sizes that no object has."""
    if not 0 < entry.raw_size <= OBJECT_BYTES:
        raise ValueError(f"has {entry.raw_size:,} bytes; an object has 1 to {OBJECT_BYTES:,}")
    if not 0 < entry.stored_size <= entry.raw_size + OVERHEAD_BYTES:
        raise ValueError(f"takes {entry.stored_size:,} bytes for {entry.raw_size:,}")
    if not 0 < entry.itemsize <= MAX_ITEM_BYTES:
        raise ValueError(f"has items of {entry.itemsize} bytes; they have 1 to {MAX_ITEM_BYTES}")


def _corrupt(message: str, part: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(message, part=part)
