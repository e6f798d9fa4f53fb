"""Thousands of changed files, under wrong digests and under right ones: a clear error, or the same state."""

import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from blake3 import blake3

from apps.checkpoints.store import canonical
from apps.checkpoints.store.errors import CorruptCheckpoint, TooLarge
from apps.checkpoints.store.index import FolderIndex, Place
from apps.checkpoints.store.manifests import Manifest, parse
from apps.checkpoints.store.packs import (
    END_MAGIC,
    HEADER_BYTES,
    TRAILER_BYTES,
    PackIndex,
    checksum_of,
    read_index,
)
from apps.checkpoints.store.restoring import load
from tests.unit.checkpoints.making import PACK_ID, Kept, keep, same, signed

STATE = {
    "tolaria": {"w": torch.linspace(0, 1, 20_000), "b": torch.arange(9), "t": (1, float("nan"), b"x"), 5: [True, None]},
    "urza": {"count": 10**30, "names": ["a", "$b"]},
}
LIMIT = 64 << 20
"""Bytes that a changed file of a few kilobytes may cost at most."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return keep(tmp_path_factory.mktemp("kept"), STATE)


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LIMIT


class Bytes:
    """The objects of a pack in memory."""

    def __init__(self, data: bytes, index: PackIndex) -> None:
        self.data = data
        self.entries = {entry.digest: entry for entry in index.entries}

    def place(self, digest: str) -> Place:
        if digest not in self.entries:
            raise CorruptCheckpoint("No pack holds it.", part="object")
        return Place(PACK_ID, self.entries[digest])

    def read_into(self, pack_id: Any, start: int, into: memoryview) -> int:
        found = self.data[start : start + len(into)]
        into[: len(found)] = found
        return len(found)


def restored(pack: bytes, manifest: Manifest) -> Any:
    index = read_index(lambda start, stop: pack[start:stop], len(pack), PACK_ID)
    return load(manifest, Bytes(pack, index), torch=True, memory=LIMIT)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, taken out, put in, doubled or exchanged."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(changed))
        stop = min(len(changed), start + chance.choice((1, 1, 2, 8, 64)))
        what = chance.randrange(5)
        if what == 0:
            changed[start:stop] = chance.randbytes(stop - start)
        elif what == 1 and stop - start < len(changed) - 1:
            del changed[start:stop]
        elif what == 2:
            changed[start:start] = chance.randbytes(stop - start)
        elif what == 3:
            changed[start:start] = changed[start:stop]
        else:
            changed[start] ^= 1 << chance.randrange(8)
    return bytes(changed)


def mutated_value(value: Any, chance: random.Random) -> Any:
    """A document with one value of it, anywhere, replaced by another."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        name = chance.choice(list(value))
        return {**value, name: mutated_value(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.9:
        place = chance.randrange(len(value))
        return [*value[:place], mutated_value(value[place], chance), *value[place + 1 :]]
    others = (None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, "", "../..", "a" * 64, [], {}, [[]], {"$leaf": 0})
    return chance.choice((*others, value, [value, value], {"$tuple": value}, {"$dict": [[value, value]]}))


def test_a_mutated_manifest_is_refused(kept: Kept) -> None:
    chance, data = random.Random(1), kept.manifest.to_bytes()
    for _ in range(1500):
        changed = mutated(data, chance)
        if changed != data:
            with pytest.raises(CorruptCheckpoint):
                parse(changed)


@pytest.mark.usefixtures("bounded_memory")
def test_a_mutated_manifest_under_a_right_digest_is_refused_or_says_what_it_is_written_as(kept: Kept) -> None:
    chance, data = random.Random(2), kept.manifest.to_bytes()
    for _ in range(1500):
        changed = signed(mutated(data[72:], chance))
        try:
            assert parse(changed).to_bytes() == changed
        except CorruptCheckpoint:
            continue


@pytest.mark.usefixtures("bounded_memory")
def test_a_manifest_with_any_value_replaced_restores_something_whole_or_is_refused(kept: Kept) -> None:
    chance, document = random.Random(3), json.loads(kept.manifest.to_bytes()[72:])
    pack = kept.pack.read_bytes()
    for _ in range(400):
        try:
            manifest = parse(signed(mutated_value(document, chance)))
            assert set(restored(pack, manifest)) == set(manifest.components)
        except (CorruptCheckpoint, TooLarge):
            continue


def test_a_mutated_pack_is_refused_or_what_changed_is_no_part_of_it(kept: Kept) -> None:
    chance, data = random.Random(4), kept.pack.read_bytes()
    for _ in range(800):
        changed = mutated(data, chance)
        if changed != data:
            with pytest.raises(CorruptCheckpoint):
                restored(changed, kept.manifest)


@pytest.mark.usefixtures("bounded_memory")
def test_a_mutated_index_under_a_right_digest_is_refused_or_finds_the_same_state(kept: Kept) -> None:
    chance, data = random.Random(5), kept.pack.read_bytes()
    end = FolderIndex(kept.folder).packs[PACK_ID].entries[-1].end
    index = data[end:-TRAILER_BYTES]
    for number in range(500):
        other = mutated(index, chance) if number % 2 else canonical.dumps(mutated_value(json.loads(index), chance))
        try:
            assert same(restored(_sealed(data[:end], other), kept.manifest), STATE)
        except CorruptCheckpoint:
            continue


@pytest.mark.usefixtures("bounded_memory")
def test_a_mutated_object_under_right_stored_digests_is_refused_or_is_the_same(kept: Kept) -> None:
    """The decoder itself sees these: what it makes of them is compared with the name of the object."""
    chance, data = random.Random(6), kept.pack.read_bytes()
    index = FolderIndex(kept.folder).packs[PACK_ID]
    for _ in range(400):
        body, rows = bytearray(data[: index.entries[-1].end]), []
        victim = chance.choice(index.entries)
        for _ in range(chance.randint(1, 3)):
            near = victim.offset + min(victim.stored_size - 1, int(chance.expovariate(1 / 40)))
            body[chance.choice((near, chance.randrange(victim.offset, victim.end)))] = chance.randrange(256)
        for entry in index.entries:
            rows.append([*entry.as_json()[:-1], checksum_of(bytes(body[entry.offset : entry.end]))])
        document = canonical.dumps({"format": "esper-pack/1", "entries": rows})
        try:
            assert same(restored(_sealed(bytes(body), document), kept.manifest), STATE)
        except CorruptCheckpoint:
            continue


def _sealed(front: bytes, index: bytes) -> bytes:
    """A pack of this front and index, under a digest that is right."""
    digest = blake3(front[:HEADER_BYTES] + index).digest()
    return front + index + len(index).to_bytes(8, "big") + digest + END_MAGIC


def test_files_of_two_checkpoints_that_changed_places_are_refused(kept: Kept, tmp_path: Path) -> None:
    other = keep(tmp_path, {"tolaria": {"w": torch.ones(20_000)}, "urza": {}})
    with pytest.raises(CorruptCheckpoint):
        restored(other.pack.read_bytes(), kept.manifest)
