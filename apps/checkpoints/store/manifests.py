"""A manifest: what one checkpoint is, and per component its tree and where the bytes of each leaf are.

The file is a line ``blake3 <64 hexadecimal digits>`` and the JSON that this is the digest of, in one spelling. Ids are
UUIDs and component names are short words: nothing of a manifest can name a path outside its folder.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from math import prod
from typing import Any
from uuid import UUID

from apps.checkpoints.store import canonical, trees
from apps.checkpoints.store.errors import CorruptCheckpoint, UnsupportedState
from apps.checkpoints.store.leaves import ITEM_SIZES, MAX_DIMENSIONS
from apps.checkpoints.store.packs import DIGEST, OBJECT_BYTES, digest_of

FORMAT = "esper-checkpoint/1"
MAX_BYTES = 256 * 1024 * 1024
COMPONENT = re.compile(r"[a-z_]{1,32}")
MAX_COUNT = 2**63 - 1
MAX_TEXT = 500

Part = tuple[str, int, int]
"""(digest, offset, length): bytes ``offset`` to ``offset + length`` of the raw object ``digest``."""

_PREFIX = b"blake3 "
_BODY_AT = len(_PREFIX) + 64 + 1
_FIELDS = (
    "format",
    "id",
    "run_id",
    "workspace_id",
    "parent_id",
    "epoch",
    "step",
    "fencing_token",
    "reason",
    "created_at",
    "metrics",
    "fingerprint",
    "environment",
    "labels",
    "components",
)


@dataclass(frozen=True, slots=True)
class LeafRef:
    """A tensor as its type, its shape, and the parts whose bytes one after another are its data (C order)."""

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def nbytes(self) -> int:
        return sum(length for _, _, length in self.parts)


@dataclass(frozen=True, slots=True)
class Component:
    """``tree`` is the skeleton that ``trees.flatten`` makes; its leaf ``i`` is ``leaves[i]``."""

    tree: trees.Json
    leaves: tuple[LeafRef, ...]

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in self.leaves)


@dataclass(frozen=True)
class Manifest:
    """One checkpoint. ``created_at`` is an ISO 8601 time, ``labels`` are texts that the caller finds it by again."""

    id: UUID
    run_id: UUID
    workspace_id: UUID
    parent_id: UUID | None
    epoch: int
    step: int
    fencing_token: int
    reason: str
    created_at: str
    components: Mapping[str, Component]
    metrics: Mapping[str, float] = field(default_factory=dict)
    fingerprint: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The file, read back once so that none is written that no reader takes. Raises UnsupportedState."""
        data = _PREFIX + self.digest.encode() + b"\n" + self._body
        try:
            parse(data)
        except CorruptCheckpoint as error:
            raise UnsupportedState("state", f"Its manifest could not be read again: {error}") from error
        return data

    @property
    def digest(self) -> str:
        """blake3 of the JSON, 64 hexadecimal digits."""
        return digest_of(self._body)

    def objects(self) -> dict[str, int]:
        """Digest of each referenced object -> the raw bytes that it has at least."""
        sizes: dict[str, int] = {}
        for component in self.components.values():
            for digest, offset, length in _parts(component.leaves):
                sizes[digest] = max(sizes.get(digest, 0), offset + length)
        return sizes

    def sizes(self) -> dict[str, dict[str, int]]:
        """Component -> its number of tensors and their raw bytes."""
        return {
            name: {"tensors": len(component.leaves), "bytes": component.nbytes}
            for name, component in self.components.items()
        }

    @cached_property
    def _body(self) -> bytes:
        body = canonical.dumps(_as_json(self))
        if len(body) > MAX_BYTES - _BODY_AT or canonical.marks(body) > canonical.MAX_MARKS:
            raise UnsupportedState("state", "Too many values for one checkpoint: keep long lists of numbers as arrays.")
        return body


def parse(data: bytes, expected_id: UUID | None = None) -> Manifest:
    """The manifest that ``to_bytes`` wrote; ``expected_id`` is the id that its file is named by.

    Raises:
        CorruptCheckpoint: a changed or cut file, the manifest of another checkpoint, or one that we would not write.
    """
    if len(data) > MAX_BYTES:
        raise _corrupt(f"{len(data):,} bytes; a manifest has at most {MAX_BYTES:,}.")
    body = data[_BODY_AT:]
    if data[: len(_PREFIX)] != _PREFIX or data[_BODY_AT - 1 : _BODY_AT] != b"\n" or not body:
        raise _corrupt("It does not begin as manifests do.")
    if digest_of(body).encode() != data[len(_PREFIX) : _BODY_AT - 1]:
        raise _corrupt("It has other bytes than were written.")
    document = canonical.loads(body, part="manifest")
    if not isinstance(document, dict) or document.get("format") != FORMAT or tuple(document) != _FIELDS:
        raise _corrupt(f"Not of the format {FORMAT}.")
    manifest = _Reader(document).manifest()
    if expected_id not in (None, manifest.id):
        raise _corrupt(f"The checkpoint {manifest.id} in the place of {expected_id}.")
    return manifest


def _as_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": str(manifest.id),
        "run_id": str(manifest.run_id),
        "workspace_id": str(manifest.workspace_id),
        "parent_id": None if manifest.parent_id is None else str(manifest.parent_id),
        "epoch": manifest.epoch,
        "step": manifest.step,
        "fencing_token": manifest.fencing_token,
        "reason": manifest.reason,
        "created_at": manifest.created_at,
        "metrics": _scalars(manifest.metrics, "metrics"),
        "fingerprint": manifest.fingerprint,
        "environment": _scalars(manifest.environment, "environment"),
        "labels": dict(manifest.labels),
        "components": {name: _component_json(component) for name, component in manifest.components.items()},
    }


