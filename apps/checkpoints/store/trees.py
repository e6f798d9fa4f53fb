"""A nested state as plain JSON: scalars stay, tensors and arrays become numbered leaves, and nothing is ever guessed.

What JSON cannot say is tagged: ``{"$leaf": 3}`` (with ``"kind": "array"`` or ``"scalar"`` for numpy's),
``{"$tuple": [...]}``, ``{"$dict": [[key, value], ...]}`` (keys that are no text, or that begin with "$"),
``{"$bytes": base64}``, ``{"$float": "nan"}``, ``{"$int": "0x..."}`` (beyond 64 bits). The order of keys is kept, and a
tensor that occurs twice is one leaf, so that what was shared is shared again.
"""

import binascii
import math
import re
from base64 import b64decode, b64encode
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

from apps.checkpoints.store.errors import CorruptCheckpoint, UnsupportedState

Kind: TypeAlias = Literal["tensor", "array", "scalar"]
KINDS: tuple[Kind, ...] = ("tensor", "array", "scalar")
Json: TypeAlias = Any
"""What ``json.loads`` returns; a recursive type would say no more to a reader."""

MAX_DEPTH = 200
"""Levels of nesting; far beyond any state, and far below what exhausts Python's stack."""

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_HEXADECIMAL = re.compile(r"-?0x[0-9a-f]+")
_DICTS = (dict, OrderedDict, defaultdict)


def flatten(tree: object, kind_of: Callable[[object], Kind | None], path: str = "state") -> tuple[Json, list[Any]]:
    """The skeleton of ``tree`` as JSON, and its leaves in the order of their first occurrence.

    ``kind_of`` tells what is a leaf. Dictionaries of any sort come back as ``dict``, and tuples as ``tuple``.

    Raises:
        UnsupportedState: something that is neither a leaf nor a scalar nor a container; names its place.
    """
    return _Flattening(kind_of).walk(tree, path, 0)


def unflatten(skeleton: Json, leaves: Sequence[Any], make: Callable[[Any, Kind], Any] = lambda leaf, kind: leaf) -> Any:
    """The tree that ``flatten`` was given; ``make`` turns a leaf into what its place asks for, once per leaf.

    Raises:
        CorruptCheckpoint: no skeleton of ours, or one that asks for leaves that are not there.
    """
    return _Unflattening(leaves, make).walk(skeleton, 0)


def check(skeleton: Json, leaf_count: int) -> None:
    """Refuse a skeleton that ``unflatten`` would refuse with that many leaves. Raises CorruptCheckpoint."""
    unflatten(skeleton, range(leaf_count))


class _Flattening:
    def __init__(self, kind_of: Callable[[object], Kind | None]) -> None:
        self.kind_of = kind_of
        self.leaves: list[Any] = []
        self.places: dict[int, int] = {}  # id of a leaf -> its number; `leaves` keeps it alive

    def walk(self, root: object, path: str, depth: int) -> tuple[Json, list[Any]]:
        return self.node(root, path, depth), self.leaves

    def node(self, value: Any, path: str, depth: int) -> Json:
        if depth > MAX_DEPTH:
            raise UnsupportedState(path[:200], f"Nested more than {MAX_DEPTH} levels deep, or a container in itself.")
        kind = self.kind_of(value)
        if kind is not None:
            return self.leaf(value, kind)
        if type(value) in _DICTS:
            return self.dictionary(value, path, depth)
        if type(value) is list:
            return self.items(value, path, depth)
        if isinstance(value, tuple) and not hasattr(value, "_fields"):
            return {"$tuple": self.items(value, path, depth)}
        return _scalar(value, path)

    def leaf(self, value: object, kind: Kind) -> Json:
        place = self.places.setdefault(id(value), len(self.leaves))
        if place == len(self.leaves):
            self.leaves.append(value)
        return {"$leaf": place} if kind == "tensor" else {"$leaf": place, "kind": kind}

    def items(self, values: Sequence[Any], path: str, depth: int) -> list[Json]:
        nodes = []
        for number, value in enumerate(values):
            nodes.append(self.node(value, f"{path}/{number}", depth + 1))
        return nodes

    def dictionary(self, values: dict[Any, Any], path: str, depth: int) -> Json:
        plain = all(type(key) is str and not key.startswith("$") for key in values)
        nodes = []
        for key, value in values.items():
            if type(key) not in (str, int, bool, type(None), float, tuple):
                raise UnsupportedState(
                    f"{path}/{key!r:.80}", f"A key of the type {type(key).__name__}: use text or int."
                )
            place = f"{path}/{key}"
            name = key if plain else self.node(key, place, depth + 1)
            nodes.append((name, self.node(value, place, depth + 1)))
        return dict(nodes) if plain else {"$dict": [list(pair) for pair in nodes]}


