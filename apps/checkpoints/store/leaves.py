"""A tensor without torch: what its numbers are, how they are arranged, and their bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

ITEM_SIZES: Mapping[str, int] = MappingProxyType(
    {
        "bool": 1,
        "uint8": 1,
        "int8": 1,
        "uint16": 2,
        "int16": 2,
        "uint32": 4,
        "int32": 4,
        "uint64": 8,
        "int64": 8,
        "float8_e4m3fn": 1,
        "float8_e4m3fnuz": 1,
        "float8_e5m2": 1,
        "float8_e5m2fnuz": 1,
        "float16": 2,
        "bfloat16": 2,
        "float32": 4,
        "float64": 8,
        "complex32": 4,
        "complex64": 8,
        "complex128": 16,
    }
)
"""Bytes per item, by torch's name of the type (numpy has the same names, and fewer types)."""

MAX_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class Leaf:
    """``data``: the items in C order, little endian, ``prod(shape) * ITEM_SIZES[dtype]`` bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: Buffer

    @property
    def nbytes(self) -> int:
        """Bytes that ``dtype`` and ``shape`` ask for."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]
