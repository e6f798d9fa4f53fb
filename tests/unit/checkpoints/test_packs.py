"""Packs: what was added is found, and no bit of one can change without being noticed and named."""

import io
import random
from typing import Any
from uuid import UUID

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from apps.checkpoints.store import canonical, encodings, packs
from apps.checkpoints.store.encodings import Encoding
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.packs import (
    END_MAGIC,
    HEADER_BYTES,
    OBJECT_BYTES,
    OVERHEAD_BYTES,
    TRAILER_BYTES,
    Entry,
    PackIndex,
    PackWriter,
    check_raw,
    check_stored,
    checksum_of,
    digest_of,
    read_index,
)
from tests.unit.checkpoints.making import PACK_ID, pack_of

OTHER_ID = UUID(int=0xA2)
NOISE = random.Random(7).randbytes(40)
SMALL, SMALL_INDEX = pack_of((NOISE, Encoding.RAW), (b"aaaa" * 60, Encoding.BLOSC2), (b"b" * 90, Encoding.GZIP))


def read(data: bytes, pack_id: UUID = PACK_ID) -> PackIndex:
    return read_index(lambda start, stop: data[start:stop], len(data), pack_id)


def read_all(data: bytes) -> list[bytes]:
    """The raw bytes of every object, verified as a restore does."""
    objects = []
    for entry in read(data).entries:
        stored = data[entry.offset : entry.end]
        check_stored(entry, stored)
        raw = encodings.decode(entry.encoding, stored, entry.raw_size, entry.itemsize)
        check_raw(entry, raw)
        objects.append(bytes(raw))
    return objects


def crafted(rows: list[Any], *, body: bytes = b"", document: Any = None) -> bytes:
    """A pack whose index says this, under a digest that is right."""
    header = b"ESPRPAK1" + PACK_ID.bytes
    index = document if isinstance(document, bytes) else canonical.dumps({"format": "esper-pack/1", "entries": rows})
    trailer = len(index).to_bytes(8, "big") + blake3(header + index).digest() + END_MAGIC
    return header + body + index + trailer


def row(**changes: Any) -> list[Any]:
    """The entry of an object of ten bytes, but for these changes."""
    fields = {
        "digest": digest_of(b"0123456789"),
        "offset": HEADER_BYTES,
        "stored_size": 10,
        "raw_size": 10,
        "encoding": "raw",
        "itemsize": 1,
        "checksum": checksum_of(b"0123456789"),
    }
    return list({**fields, **changes}.values())


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=500), st.sampled_from(Encoding)), max_size=6))
def test_what_was_added_is_found_in_its_order(objects: list[tuple[bytes, Encoding]]) -> None:
    data, index = pack_of(*objects)
    assert read(data) == index
    assert read_all(data) == list(dict.fromkeys(raw for raw, _ in objects))
    assert index.size == len(data)


def test_an_object_that_is_added_twice_is_stored_once() -> None:
    assert len(pack_of((NOISE, Encoding.RAW), (NOISE, Encoding.BLOSC2))[1].entries) == 1


def test_every_flipped_bit_is_detected_and_its_region_named() -> None:
    index_at = SMALL_INDEX.entries[-1].end
    for place in range(len(SMALL)):
        for bit in range(8):
            changed = bytearray(SMALL)
            changed[place] ^= 1 << bit
            with pytest.raises(CorruptCheckpoint) as raised:
                read_all(bytes(changed))
            assert raised.value.part in _regions(place, index_at)


def _regions(place: int, index_at: int) -> set[str]:
    """What an error may name for a changed byte: the digest of the index is in the trailer, and its length too."""
    if place < HEADER_BYTES:
        return {"pack header"}
    for entry in SMALL_INDEX.entries:
        if entry.offset <= place < entry.end:
            return {f"object {entry.digest[:12]}"}
    return {"pack index"} if place < len(SMALL) - TRAILER_BYTES else {"pack trailer", "pack index"}


def test_a_pack_cut_anywhere_is_refused() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(CorruptCheckpoint):
            read(SMALL[:length])


