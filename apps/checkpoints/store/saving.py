"""Saving: training waits for a copy in memory, and a thread makes that a checkpoint.

    saver = Saver(folder, index)
    handle = saver.begin({"tolaria": {...}}, Meta(run_id=..., workspace_id=..., step=120))   # training may go on
    handle.wait()                                                                            # it is durable

Every object is hashed at every save; only those that the index does not know are encoded and written, into one pack.
Order: pack, durable -> manifest, durable -> ``index.commit``. What fails leaves the previous checkpoint as it is.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid4

from apps.checkpoints.store import crashpoints, encodings, trees
from apps.checkpoints.store.cutting import Cut, Piece, Shape, cut, parts_by_place
from apps.checkpoints.store.encodings import Encoding
from apps.checkpoints.store.errors import MissingObjects, UnsupportedState
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.index import Index, Saved
from apps.checkpoints.store.leaves import ITEM_SIZES, Buffer
from apps.checkpoints.store.manifests import COMPONENT, Component, LeafRef, Manifest, Part
from apps.checkpoints.store.packs import PackIndex, PackWriter, digest_of

if TYPE_CHECKING:
    from apps.checkpoints.store.staging import Staged, Staging

AHEAD = 2 * encodings.THREADS
"""Encoded objects that may wait for the disk: a bound on memory, 8 MiB each."""
COMMITS = 3
"""How often a commit is tried while objects that it references vanish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a manifest says of a checkpoint beside its state. Without ``parent_id``: the one saved before is it."""

    run_id: UUID
    workspace_id: UUID
    id: UUID = field(default_factory=uuid4)
    parent_id: UUID | None = None
    epoch: int = 0
    step: int = 0
    fencing_token: int = 0
    reason: str = ""
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())
    metrics: Mapping[str, float] = field(default_factory=dict)
    fingerprint: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Handle:
    """One save. ``stall_seconds``: how long its caller was held up."""

    def __init__(self, future: "Future[Saved]", stall_seconds: float) -> None:
        self.stall_seconds = stall_seconds
        self._future = future

    def wait(self, timeout: float | None = None) -> Saved:
        """What was saved, once it is durable. Raises what went wrong, and TimeoutError after ``timeout`` seconds."""
        return self._future.result(timeout)

    def done(self) -> bool:
        """Whether it was saved, or has failed."""
        return self._future.done()


class Saver:
    """Saves the states of one run, one after another, in the order in which they were begun.

    ``on_begin`` hears of a save before anything is written, ``on_failure`` what went wrong, ``on_end`` when it is over;
    all three from the thread that saves. Not in the ``background``: ``begin`` returns when all is done.
    """

    def __init__(
        self,
        folder: Folder,
        index: Index,
        *,
        on_begin: Callable[[Meta], object] | None = None,
        on_failure: Callable[[Meta, Exception], object] | None = None,
        on_end: Callable[[], object] | None = None,
        background: bool = True,
    ) -> None:
        self.coalesced = 0
        self._folder = folder
        self._index = index
        self._on_begin = on_begin
        self._on_failure = on_failure
        self._on_end = on_end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint") if background else None
        self._workers = ThreadPoolExecutor(encodings.THREADS, thread_name_prefix="checkpoint-objects")
        self._in_flight = 0
        self._newest: UUID | None = None
        self._lock = threading.Lock()

    def begin(
        self, state: Mapping[str, Any], meta: Meta, *, frozen: Collection[int] = frozenset(), wait: bool = True
    ) -> Handle | None:
        """Copy a state (component -> tree), and return: training may go on, the thread saves the copy.

        ``frozen``: ids of tensors that nobody writes to any more, which are not copied but read where they are. While
        one save is in flight, a second is copied and waits for its turn; a third waits here. With ``wait`` false
        nothing waits: None means that one is in flight, and that this one was only counted, in ``coalesced``.

        Raises:
            UnsupportedState: it holds something else than tensors, arrays, scalars, and containers of these.
        """
        started = time.perf_counter()
        with self._lock:
            if self._in_flight and not wait:
                self.coalesced += 1
                return None
            self._in_flight += 1
        try:
            snapshot = _Snapshot.of(state, frozen)
            snapshot.stage(self._staging)
        except (MemoryError, RuntimeError) as error:
            self._left()
            return self._not_staged(meta, error, started)
        except BaseException:
            self._left()
            raise
        save = _Save(snapshot, meta, self._folder, self._index, self._workers, {"stall": time.perf_counter() - started})
        if self._thread is not None:
            future = self._thread.submit(self._run, save)
        else:
            future = Future()
            try:
                future.set_result(self._run(save))
            except Exception as error:
                future.set_exception(error)
        return Handle(future, time.perf_counter() - started)

    def _not_staged(self, meta: Meta, error: Exception, started: float) -> Handle:
        """There was no memory for the copy: a save that has failed, as on a full disk."""
        if self._on_failure is not None:
            self._on_failure(meta, error)
        future: Future[Saved] = Future()
        future.set_exception(error)
        return Handle(future, time.perf_counter() - started)

    def prepare(self, state: Mapping[str, Any], *, frozen: Collection[int] = frozenset()) -> None:
        """Have memory for a state touched before it is needed, so that the first save costs no more than the others."""
        snapshot = _Snapshot.of(state, frozen)
        snapshot.stage(self._staging)
        snapshot.release()

    def close(self) -> None:
        """Wait for what is in flight, and end the threads."""
        if self._thread is not None:
            self._thread.shutdown()
        self._workers.shutdown()

    @cached_property
    def _staging(self) -> "Staging":
        from apps.checkpoints.store.staging import Staging

        return Staging()

    def _run(self, save: "_Save") -> Saved:
        meta = save.meta = replace(save.meta, parent_id=save.meta.parent_id or self._newest)
        try:
            if self._on_begin is not None:
                self._on_begin(meta)
            saved = save.run()
            self._newest = meta.id
            return saved
        except Exception as error:
            if self._on_failure is not None:
                self._on_failure(meta, error)
            raise
        finally:
            save.snapshot.release()
            self._left()
            if self._on_end is not None:
                self._on_end()

    def _left(self) -> None:
        with self._lock:
            self._in_flight -= 1


class _Encoded(NamedTuple):
    digest: str
    stored: Buffer
    raw_size: int
    encoding: Encoding
    itemsize: int


class _Save:
    """One state on its way to the disk."""

    def __init__(
        self,
        snapshot: "_Snapshot",
        meta: Meta,
        folder: Folder,
        index: Index,
        workers: ThreadPoolExecutor,
        seconds: dict[str, float],
    ) -> None:
        self.snapshot = snapshot
        self.meta = meta
        self.folder = folder
        self.index = index
        self.workers = workers
        self.seconds = seconds
        self.cuts = snapshot.cuts()
        self.digests: list[str] = []
        self.packs: list[PackIndex] = []
        self.has_manifest = False
        self.begun = time.perf_counter()

    def run(self) -> Saved:
        """Raises OSError, CorruptCheckpoint, and what the index raises."""
        try:
            saved = self.write()
        except BaseException:
            self.remove_files()
            raise
        # From here on nothing is removed: an error may hide a commit that went through. Garbage collection knows.
        saved = self.commit(saved)
        self.seconds["total"] = time.perf_counter() - self.begun
        return replace(saved, seconds=dict(self.seconds))

    def write(self) -> Saved:
        """The state in files that are durable, and that nobody knows of yet."""
        crashpoints.reached("save.begun")
        with self.timed("hash"):
            self.snapshot.wait()
            self.digests = list(self.workers.map(self.hash, self.cuts))
        with self.timed("find"):
            known = self.index.find(set(self.digests))
        with self.timed("pack"):
            self.write_pack({digest: number for number, digest in enumerate(self.digests) if digest not in known})
        with self.timed("manifest"):
            manifest = self.manifest()
            self.folder.write_manifest(manifest.id, manifest.to_bytes())
            self.has_manifest = True
        shared = sum(made.nbytes for made, digest in zip(self.cuts, self.digests, strict=True) if digest in known)
        return Saved(manifest, raw_bytes=self.snapshot.nbytes, shared_bytes=shared)

    def hash(self, made: Cut) -> str:
        return digest_of(self.snapshot.read(made))

    def write_pack(self, new: Mapping[str, int]) -> None:
        """Write a pack of these objects (digest -> number of the cut), if there are any."""
        if not new:
            return
        pack_id = uuid4()
        renamed = {}
        with self.folder.write_pack(pack_id) as file, closing(self.encoded(new.values())) as objects:
            writer = PackWriter(file, pack_id)
            for digest, encoded in zip(new, objects, strict=True):
                writer.add(
                    encoded.digest,
                    encoded.stored,
                    raw_size=encoded.raw_size,
                    encoding=encoded.encoding,
                    itemsize=encoded.itemsize,
                )
                renamed[digest] = encoded.digest
            index = writer.close()
        self.packs.append(index)
        self.digests = [renamed.get(digest, digest) for digest in self.digests]

    def encoded(self, numbers: Collection[int]) -> Generator[_Encoded, None, None]:
        waiting: deque[Future[_Encoded]] = deque()
        try:
            for number in numbers:
                waiting.append(self.workers.submit(self.encode, number))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)  # they read memory that is about to be used for something else

    def encode(self, number: int) -> _Encoded:
        made, digest = self.cuts[number], self.digests[number]
        data = self.snapshot.read(made)
        if self.snapshot.is_live(made):
            # What is written must be what it is named by, whoever writes to the tensor meanwhile.
            data = bytes(data)
            digest = digest_of(data)
        encoding = encodings.choose(data, made.itemsize)
        return _Encoded(digest, encodings.encode(encoding, data, made.itemsize), len(data), encoding, made.itemsize)

    def manifest(self) -> Manifest:
        parts = parts_by_place(self.cuts, self.digests)
        components = {
            name: Component(skeleton, tuple(self.snapshot.reference(place, parts) for place in places))
            for name, (skeleton, places) in self.snapshot.components.items()
        }
        meta = self.meta
        return Manifest(
            id=meta.id,
            run_id=meta.run_id,
            workspace_id=meta.workspace_id,
            parent_id=meta.parent_id,
            epoch=meta.epoch,
            step=meta.step,
            fencing_token=meta.fencing_token,
            reason=meta.reason,
            created_at=meta.created_at,
            components=components,
            metrics=meta.metrics,
            fingerprint=meta.fingerprint,
            environment=meta.environment,
            labels=meta.labels,
        )

    def commit(self, saved: Saved) -> Saved:
        """Make it known; objects that are gone since they were found are written after all."""
        tries = 0
        while True:
            tries += 1
            self.seconds["total"] = time.perf_counter() - self.begun
            stored = sum(pack.size for pack in self.packs)
            saved = replace(saved, packs=tuple(self.packs), new_bytes=stored, seconds=dict(self.seconds))
            try:
                with self.timed("commit"):
                    crashpoints.reached("commit.before")
                    self.index.commit(saved)
                    crashpoints.reached("commit.after")
                return saved
            except MissingObjects as error:
                if tries == COMMITS:
                    self.remove_files()  # this error means that nothing was committed
                    raise
                saved = self.write_again(saved, error.digests)

    def write_again(self, saved: Saved, digests: Collection[str]) -> Saved:
        again = {digest: number for number, digest in enumerate(self.digests) if digest in digests}
        with self.timed("pack"):
            self.write_pack(again)
        written = sum(self.cuts[number].nbytes for number in again.values())
        return replace(saved, shared_bytes=max(0, saved.shared_bytes - written))

    def remove_files(self) -> None:
        """As far as the disk lets us; what stays is collected later, because nobody references it."""
        if self.has_manifest:
            with suppress(OSError):
                self.folder.delete_manifest(self.meta.id)
        for pack in self.packs:
            with suppress(OSError):
                self.folder.delete_pack(pack.pack_id)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass(slots=True)
class _Leaf:
    """A tensor or an array; ``source`` is what it is read from: the live one, then its copy, or an array's bytes."""

    dtype: str
    shape: tuple[int, ...]
    source: Any
    is_frozen: bool

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEM_SIZES[self.dtype]


