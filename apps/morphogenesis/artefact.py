"""The kernel artefact's container, read without torch: one safetensors file whose metadata holds the bound spec.

Layout (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, the header as JSON, the data.
Every length is checked before anything is decoded or allocated from it. Pure Python: the web process may read this.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from apps.blueprints.spec import Graph, SpecError, TensorSpec, canonical_json, parse

MAX_HEADER_BYTES = 1 << 20
MAX_ARTEFACT_BYTES = 64 << 20
SPEC_KEY = "esper_spec"
VARIANT_KEY = "esper_variant"
ITEM_BYTES: Mapping[str, int] = {"F32": 4, "I64": 8, "BF16": 2, "F16": 2}
DTYPES: Mapping[str, str] = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""torch's name -> safetensors' name: what a variant may be in. A kernel is float32."""
MEMORY_FORMATS = ("contiguous", "channels_last")


class KernelFormatError(ValueError):
    """Bytes that are not a kernel: a broken container, a wrong spec, or tensors that the spec does not call for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A checked safetensors header: tensors by name, and the metadata."""

    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, str]


def read_container(data: bytes) -> Container:
    """Check the bounds, the header and that its tensors tile the data exactly.

    Raises:
        KernelFormatError: with the reason.
    """
    if len(data) > MAX_ARTEFACT_BYTES:
        raise KernelFormatError(f"{len(data):,} bytes are over the limit of {MAX_ARTEFACT_BYTES:,}")
    if len(data) < 8:
        raise KernelFormatError(f"{len(data)} bytes are too few for a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise KernelFormatError(f"the header claims {length:,} bytes, over the limit of {MAX_HEADER_BYTES:,}")
    if 8 + length > len(data):
        raise KernelFormatError(f"the header claims {length:,} bytes, but only {len(data) - 8:,} follow")
    header = _decode(data[8 : 8 + length])
    metadata = _metadata(header.pop("__metadata__", {}))
    return Container(tensors=_tensors(header, len(data) - 8 - length), metadata=metadata)


def read_spec(container: Container) -> dict[str, Any]:
    """The bound spec in the metadata, which must be in its canonical spelling. Raises KernelFormatError."""
    text = container.metadata.get(SPEC_KEY)
    if text is None:
        raise KernelFormatError(f"the metadata lack {SPEC_KEY!r}: this is not a kernel")
    spec = _decode(text.encode("utf-8", "surrogatepass"))
    try:
        canonical = canonical_json(spec)
    except SpecError as error:
        raise KernelFormatError(f"the kernel's spec is invalid at {error.pointer or '/'}: {error}") from error
    if canonical != text.encode("utf-8", "surrogatepass"):
        raise KernelFormatError("the kernel's spec is not in canonical JSON")
    if spec.get("symbols"):
        raise KernelFormatError("the kernel's spec is not bound: it still has symbols")
    return spec


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantHeader:
    """What a variant says of itself: its kernel's bound spec, and how it is to be computed."""

    spec: Mapping[str, Any]
    memory_format: str
    dtype: str


def check_tensors(container: Container, graph: Graph, *, dtype: str = "float32") -> None:
    """Every tensor that ``graph`` calls for is there, as it must be, and no other. Raises KernelFormatError.

    ``dtype`` is that of the tensors which the graph has in float32.
    """
    wanted = {
        name: replace(tensor, dtype=DTYPES[dtype]) if tensor.dtype == "F32" else tensor
        for name, tensor in graph.tensors.items()
    }
    for name in wanted.keys() - container.tensors.keys():
        raise KernelFormatError(f"tensor {name!r} is missing")
    for name, found in container.tensors.items():
        if name not in wanted:
            raise KernelFormatError(f"tensor {name[:80]!r} is not part of the blueprint")
        tensor = wanted[name]
        if (found.dtype, found.shape) != (tensor.dtype, tensor.shape):
            raise KernelFormatError(
                f"tensor {name!r} must be {tensor.dtype} {list(tensor.shape)}, not {found.dtype} {list(found.shape)}"
            )


def read_kernel(data: bytes) -> tuple[dict[str, Any], Graph]:
    """The bound spec and graph of an artefact, its tensors checked by their headers (not their values).

    Raises:
        KernelFormatError: with the reason.
    """
    container = read_container(data)
    spec = read_spec(container)
    graph = parse(spec)
    check_tensors(container, graph)
    return spec, graph


def variants_of(graph: Graph) -> list[tuple[str, str]]:
    """(memory format, dtype) of each variant worth making. The kernel itself, contiguous float32, is none of them."""
    layouts = MEMORY_FORMATS if graph.rank == 4 else MEMORY_FORMATS[:1]
    return [(layout, dtype) for layout in layouts for dtype in DTYPES if (layout, dtype) != ("contiguous", "float32")]


def variant_metadata(header: VariantHeader) -> dict[str, str]:
    """The metadata of a variant's file: one key only, since safetensors writes several in no fixed order.

    It has no SPEC_KEY, so that a variant is never taken for a kernel.
    """
    content = {"dtype": header.dtype, "memory_format": header.memory_format, "spec": header.spec}
    return {VARIANT_KEY: json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)}