def _scalars(values: Mapping[str, Any], path: str) -> trees.Json:
    return trees.flatten(dict(values), lambda value: None, path)[0]


def _component_json(component: Component) -> dict[str, Any]:
    leaves = [{"dtype": leaf.dtype, "shape": leaf.shape, "parts": leaf.parts} for leaf in component.leaves]
    return {"tree": component.tree, "leaves": leaves}


def _parts(leaves: Iterable[LeafRef]) -> Iterable[Part]:
    return (part for leaf in leaves for part in leaf.parts)


class _Reader:
    """Takes the fields of a parsed document one by one, each as what it should be or not at all."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def manifest(self) -> Manifest:
        parent = self.document["parent_id"]
        return Manifest(
            id=self.uuid("id"),
            run_id=self.uuid("run_id"),
            workspace_id=self.uuid("workspace_id"),
            parent_id=None if parent is None else self.uuid("parent_id"),
            epoch=self.count("epoch"),
            step=self.count("step"),
            fencing_token=self.count("fencing_token"),
            reason=self.text("reason"),
            created_at=self.time("created_at"),
            components=self.components(),
            metrics=self.metrics(),
            fingerprint=self.text("fingerprint"),
            environment=self.scalars("environment"),
            labels=self.labels(),
        )

    def uuid(self, name: str) -> UUID:
        value = self.document[name]
        try:
            found = UUID(value) if isinstance(value, str) and len(value) == 36 else None
        except ValueError:
            found = None
        if found is None or str(found) != value:
            raise _corrupt(f"{name} is no UUID.")
        return found

    def count(self, name: str) -> int:
        value = self.document[name]
        if type(value) is not int or not 0 <= value <= MAX_COUNT:
            raise _corrupt(f"{name} is no count.")
        return value

    def text(self, name: str) -> str:
        value = self.document[name]
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise _corrupt(f"{name} is no text of at most {MAX_TEXT} characters.")
        return value

    def time(self, name: str) -> str:
        value = self.text(name)
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise _corrupt(f"{name} is no ISO 8601 time.") from None
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self.document[name]
        if not isinstance(value, dict):
            raise _corrupt(f"{name} is no object.")
        return value

    def scalars(self, name: str) -> dict[str, Any]:
        value = trees.unflatten(self.mapping(name), ())
        if not isinstance(value, dict):
            raise _corrupt(f"{name} is no object.")
        return value

    def metrics(self) -> dict[str, float]:
        values = self.scalars("metrics")
        if not all(type(name) is str and type(value) in (float, int) for name, value in values.items()):
            raise _corrupt("metrics are not numbers by name.")
        return values

    def labels(self) -> dict[str, str]:
        values = self.mapping("labels")
        if not all(isinstance(value, str) for value in values.values()):
            raise _corrupt("labels are not texts by name.")
        return values

    def components(self) -> dict[str, Component]:
        return {name: _component(name, value) for name, value in self.mapping("components").items()}


def _component(name: str, value: Any) -> Component:
    if not COMPONENT.fullmatch(name):
        raise _corrupt(f"A component's name that is none: {name!r:.40}.")
    if not isinstance(value, dict) or list(value) != ["tree", "leaves"] or not isinstance(value["leaves"], list):
        raise _corrupt(f"The component {name} has no tree and leaves.")
    leaves = tuple(_leaf(name, leaf) for leaf in value["leaves"])
    trees.check(value["tree"], len(leaves))
    return Component(value["tree"], leaves)


def _leaf(component: str, value: Any) -> LeafRef:
    if not isinstance(value, dict) or list(value) != ["dtype", "shape", "parts"]:
        raise _corrupt(f"A leaf of {component} is not made as leaves are.")
    dtype, shape, parts = value["dtype"], value["shape"], value["parts"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise _corrupt(f"A leaf of {component} has a type that is not known: {dtype!r:.40}.")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not _counts(shape):
        raise _corrupt(f"A leaf of {component} has a shape that is none.")
    if not isinstance(parts, list):
        raise _corrupt(f"A leaf of {component} has no list of parts.")
    leaf = LeafRef(dtype, tuple(shape), tuple(_part(component, part) for part in parts))
    if prod(shape) * ITEM_SIZES[dtype] != leaf.nbytes:
        raise _corrupt(f"A leaf of {component} has {leaf.nbytes:,} bytes, which is not what its shape asks for.")
    return leaf


def _counts(values: Collection[Any]) -> bool:
    return all(type(value) is int and 0 <= value <= MAX_COUNT for value in values)


def _part(component: str, value: Any) -> Part:
    if not isinstance(value, list) or len(value) != 3 or not _counts(value[1:]):
        raise _corrupt(f"A part of a leaf of {component} is not made as parts are.")
    digest, offset, length = value
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise _corrupt(f"A part of a leaf of {component} has no digest.")
    if length == 0 or offset + length > OBJECT_BYTES:
        raise _corrupt(f"A part of a leaf of {component} lies outside of any object.")
    return digest, offset, length


def _corrupt(message: str) -> CorruptCheckpoint:
    return CorruptCheckpoint(message, part="manifest")