def _scalar(value: Any, path: str) -> Json:
    if value is None or type(value) in (str, bool):
        return value
    if type(value) is int:
        return value if value.bit_length() < 64 else {"$int": hex(value)}
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if type(value) in (bytes, bytearray):
        return {"$bytes": b64encode(value).decode()}
    raise UnsupportedState(
        path,
        f"An object of the type {type(value).__module__}.{type(value).__qualname__} cannot be kept: put its state "
        "there as dictionaries, lists, tensors, numbers, text, bytes or None.",
    )


class _Unflattening:
    def __init__(self, leaves: Sequence[Any], make: Callable[[Any, Kind], Any]) -> None:
        self.leaves = leaves
        self.make = make
        self.made: dict[tuple[int, Kind], Any] = {}

    def walk(self, value: Json, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _corrupt(f"Nested more than {MAX_DEPTH} levels deep.")
        if isinstance(value, list):
            return self.items(value, depth)
        if not isinstance(value, dict):
            return value
        tags = [key for key in value if key.startswith("$")]
        if tags:
            return self.tagged(tags[0], value, depth)
        tree = {}
        for key, item in value.items():
            tree[key] = self.walk(item, depth + 1)
        return tree

    def items(self, values: list[Json], depth: int) -> list[Any]:
        items = []
        for value in values:
            items.append(self.walk(value, depth + 1))
        return items

    def tagged(self, tag: str, node: dict[str, Json], depth: int) -> Any:
        value = node[tag]
        if tag == "$leaf":
            return self.leaf(value, node)
        if len(node) != 1:
            raise _corrupt(f"Something stands beside {tag:.20}.")
        if tag == "$tuple" and isinstance(value, list):
            return tuple(self.items(value, depth))
        if tag == "$dict" and isinstance(value, list):
            return self.dictionary(value, depth)
        if tag == "$bytes" and isinstance(value, str):
            return _bytes(value)
        if tag == "$float" and isinstance(value, str) and value in _FLOATS:
            return _FLOATS[value]
        if tag == "$int" and isinstance(value, str) and _HEXADECIMAL.fullmatch(value):
            return int(value, 16)
        raise _corrupt(f"A tag that means nothing: {tag:.20}.")

    def leaf(self, place: Json, node: dict[str, Json]) -> Any:
        kind = node.get("kind", "tensor")
        if set(node) - {"$leaf", "kind"} or kind not in KINDS:
            raise _corrupt("A leaf of an unknown kind.")
        if type(place) is not int or not 0 <= place < len(self.leaves):
            raise _corrupt(f"A leaf {place!r:.20} that is not among the {len(self.leaves)} there are.")
        if (place, kind) not in self.made:
            self.made[place, kind] = self.make(self.leaves[place], kind)
        return self.made[place, kind]

    def dictionary(self, pairs: list[Json], depth: int) -> dict[Any, Any]:
        tree = {}
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                raise _corrupt("An entry of a dictionary that is no pair.")
            key = self.walk(pair[0], depth + 1)
            try:
                known = key in tree
            except TypeError:
                raise _corrupt("A key of a dictionary that is a container.") from None
            if known:
                raise _corrupt(f"A key that occurs twice: {key!r:.40}.")
            tree[key] = self.walk(pair[1], depth + 1)
        return tree


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _corrupt("Bytes that are not in base64.") from None


def _corrupt(message: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(message, part="tree")
