"""The gateway to torch and numpy: their tensors, arrays and scalars as bytes, and back without a copy."""

from typing import Any

import numpy as np
import torch

from apps.checkpoints.store.errors import CorruptCheckpoint, UnsupportedState
from apps.checkpoints.store.leaves import ITEM_SIZES, Leaf
from apps.checkpoints.store.trees import Kind

_TORCH_TYPES = {name: getattr(torch, name) for name in ITEM_SIZES}
_NAMES = {dtype: name for name, dtype in _TORCH_TYPES.items()}


def kind_of(value: object) -> Kind | None:
    """What ``trees.flatten`` takes for a leaf."""
    if isinstance(value, torch.Tensor):
        return "tensor"
    if isinstance(value, np.ndarray):
        return "array"
    return "scalar" if isinstance(value, np.generic) else None


def dtype_of(tensor: torch.Tensor, path: str = "state") -> str:
    """The name of a tensor's type in ``ITEM_SIZES``.

    Raises:
        UnsupportedState: sparse, quantised, nested or without data: its bytes alone would not give it back.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        raise UnsupportedState(path, "A sparse, quantised or nested tensor: keep its dense parts (to_dense, int_repr).")
    if tensor.device.type == "meta":
        raise UnsupportedState(path, "A tensor on the meta device has no data.")
    if tensor.dtype not in _NAMES:
        raise UnsupportedState(path, f"A tensor of the type {tensor.dtype} cannot be kept.")
    return _NAMES[tensor.dtype]


def leaf_of(value: Any, path: str = "state") -> Leaf:
    """A tensor, array or numpy scalar as its bytes: a view of a contiguous one on the CPU, else of a copy.

    Raises:
        UnsupportedState: it has no such bytes.
    """
    if not isinstance(value, torch.Tensor):
        return _leaf_of_array(np.asarray(value), path)
    dtype = dtype_of(value, path)
    dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return Leaf(dtype, tuple(value.shape), dense.reshape(-1).view(torch.uint8).numpy().data)


def buffer(size: int) -> tuple[torch.Tensor, memoryview]:
    """``size`` bytes of memory that nothing has touched yet, as a tensor and as what may be written to."""
    memory = torch.empty(size, dtype=torch.uint8)
    return memory, memory.numpy().data


def value_of(memory: torch.Tensor, dtype: str, shape: tuple[int, ...], kind: Kind) -> Any:
    """What was flattened, over the bytes in ``memory`` (uint8, of the right size); a scalar is a copy.

    Raises:
        CorruptCheckpoint: an array of a type that only torch has.
    """
    if kind == "tensor":
        return memory.view(_TORCH_TYPES[dtype]).reshape(shape)
    try:
        array = memory.numpy().view(np.dtype(dtype)).reshape(shape)
    except TypeError:
        raise CorruptCheckpoint(f"An array of the type {dtype}, which numpy does not have.", part="tree") from None
    return array[()] if kind == "scalar" else array


def tensor_of(leaf: Leaf) -> torch.Tensor:
    """A leaf as a tensor, over the same memory where that may be written to."""
    data = leaf.data if not memoryview(leaf.data).readonly else bytearray(leaf.data)
    memory = torch.frombuffer(data, dtype=torch.uint8) if leaf.nbytes else torch.empty(0, dtype=torch.uint8)
    tensor: torch.Tensor = value_of(memory, leaf.dtype, leaf.shape, "tensor")
    return tensor


def _leaf_of_array(array: "np.ndarray[Any, Any]", path: str) -> Leaf:
    if array.dtype.name not in ITEM_SIZES:
        raise UnsupportedState(path, f"An array of the type {array.dtype} cannot be kept.")
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return Leaf(array.dtype.name, array.shape, native.reshape(-1).view(np.uint8).data)
