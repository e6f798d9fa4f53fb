"""What two checkpoints have in common: by component, tensor by tensor, and in bytes that they share in the storage.

    comparison = compare(Side(older, source), Side(newer, source))
    comparison["tolaria"].changed  ->  3

Tensors are the same when their type, shape and bytes are. Manifests tell that of nearly all by the digests of their
objects; of small tensors that share an object with others, the bytes are read.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from apps.checkpoints.objects import read_object
from apps.checkpoints.store.manifests import Component, LeafRef, Manifest
from apps.checkpoints.store.restoring import Source


class Change(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    RESHAPED = "reshaped"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Side:
    """A manifest, and where its objects are."""

    manifest: Manifest
    source: Source


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor; ``before`` and ``after`` say what it is ("float32 64x32"), empty where it is not there."""

    name: str
    change: Change
    before: str
    after: str
    bytes: int
    """Of the newer one; of a removed one those that it had."""


@dataclass(frozen=True, slots=True)
class ComponentComparison:
    """``bytes`` and ``bytes_before`` are raw bytes of the newer and of the older one; ``shared`` lie in objects that
    both reference, and take room once."""

    name: str
    same: int
    bytes: int
    bytes_before: int
    shared: int
    differences: tuple[Difference, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def added(self) -> int:
        return self.counts.get(Change.ADDED, 0)

    @property
    def removed(self) -> int:
        return self.counts.get(Change.REMOVED, 0)

    @property
    def reshaped(self) -> int:
        return self.counts.get(Change.RESHAPED, 0)

    @property
    def changed(self) -> int:
        return self.counts.get(Change.CHANGED, 0)


EMPTY = Component({}, ())


def compare(older: Side, newer: Side) -> dict[str, ComponentComparison]:
    """Component -> what has changed from ``older`` to ``newer``.

    Raises:
        CorruptCheckpoint: bytes that have to be read are gone, or not those that were stored. Whatever a source raises.
    """
    reading = _Reading(older.source, newer.source)
    names = dict.fromkeys([*older.manifest.components, *newer.manifest.components])
    return {
        name: _component(
            name, older.manifest.components.get(name, EMPTY), newer.manifest.components.get(name, EMPTY), reading
        )
        for name in names
    }


def tensors_of(component: Component) -> dict[str, LeafRef]:
    """Every tensor by its place in the tree, such as "model/layers.0.weight"; a shared one stands at each of them."""
    return {"/".join(path): component.leaves[number] for path, number in leaf_paths(component.tree)}


def leaf_paths(skeleton: Any) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each place of a tree's skeleton at which there is a leaf, and the number of the leaf."""
    yield from _leaves(skeleton, ())


def _leaves(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield from _leaves(item, (*path, str(number)))
    elif isinstance(node, dict):
        if "$leaf" in node:
            yield path, node["$leaf"]
        elif "$tuple" in node:
            yield from _leaves(node["$tuple"], path)
        elif "$dict" in node:
            for key, item in node["$dict"]:
                yield from _leaves(item, (*path, str(key)))
        else:
            for name, item in node.items():
                yield from _leaves(item, (*path, name))


def _component(name: str, older: Component, newer: Component, reading: "_Reading") -> ComponentComparison:
    before, after = tensors_of(older), tensors_of(newer)
    differences = []
    for place in dict.fromkeys([*before, *after]):
        found = _difference(place, before.get(place), after.get(place), reading)
        if found is not None:
            differences.append(found)
    return ComponentComparison(
        name=name,
        same=len(before.keys() | after.keys()) - len(differences),
        bytes=newer.nbytes,
        bytes_before=older.nbytes,
        shared=_shared(older, newer),
        differences=tuple(differences),
        counts={change: sum(found.change == change for found in differences) for change in Change},
    )


def _difference(name: str, before: LeafRef | None, after: LeafRef | None, reading: "_Reading") -> Difference | None:
    if before is None or after is None:
        change = Change.ADDED if before is None else Change.REMOVED
    elif (before.dtype, before.shape) != (after.dtype, after.shape):
        change = Change.RESHAPED
    elif reading.is_same(before, after):
        return None
    else:
        change = Change.CHANGED
    present = after or before
    return Difference(name, change, _told(before), _told(after), present.nbytes if present else 0)


def _told(leaf: LeafRef | None) -> str:
    return f"{leaf.dtype} {'x'.join(map(str, leaf.shape)) or 'scalar'}" if leaf is not None else ""


def _shared(older: Component, newer: Component) -> int:
    known = {digest for leaf in older.leaves for digest, _, _ in leaf.parts}
    return sum(length for leaf in newer.leaves for digest, _, length in leaf.parts if digest in known)


class _Reading:
    """Compares leaves by their digests, and by their bytes where a digest is of other leaves as well."""

    def __init__(self, older: Source, newer: Source) -> None:
        self._sources = (older, newer)
        self._kept: tuple[dict[str, memoryview], dict[str, memoryview]] = ({}, {})

    def is_same(self, before: LeafRef, after: LeafRef) -> bool:
        if before.parts == after.parts:
            return True
        if len(before.parts) != 1 or len(after.parts) != 1:  # cut into objects of their own
            return False
        if self._is_alone(0, before) and self._is_alone(1, after):
            return False
        return self._bytes(0, before) == self._bytes(1, after)

    def _is_alone(self, side: int, leaf: LeafRef) -> bool:
        ((digest, _, length),) = leaf.parts
        return self._sources[side].place(digest).entry.raw_size == length

    def _bytes(self, side: int, leaf: LeafRef) -> memoryview:
        """The object that was read last is kept: neighbours lie in it."""
        ((digest, offset, length),) = leaf.parts
        kept = self._kept[side]
        if digest not in kept:
            kept.clear()
            kept[digest] = read_object(self._sources[side], digest)
        return kept[digest][offset : offset + length]
