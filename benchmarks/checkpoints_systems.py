"""Ways to keep a training state, each as its documentation has it: ours, and five that people use.

All that claim to be durable are so in the same way when ``finish`` returns: file synchronised, named, folder
synchronised. ``restore`` returns when the caller has the tensors; safetensors maps the file, and reads it later.
"""

import gzip
import io
import json
import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Protocol, cast

import safetensors
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from blake3 import blake3
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from apps.checkpoints import adapter
from apps.checkpoints.store import tensors, trees
from apps.core.files import synchronise

GZIP_LEVEL = 6
"""gzip's own default."""

State = dict[str, Any]


class System(Protocol):
    """Keeps states under keys in a folder."""

    def begin(self, state: State, key: str) -> Any:
        """Returns when training may go on."""

    def finish(self, handle: Any) -> object:
        """Returns when it is durable."""

    def restore(self, key: str) -> State:
        """The state, its tensors on the CPU."""

    def size(self) -> int:
        """Bytes on the disk."""

    def close(self) -> None: ...


class _Files:
    """One file or folder per key; ``begin`` does everything."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def finish(self, handle: Any) -> object:
        return handle

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def close(self) -> None:
        pass

    def _named(self, key: str, write: Callable[[Path], None]) -> None:
        """Have ``write`` make a file that is durable before it has its name."""
        partial = self.root / f"{key}.partial"
        write(partial)
        synchronise(partial)
        partial.rename(self.root / key)
        synchronise(self.root)


class TorchSave(_Files):
    def begin(self, state: State, key: str) -> None:
        self._named(key, lambda path: torch.save(state, path))

    def restore(self, key: str) -> State:
        found: State = torch.load(self.root / key, weights_only=True)
        return found


class TorchSaveGzip(_Files):
    def begin(self, state: State, key: str) -> None:
        def write(path: Path) -> None:
            with gzip.open(path, "wb", compresslevel=GZIP_LEVEL) as file:
                torch.save(state, cast("IO[bytes]", file))

        self._named(key, write)

    def restore(self, key: str) -> State:
        with gzip.open(self.root / key, "rb") as file:
            data = file.read()  # a file that is read backwards, as torch reads, would be decompressed again and again
        found: State = torch.load(io.BytesIO(data), weights_only=True)
        return found


class Safetensors(_Files):
    """Scalars and the tree stand in the file's metadata, which takes text only."""

    def begin(self, state: State, key: str) -> None:
        tree, leaves = trees.flatten(state, tensors.kind_of)
        flat = {str(place): leaf.contiguous() for place, leaf in enumerate(leaves)}
        metadata = {"tree": json.dumps(tree)}
        self._named(key, lambda path: safetensors.torch.save_file(flat, path, metadata))

    def restore(self, key: str) -> State:
        path = self.root / key
        flat = safetensors.torch.load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            tree = json.loads(file.metadata()["tree"])
        found: State = trees.unflatten(tree, [flat[str(place)] for place in range(len(flat))])
        return found


class DistributedCheckpoint(_Files):
    """torch.distributed.checkpoint without other processes; it restores into tensors that are there already."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.template: State = {}

    def begin(self, state: State, key: str) -> None:
        self.template = self.template or _empty_like(state)
        dcp.save(state, storage_writer=self._writer(key), no_dist=True)
        self._name(key)

    def restore(self, key: str) -> State:
        dcp.load(self.template, checkpoint_id=self.root / key, no_dist=True)
        return self.template

    def _writer(self, key: str) -> dcp.FileSystemWriter:
        return dcp.FileSystemWriter(self.root / f"{key}.partial", thread_count=2)  # it synchronises its files

    def _name(self, key: str) -> None:
        partial = self.root / f"{key}.partial"
        synchronise(partial)
        os.rename(partial, self.root / key)
        synchronise(self.root)


class DistributedCheckpointAsync(DistributedCheckpoint):
    """``async_save`` by a thread, with a stager that is kept, so that it uses its memory again."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stager = DefaultStager(StagingOptions(*(False,) * 4))  # the rest needs CUDA

    def begin(self, state: State, key: str) -> Any:
        self.template = self.template or _empty_like(state)
        saving = dcp.async_save(state, storage_writer=self._writer(key), async_stager=self.stager, no_dist=True)
        return key, saving

    def finish(self, handle: Any) -> object:
        key, saving = handle
        future: Future[Any] = saving if isinstance(saving, Future) else saving.upload_completion
        future.result()
        self._name(key)
        return None


def _empty_like(state: State) -> State:
    tree, leaves = trees.flatten(state, tensors.kind_of)
    found: State = trees.unflatten(
        tree, [torch.zeros_like(leaf, memory_format=torch.contiguous_format) for leaf in leaves]
    )
    return found


SYSTEMS: Mapping[str, Callable[[Path], System]] = {
    "ours": adapter.System,
    "torch.save": TorchSave,
    "torch.save+gzip": TorchSaveGzip,
    "safetensors": Safetensors,
    "dcp": DistributedCheckpoint,
    "dcp async": DistributedCheckpointAsync,
}


def quiet() -> None:
    """DCP warns at every call that there is one process only."""
    warnings.filterwarnings("ignore", module=r"torch\.distributed")
    warnings.filterwarnings("ignore", message=".*single process.*")


def digest(state: Any) -> str:
    """blake3, in hex, of a state: its tree, and the bytes of its tensors."""
    tree, leaves = trees.flatten(state, tensors.kind_of)
    found = blake3(json.dumps(tree).encode())
    for leaf in leaves:
        found.update(tensors.leaf_of(leaf).data)
    return found.hexdigest()
