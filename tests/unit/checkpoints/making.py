"""Checkpoints for the tests of their formats: written straight into a folder, without a saver."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import torch

from apps.checkpoints.store import canonical, encodings, tensors, trees
from apps.checkpoints.store.encodings import Encoding
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.index import FolderIndex
from apps.checkpoints.store.leaves import ITEM_SIZES, Leaf
from apps.checkpoints.store.manifests import Component, LeafRef, Manifest
from apps.checkpoints.store.packs import OBJECT_BYTES, SMALL_LEAF_BYTES, PackIndex, PackWriter, digest_of
from apps.checkpoints.store.restoring import FolderSource

PACK_ID = UUID(int=0xA1)
CHECKPOINT_ID = UUID(int=0xC1)


def pack_of(*objects: tuple[bytes, Encoding], itemsize: int = 4, pack_id: UUID = PACK_ID) -> tuple[bytes, PackIndex]:
    """A pack with these raw bytes, each encoded in its way."""
    file = io.BytesIO()
    writer = PackWriter(file, pack_id)
    for raw, encoding in objects:
        stored = encodings.encode(encoding, raw, itemsize)
        writer.add(digest_of(raw), stored, raw_size=len(raw), encoding=encoding, itemsize=itemsize)
    index = writer.close()
    return file.getvalue(), index


def manifest_of(components: Mapping[str, Component], **fields: Any) -> Manifest:
    """A manifest that differs from any other in these fields only."""
    return Manifest(
        **{
            "id": CHECKPOINT_ID,
            "run_id": UUID(int=0xD1),
            "workspace_id": UUID(int=0xE1),
            "parent_id": None,
            "epoch": 3,
            "step": 1200,
            "fencing_token": 7,
            "reason": "interval",
            "created_at": "2026-11-27T02:30:00+00:00",
            "components": components,
            **fields,
        }
    )


def signed(document: Any) -> bytes:
    """The file of a manifest that says this, under a digest that is right."""
    body = document if isinstance(document, bytes) else canonical.dumps(document)
    return b"blake3 " + digest_of(body).encode() + b"\n" + body


def state() -> dict[str, Any]:
    """Two components with large, small, shared, empty and odd leaves, of which some compress and some do not."""
    generator = torch.Generator().manual_seed(11)
    large = torch.randn(3 * 1024 * 1024, generator=generator)  # 12 MiB: two objects
    bias = torch.randn(64, generator=generator, dtype=torch.float64)
    model = {"weight": large, "bias": bias, "tied": bias, "none": torch.empty(0, 4), "count": torch.tensor(5)}
    noise = torch.randint(0, 256, (100_000,), generator=generator, dtype=torch.uint8)
    return {
        "tolaria": {"model": model, "moments": {0: (large[:70_000].bfloat16(), large[:40_000] > 0)}, "step": 1200},
        "tamiyo": {"noise": noise, "history": [0.5, float("inf"), None], "name": "policy"},
    }


@dataclass
class Kept:
    """A checkpoint in a folder."""

    folder: Folder
    manifest: Manifest

    @property
    def source(self) -> FolderSource:
        return FolderSource(self.folder, FolderIndex(self.folder).place)

    @property
    def pack(self) -> Path:
        return self.folder.pack_path(PACK_ID)


def keep(root: Path, components: Mapping[str, Any]) -> Kept:
    """Write a state as the store keeps it: objects of 8 MiB at most, small leaves together in one."""
    folder = Folder(root)
    with folder.write_pack(PACK_ID) as file:
        writer = PackWriter(file, PACK_ID)
        written = {name: _component(writer, name, tree) for name, tree in components.items()}
        writer.close()
    manifest = manifest_of(written)
    folder.write_manifest(manifest.id, manifest.to_bytes())
    return Kept(folder, manifest)


def _component(writer: PackWriter, name: str, tree: Any) -> Component:
    skeleton, values = trees.flatten(tree, tensors.kind_of, name)
    leaves = [tensors.leaf_of(value) for value in values]
    group = b"".join(leaf.data for leaf in leaves if leaf.nbytes < SMALL_LEAF_BYTES)
    if group:
        _add(writer, group, 1)
    refs, offset = [], 0
    for leaf in leaves:
        if leaf.nbytes < SMALL_LEAF_BYTES:
            parts = [(digest_of(group), offset, leaf.nbytes)] if leaf.nbytes else []
            offset += leaf.nbytes
        else:
            parts = [_object(writer, leaf, start) for start in range(0, leaf.nbytes, OBJECT_BYTES)]
        refs.append(LeafRef(leaf.dtype, leaf.shape, tuple(parts)))
    return Component(skeleton, tuple(refs))


def _object(writer: PackWriter, leaf: Leaf, start: int) -> tuple[str, int, int]:
    raw = memoryview(leaf.data)[start : start + OBJECT_BYTES]
    return _add(writer, raw, ITEM_SIZES[leaf.dtype]), 0, len(raw)


def _add(writer: PackWriter, raw: bytes | memoryview, itemsize: int) -> str:
    encoding = encodings.choose(raw, itemsize)
    stored = encodings.encode(encoding, raw, itemsize)
    return writer.add(digest_of(raw), stored, raw_size=len(raw), encoding=encoding, itemsize=itemsize).digest


def same(one: Any, other: Any) -> bool:
    """Whether two trees have the same shape and their leaves the same bits."""
    skeletons, leaves = zip(*(trees.flatten(tree, tensors.kind_of) for tree in (one, other)), strict=True)
    return skeletons[0] == skeletons[1] and all(
        tensors.leaf_of(a) == tensors.leaf_of(b) for a, b in zip(*leaves, strict=True)
    )
