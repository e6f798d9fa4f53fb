"""The gateway to files of torch: what ``torch.save``, safetensors and ``torch.distributed.checkpoint`` write.

Nothing is ever unpickled but by torch's own reader of weights (``weights_only``), which runs no code of the file.
"""

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from apps.checkpoints.comparing import leaf_paths
from apps.checkpoints.store import canonical, tensors, trees
from apps.checkpoints.store.errors import CorruptCheckpoint, UnsupportedState
from apps.checkpoints.store.manifests import COMPONENT

METADATA = "esper"
"""The member of a safetensors file's metadata that says how our states are put together."""
FORMAT = "esper-export/1"
WHOLE = "model"
"""The component that a file becomes which is not made of components."""
MAX_VALUES = 2_000_000
MAX_DEPTH = trees.MAX_DEPTH
MAX_EXPANSION = 8
"""Bytes of tensors to bytes of their file: more would be views that a few bytes pretend to be much by."""
ZIP, PICKLE = b"PK\x03\x04", b"\x80"

State = Mapping[str, Any]


# --- Written


def write_torch(path: Path, state: State) -> None:
    """One file of plain dictionaries, as ``torch.load(path, weights_only=True)`` reads it. Raises OSError."""
    try:
        torch.save(_plain(state, {}), path)
    except RuntimeError as error:  # its writer's word for a disk that is full
        raise OSError(str(error).split("\n")[0]) from error


def write_safetensors(path: Path, state: State, facts: Mapping[str, Any]) -> None:
    """Tensors by their place, such as "tolaria/model/head"; what is no tensor stands in the metadata.

    Raises:
        UnsupportedState: a tensor of a type that safetensors does not have. OSError.
    """
    named: dict[str, torch.Tensor] = {}
    components: dict[str, Any] = {}
    for component, tree in state.items():
        skeleton, leaves = trees.flatten(tree, tensors.kind_of, component)
        names: dict[int, str] = {}
        for place, number in leaf_paths(skeleton):
            if number not in names:
                names[number] = _free_name("/".join((component, *place)), named)
                named[names[number]] = tensors.tensor_of(tensors.leaf_of(leaves[number]))
        components[component] = {"tree": skeleton, "leaves": [names[number] for number in range(len(leaves))]}
    told = canonical.dumps({"format": FORMAT, **facts, "components": components}).decode()
    try:
        save_file(named, path, {"format": "pt", METADATA: told})
    except (SafetensorError, KeyError, ValueError) as error:
        if "I/O error" in str(error):
            raise OSError(str(error)) from error
        raise UnsupportedState("state", f"safetensors cannot hold it: {error}") from error


def write_dcp(folder: Path, state: State) -> None:
    """A directory of ``torch.distributed.checkpoint``. It is never read again: its metadata is a pickle."""
    from torch.distributed import checkpoint

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it should be: one process
        checkpoint.save(_plain(state, {}), checkpoint_id=folder, no_dist=True)


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}~{number}"
    return free


def _plain(value: Any, made: dict[int, Any]) -> Any:
    """Without numpy: arrays as tensors, scalars as numbers; what is shared stays shared."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return made.setdefault(id(value), torch.from_numpy(np.ascontiguousarray(value)))
    if isinstance(value, Mapping):
        return {key: _plain(item, made) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, made) for item in value)
    return value


# --- Read


class UnreadableFile(Exception):
    """It is no file that we take, in a sentence that says why."""


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The components in a safetensors or torch.save file, and what it says of epoch and step.

    Raises:
        UnreadableFile: it is neither, holds something else than tensors and plain values, or pretends to be larger than
            it is. OSError.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start == ZIP:
        return _read_torch(path)
    if start[:1] == PICKLE:
        raise UnreadableFile("it is a pickle, of torch before 1.6 or of another program: such files are never loaded")
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            named = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            told = (file.metadata() or {}).get(METADATA)
    except SafetensorError as error:
        raise UnreadableFile(f"neither safetensors nor torch.save wrote it ({error})") from error
    if told is None:
        return {WHOLE: named}, {}
    try:
        return _put_together(canonical.loads(told.encode(), part="metadata"), named)
    except (CorruptCheckpoint, KeyError, TypeError, ValueError) as error:
        raise UnreadableFile(f"its metadata does not say how its tensors belong together ({error})") from error


def _put_together(told: Any, named: Mapping[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    if told["format"] != FORMAT:
        raise ValueError(f"the format {told['format']!r:.40} is not {FORMAT}")
    components = {}
    for component, parts in told["components"].items():
        leaves = [named[name] for name in parts["leaves"]]
        components[component] = trees.unflatten(parts["tree"], leaves, _of_kind)
    return components, {name: told[name] for name in ("epoch", "step") if type(told.get(name)) is int}


def _of_kind(tensor: torch.Tensor, kind: trees.Kind) -> Any:
    if kind == "tensor":
        return tensor
    return tensor.numpy() if kind == "array" else tensor.numpy()[()]


def _read_torch(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    _check_zip(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted file makes of its reader
        raise UnreadableFile(f"torch does not read it as weights: {_first_sentence(error)}") from error
    _check_values(state, path.stat().st_size)
    is_components = isinstance(state, dict) and all(
        isinstance(name, str) and COMPONENT.fullmatch(name) and isinstance(part, dict) for name, part in state.items()
    )
    return (dict(state) if is_components and state else {WHOLE: state}), {}


def _first_sentence(error: Exception) -> str:
    return str(error).split("\n")[0].split(". ")[0][:300]


def _check_zip(path: Path) -> None:
    """torch stores its members as they are: a compressed one could become anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UnreadableFile(f"it is cut or damaged ({error})") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise UnreadableFile("its members are compressed, which torch.save does not do")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise UnreadableFile("its members claim to be larger than the file")


def _check_values(state: Any, size: int) -> None:
    """Refuse what would take much more memory or time than a file of ``size`` bytes should."""
    seen: dict[int, torch.Tensor] = {}
    for value in _values(state):
        if not isinstance(value, torch.Tensor):
            continue
        if value.layout is not torch.strided or value.device.type != "cpu":
            raise UnreadableFile("it holds a tensor that is sparse or has no data")
        if value.nbytes > value.untyped_storage().nbytes() or value.untyped_storage().nbytes() > size:
            raise UnreadableFile("it holds a tensor that is larger than its bytes")
        seen[id(value)] = value
    if sum(tensor.nbytes for tensor in seen.values()) > MAX_EXPANSION * size:
        raise UnreadableFile("its tensors are views of a few bytes, many times over")


def _values(state: Any) -> Iterator[Any]:
    """Every value, without recursion, and not more of them than any state has."""
    pending: list[tuple[Any, int]] = [(state, 0)]
    number = 0
    while pending:
        value, depth = pending.pop()
        number += 1
        if number > MAX_VALUES or depth > MAX_DEPTH:
            raise UnreadableFile(f"it has more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} levels")
        yield value
        if isinstance(value, Mapping):
            pending.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list | tuple):
            pending.extend((item, depth + 1) for item in value)
