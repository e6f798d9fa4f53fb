"""What a parsed blueprint is: a frozen graph of nodes with inferred shapes; and the error that says why it is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apps.blueprints.ops import OPS, Call, Shape, TensorSpec

INPUT = "input"
"""The id under which nodes refer to the graph's input."""


class SpecError(ValueError):
    """A spec is not a blueprint.

    ``str(error)`` is one sentence for people; ``pointer`` is the JSON pointer (RFC 6901) of the field at fault, "" for
    the whole document; ``node`` the id of the node it belongs to, if any; ``code`` a stable word for programs.
    """

    def __init__(self, message: str, *, pointer: str = "", node: str | None = None, code: str = "invalid") -> None:
        super().__init__(message)
        self.pointer = pointer
        self.node = node
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation in the graph: parameters with defaults filled in and symbols resolved, shapes inferred."""

    id: str
    op: str
    inputs: tuple[str, ...]
    params: Mapping[str, Any]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    index: int
    """Position in the spec's ``nodes`` (for JSON pointers)."""

    @property
    def call(self) -> Call:
        return Call(self.input_shapes, self.params)

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """The node's tensors, named within the node (``weight``)."""
        return OPS[self.op].tensors(self.call)

    @property
    def pointer(self) -> str:
        return f"/nodes/{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A checked blueprint. ``nodes`` are in topological order, ties in the order of the spec.

    ``symbols`` holds the sizes the spec's symbols had (empty once bound). Shapes are batch first; free dimensions are
    the strings "N", "H", "W".
    """

    operator: str
    symbols: Mapping[str, int]
    input_shape: Shape
    output_shape: Shape
    nodes: tuple[Node, ...]
    output: str

    @property
    def tensors(self) -> dict[str, TensorSpec]:
        """Every tensor of the kernel by full name (``fc1.weight``): the contract that an artefact is held to."""
        return {f"{node.id}.{name}": tensor for node in self.nodes for name, tensor in node.tensors.items()}

    @property
    def parameters(self) -> int:
        """Number of trainable scalars."""
        return sum(tensor.elements for tensor in self.tensors.values() if tensor.trainable)

    @property
    def rank(self) -> int:
        """2 for vectors [N, features], 4 for images [N, channels, H, W]."""
        return len(self.input_shape)

    def flops(self, spatial: tuple[int, int] = (1, 1)) -> int:
        """Forward FLOPs for one sample of ``spatial`` = (H, W); vectors, also those pooled from images, ignore it."""
        positions = spatial[0] * spatial[1]
        return sum(OPS[node.op].flops(node.call, positions if node.call.rank == 4 else 1) for node in self.nodes)

    def node(self, node_id: str) -> Node:
        """The node of that id. Raises KeyError."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise KeyError(node_id)
