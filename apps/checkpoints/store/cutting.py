"""How a state is cut into objects: what did not change since the last checkpoint must be the same object again.

Large tensors are cut every 8 MiB (tensors do not shift, so the cuts need not follow the content); small ones of a
component share objects, those that nobody writes to any more apart from the others, and each type of number apart.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from apps.checkpoints.store.leaves import ITEM_SIZES
from apps.checkpoints.store.manifests import Part
from apps.checkpoints.store.packs import OBJECT_BYTES, SMALL_LEAF_BYTES


class Shape(NamedTuple):
    """What cutting has to know of a leaf: its place in the state, its type, its bytes, and whether it is frozen."""

    place: int
    dtype: str
    nbytes: int
    is_frozen: bool


class Piece(NamedTuple):
    """The bytes ``start`` to ``stop`` of the leaf at ``place``."""

    place: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The pieces that make one object, one after another; ``itemsize`` in bytes per number."""

    pieces: tuple[Piece, ...]
    itemsize: int

    @property
    def nbytes(self) -> int:
        return sum(piece.stop - piece.start for piece in self.pieces)


def cut(leaves: Iterable[Shape]) -> Iterator[Cut]:
    """The objects that the leaves of one component make; a leaf without bytes is in none."""
    small: dict[tuple[bool, str], list[Shape]] = {}
    for leaf in leaves:
        if leaf.nbytes < SMALL_LEAF_BYTES:
            small.setdefault((leaf.is_frozen, leaf.dtype), []).append(leaf)
            continue
        for start in range(0, leaf.nbytes, OBJECT_BYTES):
            stop = min(start + OBJECT_BYTES, leaf.nbytes)
            yield Cut((Piece(leaf.place, start, stop),), ITEM_SIZES[leaf.dtype])
    for (_, dtype), group in small.items():
        for pieces in _filled(group):
            yield Cut(pieces, ITEM_SIZES[dtype])


def parts_by_place(cuts: Sequence[Cut], digests: Sequence[str]) -> dict[int, list[Part]]:
    """Leaf -> where its bytes are, in their order; ``digests`` are of the ``cuts``."""
    parts: dict[int, list[Part]] = {}
    for made, digest in zip(cuts, digests, strict=True):
        offset = 0
        for place, start, stop in made.pieces:
            parts.setdefault(place, []).append((digest, offset, stop - start))
            offset += stop - start
    return parts


def _filled(group: Sequence[Shape]) -> Iterator[tuple[Piece, ...]]:
    pieces: list[Piece] = []
    room = OBJECT_BYTES
    for leaf in group:
        if leaf.nbytes > room:
            yield tuple(pieces)
            pieces, room = [], OBJECT_BYTES
        if leaf.nbytes:
            pieces.append(Piece(leaf.place, 0, leaf.nbytes))
            room -= leaf.nbytes
    if pieces:
        yield tuple(pieces)
