"""The Merkle tree as it is stored: leaves, and the roots of its full tiles of 256. Everything else is computed.

A tile is 256 siblings (C2SP tlog-tiles). Group 0 are the leaves; a node of group g is the root over 256 nodes of group
g - 1, that is, over 256^g leaves. Full tiles never change, so their rows are append-only. A proof reads at most two
tiles of each group: six short queries for sixteen million events. Pure: ``read`` brings the tiles.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from apps.audit.verifier import EMPTY_ROOT, node_hash

TILE_BITS = 8
TILE = 1 << TILE_BITS

Read = Callable[[int, int], Sequence[bytes]]
"""(group, tile) -> the digests of that tile that exist, from its first on."""


@dataclass(frozen=True, slots=True)
class Node:
    """The root of a full tile: the node ``index`` of ``group``."""

    group: int
    index: int
    digest: bytes


def perfect_root(digests: Sequence[bytes]) -> bytes:
    """The root over a power of two of digests."""
    level = list(digests)
    while len(level) > 1:
        level = [node_hash(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def new_nodes(first: int, digests: Sequence[bytes], read: Read, group: int = 0) -> list[Node]:
    """The tiles that become full when ``digests`` are appended behind ``first`` digests of ``group``."""
    found: list[Node] = []
    while digests:
        tile, within = divmod(first, TILE)
        line = [*(read(group, tile)[:within] if within else ()), *digests]
        full = len(line) // TILE
        roots = [perfect_root(line[start * TILE : (start + 1) * TILE]) for start in range(full)]
        found += [Node(group + 1, tile + number, root) for number, root in enumerate(roots)]
        first, digests, group = tile, roots, group + 1
    return found


@dataclass(slots=True)
class Tree:
    """Roots and proofs over the first ``size`` leaves. Each tile is read once."""

    read: Read
    _tiles: dict[tuple[int, int], Sequence[bytes]] = field(default_factory=dict)

    def root(self, size: int) -> bytes:
        """The root of the tree of the first ``size`` leaves."""
        return self._range(0, size) if size else EMPTY_ROOT

    def subtrees(self, size: int) -> list[bytes]:
        """The roots of the perfect subtrees of the first ``size`` leaves, largest first: where a frontier goes on."""
        return [self._perfect(level, index) for level, index in _subtrees(0, size)]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """RFC 9162, section 2.1.3.1: the path of leaf ``index`` in the tree of ``size`` leaves.

        Raises:
            ValueError: there is no such leaf in that tree.
        """
        if not 0 <= index < size:
            raise ValueError(f"leaf {index} is not in a tree of {size} leaves")
        return [self._range(start, end) for start, end in inclusion_ranges(index, size)]

    def consistency(self, first: int, second: int) -> list[bytes]:
        """RFC 9162, section 2.1.4.1: the path from the tree of ``first`` leaves to that of ``second``.

        Raises:
            ValueError: the first tree is not smaller than, or as large as, the second.
        """
        if not 0 <= first <= second:
            raise ValueError(f"a tree of {first} leaves is not the beginning of one of {second}")
        return [self._range(start, end) for start, end in consistency_ranges(first, second)]

    def _range(self, start: int, end: int) -> bytes:
        """The root over leaves ``start`` to ``end``: perfect subtrees from the largest, folded from the right."""
        *left, digest = [self._perfect(level, index) for level, index in _subtrees(start, end)]
        for subtree in reversed(left):
            digest = node_hash(subtree, digest)
        return digest

    def _perfect(self, level: int, index: int) -> bytes:
        """The root over leaves ``index * 2^level`` to ``(index + 1) * 2^level``."""
        group, height = divmod(level, TILE_BITS)
        tile, within = divmod(index << height, TILE)
        if (group, tile) not in self._tiles:
            self._tiles[group, tile] = self.read(group, tile)
        digests = self._tiles[group, tile][within : within + (1 << height)]
        if len(digests) != 1 << height:
            raise LookupError(f"the tree lacks digests in tile {tile} of group {group}")
        return perfect_root(digests)


def _subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """(level, index) of the perfect subtrees that cover the leaves, largest first; ``start`` is aligned (RFC 9162)."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield level, start >> level
        start += 1 << level


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The ranges of leaves whose roots make the inclusion path, from the leaf up."""
    ranges, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(first: int, second: int) -> list[tuple[int, int]]:
    """The ranges of leaves whose roots make the consistency path, in its order."""
    if first in (0, second):
        return []
    ranges, start, end, whole = [], 0, second, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, whole = middle, False
    return ([] if whole else [(start, end)]) + ranges[::-1]