def read_variant(data: bytes) -> tuple[VariantHeader, Graph]:
    """A variant's header and graph, its tensors checked by their headers.

    Raises:
        KernelFormatError: with the reason.
    """
    container = read_container(data)
    text = container.metadata.get(VARIANT_KEY)
    if text is None:
        raise KernelFormatError(f"the metadata lack {VARIANT_KEY!r}: this is not a variant")
    content = _decode(text.encode("utf-8", "surrogatepass"))
    header = VariantHeader(
        spec=content.get("spec", {}), memory_format=content.get("memory_format", ""), dtype=content.get("dtype", "")
    )
    if header.memory_format not in MEMORY_FORMATS or header.dtype not in DTYPES:
        raise KernelFormatError(f"a variant in {header.dtype} {header.memory_format} is unknown")
    try:
        graph = parse(header.spec)
    except SpecError as error:
        raise KernelFormatError(f"the variant's spec is invalid at {error.pointer or '/'}: {error}") from error
    if variant_metadata(header) != container.metadata:
        raise KernelFormatError("the variant's metadata are not in their canonical spelling")
    check_tensors(container, graph, dtype=header.dtype)
    return header, graph


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise KernelFormatError(f"the header is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise KernelFormatError("the header must be a JSON object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise KernelFormatError("the metadata must map names to strings")
    return value


def _tensors(header: dict[str, Any], size: int) -> dict[str, TensorSpec]:
    spans: list[tuple[int, int]] = []
    tensors: dict[str, TensorSpec] = {}
    for name, entry in header.items():
        tensors[name], span = _tensor(name[:80], entry)
        spans.append(span)
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise KernelFormatError("the tensors overlap or leave a gap")
        end = stop
    if end != size:
        raise KernelFormatError(f"the tensors take {end:,} bytes, but {size:,} follow the header")
    return tensors


def _tensor(name: str, entry: Any) -> tuple[TensorSpec, tuple[int, int]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise KernelFormatError(f"tensor {name!r} needs exactly dtype, shape and data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise KernelFormatError(f"tensor {name!r} must be of type {' or '.join(ITEM_BYTES)}")
    shape = _sizes(name, "shape", entry["shape"], longest=4)
    offsets = _sizes(name, "data_offsets", entry["data_offsets"], longest=2)
    tensor = TensorSpec(shape=shape, dtype=dtype)
    if len(offsets) != 2 or offsets[1] - offsets[0] != tensor.elements * ITEM_BYTES[dtype]:
        raise KernelFormatError(f"the data_offsets of tensor {name!r} do not fit its shape")
    return tensor, (offsets[0], offsets[1])


def _sizes(name: str, field: str, value: Any, *, longest: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > longest:
        raise KernelFormatError(f"{field} of tensor {name!r} must be an array of at most {longest} sizes")
    if not all(type(size) is int and 0 <= size <= MAX_ARTEFACT_BYTES for size in value):
        raise KernelFormatError(f"{field} of tensor {name!r} must hold sizes from 0 to {MAX_ARTEFACT_BYTES:,}")
    return tuple(value)