@given(st.binary(min_size=1, max_size=200))
def test_a_pack_with_more_bytes_behind_it_is_refused(more: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        read(SMALL + more)


def test_a_pack_in_the_place_of_another_is_refused() -> None:
    with pytest.raises(CorruptCheckpoint, match=f"The pack {PACK_ID} in the place of {OTHER_ID}"):
        read(SMALL, OTHER_ID)


def test_two_objects_that_changed_places_are_noticed() -> None:
    data, index = pack_of((b"first.....", Encoding.RAW), (b"second....", Encoding.RAW))
    first, second = index.entries
    swapped = data[: first.offset] + b"second....first....." + data[second.end :]
    with pytest.raises(CorruptCheckpoint, match="not those that were written"):
        read_all(swapped)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 0}, "lies on others or outside"),
        ({"offset": HEADER_BYTES - 1}, "lies on others or outside"),
        ({"offset": HEADER_BYTES + 1, "stored_size": 9}, "lies on others or outside"),
        ({"offset": -1}, "lies on others or outside"),
        ({"offset": 2**70}, "lies on others or outside"),
        ({"stored_size": 9}, "belong to no object"),
        ({"stored_size": 11, "raw_size": 11}, "lies on others or outside"),
        ({"stored_size": 0}, "takes 0 bytes"),
        ({"stored_size": -10}, "takes -10 bytes"),
        ({"stored_size": 10 + OVERHEAD_BYTES + 1}, "takes 8,203 bytes for 10"),
        ({"raw_size": 0}, "has 0 bytes"),
        ({"raw_size": OBJECT_BYTES + 1}, "has 8,388,609 bytes"),
        ({"raw_size": 10**18}, "an object has 1 to"),
        ({"raw_size": True}, "not made as entries are"),
        ({"raw_size": 10.0}, "not made as entries are"),
        ({"itemsize": 0}, "items of 0 bytes"),
        ({"itemsize": 17}, "items of 17 bytes"),
        ({"encoding": "pickle"}, "not known: pickle"),
        ({"digest": "../../etc/passwd"}, "whose digest is none"),
        ({"digest": "A" * 64}, "whose digest is none"),
        ({"checksum": "0" * 31}, "whose digest is none"),
    ],
    ids=str,
)
def test_a_crafted_entry_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CorruptCheckpoint, match=message):
        read(crafted([row(**changes)], body=b"0123456789"))


def test_entries_that_share_bytes_are_refused() -> None:
    rows = [row(), row(digest="a" * 64)]
    with pytest.raises(CorruptCheckpoint, match="lies on others"):
        read(crafted(rows, body=b"0123456789"))


def test_an_object_that_stands_in_the_index_twice_is_refused() -> None:
    rows = [row(), row(offset=HEADER_BYTES + 10)]
    with pytest.raises(CorruptCheckpoint, match="stands there twice"):
        read(crafted(rows, body=b"0123456789" * 2))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b'{"format":"esper-pack/2","entries":[]}',
        b'{"format":"esper-pack/1","entries":[],"entries":[]}',
        b'{"format":"esper-pack/1","entries":[]} ',
        b'{"format":"esper-pack/1","entries":{}}',
        b'{"format":"esper-pack/1","entries":[NaN]}',
        b'{"format":"esper-pack/1","entries":[1e999]}',
        b'{"format":"esper-pack/1","entries":[' + b"9" * 5000 + b"]}",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[" + b"0," * canonical.MAX_MARKS + b"0]",
    ],
    ids=lambda document: document[:40].decode("latin-1") + f" ({len(document)})",
)
def test_a_crafted_index_is_refused(document: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        read(crafted([], document=document))


def test_an_index_that_is_said_to_be_huge_is_not_read() -> None:
    asked = []

    def note(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        if start == 0:
            return b"ESPRPAK1" + PACK_ID.bytes
        return (packs.MAX_INDEX_BYTES + 1).to_bytes(8, "big") + bytes(32) + END_MAGIC

    with pytest.raises(CorruptCheckpoint, match="does not fit"):
        read_index(note, 10**15, PACK_ID)
    assert asked == [HEADER_BYTES, TRAILER_BYTES]


@pytest.mark.parametrize("sizes", [{"raw_size": OBJECT_BYTES + 1}, {"raw_size": 0}], ids=str)
def test_an_object_that_no_reader_would_take_is_not_written(sizes: dict[str, int]) -> None:
    writer = PackWriter(io.BytesIO(), PACK_ID)
    with pytest.raises(ValueError, match="an object has 1 to"):
        writer.add("a" * 64, b"x", **sizes, encoding=Encoding.RAW, itemsize=1)


def test_bytes_under_the_name_of_others_are_refused() -> None:
    entry = Entry("a" * 64, HEADER_BYTES, 3, 3, Encoding.BLOSC2, 1, checksum_of(b"abc"))
    check_stored(entry, b"abc")
    with pytest.raises(CorruptCheckpoint, match="not those of its name"):
        check_raw(entry, b"abc")
