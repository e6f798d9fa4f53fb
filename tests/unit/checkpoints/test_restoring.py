"""Restoring: the same bits in the same trees, or an error that says which object of which pack is not what it was."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apps.checkpoints.store import encodings
from apps.checkpoints.store.encodings import Encoding
from apps.checkpoints.store.errors import CorruptCheckpoint, TooLarge
from apps.checkpoints.store.index import FolderIndex, Place
from apps.checkpoints.store.leaves import Leaf
from apps.checkpoints.store.manifests import Component, LeafRef, Manifest
from apps.checkpoints.store.packs import OBJECT_BYTES, Entry, checksum_of
from apps.checkpoints.store.restoring import RUN_BYTES, FolderSource, Report, load, verify
from tests.unit.checkpoints.making import PACK_ID, Kept, keep, manifest_of, same, state

STATE = state()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return keep(tmp_path_factory.mktemp("kept"), STATE)


class Noting(FolderSource):
    """A source that remembers what was read."""

    def __init__(self, kept: Kept) -> None:
        super().__init__(kept.folder, FolderIndex(kept.folder).place)
        self.reads: list[tuple[int, int]] = []

    def read_into(self, pack_id: Any, start: int, into: memoryview) -> int:
        self.reads.append((start, len(into)))
        return super().read_into(pack_id, start, into)


class Crafted:
    """A source whose index says anything, of one object that zeros are stored for."""

    def __init__(self, raw_size: int, stored: bytes, encoding: Encoding = Encoding.RAW) -> None:
        self.stored = stored
        self.entry = Entry("a" * 64, 24, len(stored), raw_size, encoding, 1, checksum_of(stored))

    def place(self, digest: str) -> Place:
        if digest != self.entry.digest:
            raise CorruptCheckpoint("No pack holds it.", part="object")
        return Place(PACK_ID, self.entry)

    def read_into(self, pack_id: Any, start: int, into: memoryview) -> int:
        into[:] = self.stored
        return len(self.stored)


def manifest_over(*sizes: int, digest: str = "a" * 64) -> Manifest:
    """Leaves of these bytes, all of one object."""
    leaves = tuple(LeafRef("uint8", (size,), ((digest, 0, size),)) for size in sizes)
    return manifest_of({"tolaria": Component([{"$leaf": number} for number in range(len(leaves))], leaves)})


def test_a_state_is_restored_bit_for_bit(kept: Kept) -> None:
    assert same(load(kept.manifest, kept.source, torch=True), STATE)


def test_what_was_shared_is_shared_again(kept: Kept) -> None:
    model = load(kept.manifest, kept.source, torch=True)["tolaria"]["model"]
    assert model["bias"] is model["tied"]


def test_restored_tensors_are_their_own_to_change(kept: Kept) -> None:
    first = load(kept.manifest, kept.source, torch=True)["tolaria"]["model"]
    for tensor in first.values():
        tensor.zero_()
    assert same(load(kept.manifest, kept.source, torch=True), STATE)


def test_arrays_and_scalars_of_numpy_come_back_as_such(tmp_path: Path) -> None:
    tree = {"key": np.arange(624, dtype=np.uint32), "reward": np.float64(0.25), "flag": np.bool_(True)}
    kept = keep(tmp_path, {"tamiyo": tree})
    restored = load(kept.manifest, kept.source, torch=True)["tamiyo"]
    assert same(restored, tree)
    assert {name: type(value) for name, value in restored.items()} == {
        name: type(value) for name, value in tree.items()
    }


def test_without_torch_the_leaves_are_plain_bytes(kept: Kept) -> None:
    leaf = load(kept.manifest, kept.source)["tolaria"]["model"]["bias"]
    assert isinstance(leaf, Leaf)
    assert bytes(leaf.data) == STATE["tolaria"]["model"]["bias"].numpy().tobytes()


def test_one_component_is_restored_without_reading_the_others(kept: Kept) -> None:
    source = Noting(kept)
    assert same(load(kept.manifest, source, ["tamiyo"], torch=True), {"tamiyo": STATE["tamiyo"]})
    assert sum(length for _, length in source.reads) < 110_000


def test_a_component_that_there_is_not_is_named(kept: Kept) -> None:
    with pytest.raises(KeyError, match="urza"):
        load(kept.manifest, kept.source, ["urza"])


def test_neighbours_are_read_together_and_nothing_twice(kept: Kept) -> None:
    source = Noting(kept)
    load(kept.manifest, source, torch=True)
    entries = FolderIndex(kept.folder).packs[PACK_ID].entries
    assert sum(length for _, length in source.reads) == sum(entry.stored_size for entry in entries)
    assert len(source.reads) < len(entries)
    assert all(
        length <= RUN_BYTES or (start, length) in {(e.offset, e.stored_size) for e in entries}
        for start, length in source.reads
    )


def test_progress_is_told_up_to_the_end(kept: Kept) -> None:
    told: list[tuple[int, int]] = []
    load(kept.manifest, kept.source, progress=lambda done, total: told.append((done, total)))
    total = sum(entry.raw_size for entry in FolderIndex(kept.folder).packs[PACK_ID].entries)
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_verifying_reads_every_object_and_keeps_none(kept: Kept) -> None:
    entries = FolderIndex(kept.folder).packs[PACK_ID].entries
    assert verify(kept.manifest, kept.source) == Report(len(entries), sum(entry.raw_size for entry in entries))


@pytest.mark.parametrize("restore", [load, verify])
def test_a_flipped_bit_in_any_object_is_detected_and_the_object_named(
    tmp_path: Path, restore: Callable[..., object]
) -> None:
    kept = keep(tmp_path, {"tolaria": {"a": STATE["tamiyo"]["noise"], "b": torch.zeros(90_000), "c": torch.ones(8)}})
    whole = kept.pack.read_bytes()
    for entry in FolderIndex(kept.folder).packs[PACK_ID].entries:
        for place in (entry.offset, (entry.offset + entry.end) // 2, entry.end - 1):
            changed = bytearray(whole)
            changed[place] ^= 16
            kept.pack.write_bytes(changed)
            with pytest.raises(CorruptCheckpoint, match=f"object {entry.digest[:12]}.*pack {PACK_ID}") as raised:
                restore(kept.manifest, kept.source)
            assert (raised.value.digest, raised.value.pack_id) == (entry.digest, PACK_ID)


def test_a_pack_that_was_cut_after_its_index_was_read_is_detected(tmp_path: Path) -> None:
    kept = keep(tmp_path, {"tolaria": torch.ones(100)})
    source = kept.source
    kept.pack.write_bytes(kept.pack.read_bytes()[:40])
    with pytest.raises(CorruptCheckpoint, match="16 bytes where 400 should be"):
        load(kept.manifest, source)


def test_a_pack_that_went_after_its_index_was_read_is_detected(tmp_path: Path) -> None:
    kept = keep(tmp_path, {"tolaria": torch.ones(100)})
    source = kept.source
    kept.folder.delete_pack(PACK_ID)
    with pytest.raises(CorruptCheckpoint, match="The file is gone"):
        load(kept.manifest, source)


def test_an_error_leaves_no_thread_behind(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint):
        load(manifest_over(5), Crafted(5, b"12345"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("restore")]


def test_bytes_of_another_name_are_refused_though_they_are_as_they_were_stored() -> None:
    with pytest.raises(CorruptCheckpoint, match="not those of its name"):
        load(manifest_over(5), Crafted(5, b"12345"))


def test_an_object_that_no_pack_holds_is_named() -> None:
    with pytest.raises(CorruptCheckpoint, match="No pack holds it"):
        load(manifest_over(5, digest="b" * 64), Crafted(5, b"12345"))


@pytest.mark.parametrize("restore", [load, verify])
def test_a_reference_past_the_end_of_an_object_is_refused(restore: Callable[..., object]) -> None:
    with pytest.raises(CorruptCheckpoint, match="referenced beyond its end"):
        restore(manifest_over(6), Crafted(5, b"12345"))


def test_a_state_that_is_larger_than_the_memory_is_refused_before_any_is_taken() -> None:
    one_object_very_often = manifest_over(*[OBJECT_BYTES] * 5000)
    with pytest.raises(TooLarge, match="need 41,943,040,000 bytes of memory") as raised:
        load(one_object_very_often, Crafted(OBJECT_BYTES, b""), memory=10**10)
    assert raised.value.limit == 10**10


def test_an_array_of_a_type_that_numpy_does_not_have_is_refused(tmp_path: Path) -> None:
    kept = keep(tmp_path, {"tolaria": {"w": torch.ones(4, dtype=torch.bfloat16)}})
    leaves = kept.manifest.components["tolaria"].leaves
    crafted = manifest_of({"tolaria": Component({"w": {"$leaf": 0, "kind": "array"}}, leaves)})
    with pytest.raises(CorruptCheckpoint, match="numpy does not have"):
        load(crafted, kept.source, torch=True)


def test_an_empty_checkpoint_is_restored(tmp_path: Path) -> None:
    kept = keep(tmp_path, {"kasmina": {"seeds": []}})
    assert load(kept.manifest, kept.source, torch=True) == {"kasmina": {"seeds": []}}


def test_no_decoder_sees_bytes_that_were_not_verified(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = keep(tmp_path, {"tolaria": torch.zeros(90_000)})
    source, changed = kept.source, bytearray(kept.pack.read_bytes())
    changed[30] ^= 1
    kept.pack.write_bytes(changed)
    monkeypatch.setattr(encodings, "decode", lambda *_: pytest.fail("a decoder saw them"))
    with pytest.raises(CorruptCheckpoint, match="not those that were written"):
        load(kept.manifest, source)


def test_the_store_is_imported_without_the_web_and_without_the_libraries_of_numbers() -> None:
    program = (
        "import sys\n"
        "from apps.checkpoints.store import crashpoints, encodings, folder, index, manifests, packs, restoring, trees\n"
        "print(sorted({'torch', 'numpy', 'blosc2', 'django'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
