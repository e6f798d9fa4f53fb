"""From a manifest back to its trees: planned by where the bytes lie, and every byte verified before it is believed.

Each object's stored bytes are read in the order of their pack, compared with the digest that the pack's index states,
decoded straight into the tensor that they belong to, and compared with the digest that they are named by.
"""

import os
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import MADV_HUGEPAGE, mmap
from typing import Any, Protocol
from uuid import UUID

from apps.checkpoints.store import encodings, trees
from apps.checkpoints.store.errors import CorruptCheckpoint, TooLarge
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.index import Place
from apps.checkpoints.store.leaves import Leaf
from apps.checkpoints.store.manifests import LeafRef, Manifest
from apps.checkpoints.store.packs import OBJECT_BYTES, OVERHEAD_BYTES, Entry, check_raw, check_stored, object_name

RUN_BYTES = 2 * 1024 * 1024
"""Neighbours in a pack are read together up to this size: one request to an object storage, not hundreds.

Larger runs would be slower from a disk: what was read should still be in the processor's caches when it is decoded."""

Progress = Callable[[int, int], None]
"""Called with the raw bytes done and the raw bytes in all."""


class Source(Protocol):
    """Where objects come from: a folder, an object storage, or both."""

    def place(self, digest: str) -> Place:
        """Where an object is. Raises CorruptCheckpoint: nowhere."""

    def read_into(self, pack_id: UUID, start: int, into: memoryview) -> int:
        """Fill ``into`` from the byte ``start`` of a pack on, from any thread; how many bytes there were.

        Raises:
            CorruptCheckpoint: the pack is gone. OSError.
        """


class FolderSource:
    """Objects of a folder's packs, found by an index (``FolderIndex.place``, or a database's)."""

    def __init__(self, folder: Folder, place: Callable[[str], Place]) -> None:
        self._folder = folder
        self.place = place

    def read_into(self, pack_id: UUID, start: int, into: memoryview) -> int:
        with self._folder.open_pack(pack_id) as pack:
            return pack.read_into(start, into)


@dataclass(frozen=True, slots=True)
class Report:
    """What was verified: objects, and their raw bytes."""

    objects: int
    bytes: int


def load(
    manifest: Manifest,
    source: Source,
    components: Collection[str] | None = None,
    *,
    torch: bool = False,
    progress: Progress | None = None,
    memory: int | None = None,
) -> dict[str, Any]:
    """The trees of these components (all by default), with tensors and arrays where ``torch``, else with ``Leaf``.

    ``memory``: bytes that the trees may take, by default what the machine has.

    Raises:
        CorruptCheckpoint: a byte is not what was saved; nothing is returned. ``digest`` and ``pack_id`` say which.
        TooLarge: more than ``memory``. KeyError: the checkpoint has no such component. OSError.
    """
    chosen = {name: manifest.components[name] for name in (manifest.components if components is None else components)}
    _check_memory(sum(component.nbytes for component in chosen.values()), memory)
    targets = _Targets(_torch_leaf if torch else _plain_leaf)
    loaded = {name: [targets.leaf(leaf) for leaf in component.leaves] for name, component in chosen.items()}
    _Reading(source, targets.by_digest).run(progress)
    return {
        name: trees.unflatten(component.tree, loaded[name], lambda make, kind: make(kind))
        for name, component in chosen.items()
    }


def verify(manifest: Manifest, source: Source, *, progress: Progress | None = None) -> Report:
    """Read and verify every byte that ``load`` would, and keep none. Raises CorruptCheckpoint, OSError."""
    sizes = manifest.objects()
    return _Reading(source, {digest: [_Target(None, 0, size)] for digest, size in sizes.items()}).run(progress)


def broken(manifest: Manifest, source: Source) -> set[str]:
    """Digests of the objects that are not what was saved, each read alone. Raises OSError."""
    found = set()
    for digest, size in manifest.objects().items():
        try:
            _Reading(source, {digest: [_Target(None, 0, size)]}).run(None)
        except CorruptCheckpoint:
            found.add(digest)
    return found


Make = Callable[[trees.Kind], Any]


def _torch_leaf(ref: LeafRef) -> tuple[memoryview, Make]:
    from apps.checkpoints.store import tensors

    memory, view = tensors.buffer(ref.nbytes)
    return view, lambda kind: tensors.value_of(memory, ref.dtype, ref.shape, kind)


def _plain_leaf(ref: LeafRef) -> tuple[memoryview, Make]:
    leaf = Leaf(ref.dtype, ref.shape, bytearray(ref.nbytes))
    return memoryview(leaf.data), lambda kind: leaf