class _Snapshot:
    """A state taken apart: per component its skeleton and the places of its leaves among ``leaves``."""

    def __init__(self, frozen: Collection[int]) -> None:
        self.components: dict[str, tuple[trees.Json, list[int]]] = {}
        self.leaves: list[_Leaf] = []
        self._frozen = frozen
        self._places: dict[int, int] = {}  # id of a tensor -> its place; the caller's state keeps it alive
        self._staged: Staged | None = None

    @classmethod
    def of(cls, state: Mapping[str, Any], frozen: Collection[int]) -> "_Snapshot":
        """Raises UnsupportedState."""
        snapshot = cls(frozen)
        for name, tree in state.items():
            snapshot.add(name, tree)
        return snapshot

    def add(self, name: str, tree: Any) -> None:
        from apps.checkpoints.store import tensors

        if not COMPONENT.fullmatch(name):
            raise UnsupportedState(f"{name!r:.80}", "The name of a component has 1 to 32 of the letters a to z and _.")
        skeleton, values = trees.flatten(tree, tensors.kind_of, name)
        places = []
        for value in values:
            if id(value) not in self._places:
                try:
                    self.leaves.append(self.leaf(value, name))
                except UnsupportedState:
                    self.leaf(value, _path_of(value, tree, name))  # the same again, with its place in the message
                    raise
                self._places[id(value)] = len(self.leaves) - 1
            places.append(self._places[id(value)])
        self.components[name] = (skeleton, places)

    def leaf(self, value: Any, path: str) -> _Leaf:
        from apps.checkpoints.store import tensors

        if tensors.kind_of(value) == "tensor":
            is_frozen = id(value) in self._frozen and value.is_contiguous()
            return _Leaf(tensors.dtype_of(value, path), tuple(value.shape), value.detach(), is_frozen)
        array = tensors.leaf_of(value, path)
        return _Leaf(array.dtype, array.shape, bytes(array.data), is_frozen=False)

    def stage(self, staging: "Staging") -> None:
        """Copy every tensor that may change."""
        moving = [leaf for leaf in self.leaves if not leaf.is_frozen and not isinstance(leaf.source, bytes)]
        if not moving:
            return
        self._staged = staging.take([leaf.source for leaf in moving])
        for leaf, copied in zip(moving, self._staged.tensors, strict=True):
            leaf.source = copied

    def wait(self) -> None:
        if self._staged is not None:
            self._staged.wait()

    def release(self) -> None:
        self.leaves = []
        if self._staged is not None:
            self._staged.release()

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in self.leaves)

    def cuts(self) -> list[Cut]:
        cuts: list[Cut] = []
        seen: set[int] = set()
        for _, places in self.components.values():
            new = [place for place in places if place not in seen]  # a tensor of two components is kept once
            seen.update(new)
            leaves = ((place, self.leaves[place]) for place in new)
            cuts += cut(Shape(place, leaf.dtype, leaf.nbytes, leaf.is_frozen) for place, leaf in leaves)
        return cuts

    def read(self, made: Cut) -> Buffer:
        """The bytes of an object; a view of a copy, or of a live tensor on the CPU, where it has one piece."""
        if len(made.pieces) == 1:
            return self.bytes_of(made.pieces[0])
        return b"".join(self.bytes_of(piece) for piece in made.pieces)

    def bytes_of(self, piece: Piece) -> Buffer:
        from apps.checkpoints.store import tensors

        leaf = self.leaves[piece.place]
        if isinstance(leaf.source, bytes):
            return memoryview(leaf.source)[piece.start : piece.stop]
        itemsize = ITEM_SIZES[leaf.dtype]
        return tensors.leaf_of(leaf.source.reshape(-1)[piece.start // itemsize : piece.stop // itemsize]).data

    def is_live(self, made: Cut) -> bool:
        return any(self.leaves[piece.place].is_frozen for piece in made.pieces)

    def reference(self, place: int, parts: Mapping[int, Sequence[Part]]) -> LeafRef:
        leaf = self.leaves[place]
        return LeafRef(leaf.dtype, leaf.shape, tuple(parts.get(place, ())))


def _path_of(wanted: object, tree: Any, path: str) -> str:
    """Where in a tree a leaf is, for a message."""
    if tree is wanted:
        return path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return next((found for name, value in items if (found := _path_of(wanted, value, f"{path}/{name}"))), "")