def _check_memory(needed: int, limit: int | None) -> None:
    if limit is None:
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > limit:
        raise TooLarge(needed, limit)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where bytes ``offset`` to ``offset + length`` of an object go; None: they are only verified."""

    view: memoryview | None
    offset: int
    length: int


class _Targets:
    """The memory of all leaves, and which object fills which part of it."""

    def __init__(self, allocate: Callable[[LeafRef], tuple[memoryview, Make]]) -> None:
        self.by_digest: dict[str, list[_Target]] = {}
        self._allocate = allocate

    def leaf(self, ref: LeafRef) -> Make:
        view, make = self._allocate(ref)
        start = 0
        for digest, offset, length in ref.parts:
            target = _Target(view[start : start + length], offset, length)
            self.by_digest.setdefault(digest, []).append(target)
            start += length
        return make


class _Reading:
    """Reads objects in runs of neighbours, with ``encodings.THREADS`` threads that have a buffer each."""

    def __init__(self, source: Source, targets: dict[str, list[_Target]]) -> None:
        self.source = source
        self.targets = targets
        self.places = sorted(
            (self._place(digest) for digest in targets), key=lambda place: (place.pack_id, place.entry.offset)
        )
        self.buffers = threading.local()

    def run(self, progress: Progress | None) -> Report:
        total, done = sum(place.entry.raw_size for place in self.places), 0
        with ThreadPoolExecutor(encodings.THREADS, thread_name_prefix="restore") as pool:
            try:
                for size in pool.map(self.read, self.runs()):
                    done += size
                    if progress is not None:
                        progress(done, total)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return Report(len(self.places), total)

    def runs(self) -> Iterator[list[Place]]:
        run: list[Place] = []
        for place in self.places:
            if run and not _follows(place, run):
                yield run
                run = []
            run.append(place)
        if run:
            yield run

    def read(self, run: list[Place]) -> int:
        """Read and decode neighbours; how many raw bytes they had."""
        first, last = run[0].entry, run[-1].entry
        stored = self.buffer("stored", OBJECT_BYTES + OVERHEAD_BYTES)[: last.end - first.offset]
        count = self.source.read_into(run[0].pack_id, first.offset, stored)
        for place in run:
            entry = place.entry
            with _naming(place):
                self.take(entry, stored[:count][entry.offset - first.offset : entry.end - first.offset])
        return sum(place.entry.raw_size for place in run)

    def take(self, entry: Entry, stored: memoryview) -> None:
        """Verify and decode one object into its first target, and copy it to the others. Raises CorruptCheckpoint."""
        targets = [target for target in self.targets[entry.digest] if target.view is not None]
        whole = next((target for target in targets if target.length == entry.raw_size), None)
        raw = self.buffer("raw", OBJECT_BYTES)[: entry.raw_size] if whole is None or whole.view is None else whole.view
        if not entry.is_plain:
            check_stored(entry, stored)
        encodings.decode(entry.encoding, stored, entry.raw_size, entry.itemsize, raw)
        check_raw(entry, raw)
        for target in targets:
            if target is not whole and target.view is not None:
                target.view[:] = raw[target.offset : target.offset + target.length]

    def buffer(self, name: str, size: int) -> memoryview:
        """Memory of this thread, used again for every object: fresh pages cost more than what is written to them."""
        if not hasattr(self.buffers, name):
            memory = mmap(-1, size)
            memory.madvise(MADV_HUGEPAGE)  # a page fault for each 2 MiB, not for each 4 KiB
            setattr(self.buffers, name, memoryview(memory))
        kept: memoryview = getattr(self.buffers, name)
        return kept

    def _place(self, digest: str) -> Place:
        place = self.source.place(digest)
        if any(target.offset + target.length > place.entry.raw_size for target in self.targets[digest]):
            raise CorruptCheckpoint(
                "It is referenced beyond its end.", part=object_name(digest), pack_id=place.pack_id, digest=digest
            )
        return place


def _follows(place: Place, run: list[Place]) -> bool:
    """Whether an object is the next in the pack, and still fits the buffer."""
    return (
        place.pack_id == run[-1].pack_id
        and place.entry.offset == run[-1].entry.end
        and place.entry.end - run[0].entry.offset <= RUN_BYTES
    )


@contextmanager
def _naming(place: Place) -> Iterator[None]:
    """Have an error say which object of which pack it was."""
    try:
        yield
    except CorruptCheckpoint as error:
        digest = place.entry.digest
        raise CorruptCheckpoint(
            f"{error.message} (pack {place.pack_id})", part=object_name(digest), pack_id=place.pack_id, digest=digest
        ) from error
