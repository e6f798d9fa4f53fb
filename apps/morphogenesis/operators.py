"""Graphs become torch modules here, and torch modules become kernel artefacts (Kasmina's kernel execution).

``OPERATIONS`` has one builder per operation of ``blueprints.ops.OPS``. Nothing in an artefact is code: a kernel is a
spec over that closed registry plus tensors in safetensors, each checked by name, shape and type before it is loaded.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from apps.blueprints.spec import INPUT, Graph, Node, SpecError, canonical_json, parse
from apps.morphogenesis.artefact import (
    MAX_ARTEFACT_BYTES,
    SPEC_KEY,
    KernelFormatError,
    check_tensors,
    read_container,
    read_kernel,
)

__all__ = [
    "OPERATIONS",
    "Branch",
    "KernelFormatError",
    "build",
    "dump_tensors",
    "fill",
    "load_artefact",
    "load_kernel",
    "pack",
    "unpack",
]


class Add(nn.Module):
    """Sum of two tensors of equal shape."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Multiply(nn.Module):
    """Product of two tensors of equal shape."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left * right


class LayerScale(nn.Module):
    """One learned factor a feature or channel (axis 1); born as one, or as zero where the spec says so."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, h: Tensor) -> Tensor:
        return h * self.weight.view(-1, *(1,) * (h.dim() - 2))


class GlobalAveragePool(nn.Module):
    """[N, channels, H, W] -> [N, channels]."""

    def forward(self, h: Tensor) -> Tensor:
        return h.mean((2, 3))


class ChannelMultiply(nn.Module):
    """[N, channels, H, W] and [N, channels] -> [N, channels, H, W]."""

    def forward(self, image: Tensor, factors: Tensor) -> Tensor:
        return image * factors[:, :, None, None]


class Attention(nn.Module):
    """softmax(q^T k / sqrt(d)) v over the H x W positions of an image, d channels of q and k a head.

    Written out, not fused: plain matrix products are deterministic on every device, and export as they are.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q, k, v = (tensor.flatten(2).unflatten(1, (self.heads, -1)) for tensor in (queries, keys, values))
        weights = (q.transpose(-2, -1) @ k / math.sqrt(q.shape[2])).softmax(-1)
        mixed: Tensor = (v @ weights.transpose(-2, -1)).reshape(values.shape)
        return mixed


def _linear(node: Node) -> nn.Module:
    return nn.Linear(node.call.channels, node.params["out_features"], bias=node.params["bias"])


def _conv2d(node: Node) -> nn.Module:
    params = node.params
    return nn.Conv2d(
        node.call.channels,
        params["out_channels"],
        params["kernel_size"],
        padding=params["dilation"] * (params["kernel_size"] // 2),
        dilation=params["dilation"],
        groups=params["groups"],
        bias=params["bias"],
    )


def _avg_pool(node: Node) -> nn.Module:
    size = node.params["kernel_size"]
    return nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)


def _batch_norm(node: Node) -> nn.Module:
    kind = nn.BatchNorm1d if node.call.rank == 2 else nn.BatchNorm2d
    return kind(node.call.channels)


OPERATIONS: Mapping[str, Callable[[Node], nn.Module]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "layer_norm": lambda node: nn.LayerNorm(node.call.channels),
    "rms_norm": lambda node: nn.RMSNorm(node.call.channels),
    "group_norm": lambda node: nn.GroupNorm(node.params["groups"], node.call.channels),
    "layer_scale": lambda node: LayerScale(node.call.channels),
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda node: GlobalAveragePool(),
    "attention": lambda node: Attention(node.params["heads"]),
    "relu": lambda node: nn.ReLU(),
    "gelu": lambda node: nn.GELU(),
    "silu": lambda node: nn.SiLU(),
    "tanh": lambda node: nn.Tanh(),
    "sigmoid": lambda node: nn.Sigmoid(),
    "add": lambda node: Add(),
    "mul": lambda node: Multiply(),
    "channel_mul": lambda node: ChannelMultiply(),
}


class Branch(nn.Module):
    """The module of a graph: maps h to D(h). Submodules carry the ids of their nodes.

    Shapes: [N, features] or [N, channels, H, W], as ``graph.input_shape`` and ``graph.output_shape`` say.
    """

    graph: Graph

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for node in graph.nodes:
            self.add_module(node.id, OPERATIONS[node.op](node))

    def forward(self, h: Tensor) -> Tensor:
        values = {INPUT: h}
        for node in self.graph.nodes:
            values[node.id] = self._modules[node.id](*(values[source] for source in node.inputs))  # type: ignore[misc]
        return values[self.graph.output]


def build(graph: Graph, *, generator: torch.Generator) -> Branch:
    """A fresh branch on the CPU, float32, its weights drawn from ``generator`` alone (never from the global one).

    Layers take torch's default fan-in initialisation, U(-1/sqrt(fan_in), 1/sqrt(fan_in)), or zeros where the spec says.
    """
    branch = _empty(graph)
    with torch.no_grad():
        for node in graph.nodes:
            _initialise(branch.get_submodule(node.id), zeros=node.params.get("init") == "zeros", generator=generator)
    return branch


def load_kernel(spec: Mapping[str, Any], tensors: bytes) -> Branch:
    """The branch of ``spec`` with the weights of ``tensors``, the bytes of a safetensors file.

    Raises:
        KernelFormatError: the spec is invalid, the file is broken, or a tensor's name, shape or type is not the spec's.
    """
    try:
        graph = parse(spec)
    except SpecError as error:
        raise KernelFormatError(f"the kernel's spec is invalid at {error.pointer or '/'}: {error}") from error
    check_tensors(read_container(tensors), graph)
    return fill(graph, _decode_tensors(tensors))


def load_artefact(data: bytes) -> Branch:
    """The branch that an artefact holds. Raises KernelFormatError."""
    _, graph = read_kernel(data)
    return fill(graph, _decode_tensors(data))


def dump_tensors(branch: Branch) -> bytes:
    """The branch's parameters and buffers as one safetensors file without metadata."""
    return safetensors.torch.save(_state(branch))


def pack(branch: Branch, spec: Mapping[str, Any]) -> bytes:
    """The kernel artefact: the branch's tensors plus the canonical bound spec. Equal inputs give equal bytes.

    Raises:
        KernelFormatError: the spec is not that of the branch, or still has symbols.
    """
    graph = parse(spec)
    if graph.symbols:
        raise KernelFormatError(f"the spec is not bound: {', '.join(graph.symbols)} have no fixed size; use bind first")
    if graph != branch.graph:
        raise KernelFormatError("the spec is not that of the branch")
    # One metadata key only: safetensors writes several in no fixed order.
    data = safetensors.torch.save(_state(branch), {SPEC_KEY: canonical_json(spec).decode()})
    if len(data) > MAX_ARTEFACT_BYTES:
        raise KernelFormatError(f"{len(data):,} bytes are over the limit of {MAX_ARTEFACT_BYTES:,}")
    return data


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The bound spec and the tensors of an artefact, checked against each other. Raises KernelFormatError."""
    spec, _ = read_kernel(data)
    return spec, _decode_tensors(data)


def _empty(graph: Graph) -> Branch:
    # Built on the meta device, so that no constructor draws weights from the global generator.
    with torch.device("meta"):
        branch = Branch(graph)
    return branch.to_empty(device="cpu")


def fill(graph: Graph, tensors: Mapping[str, Tensor], *, dtype: torch.dtype = torch.float32) -> Branch:
    """The branch of ``graph``, its floating-point tensors in ``dtype``, with these values."""
    branch = _empty(graph).to(dtype)
    branch.load_state_dict(tensors, strict=True)
    return branch


def _state(branch: Branch) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in branch.state_dict().items()}


def _decode_tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise KernelFormatError(f"not a safetensors file: {str(error)[:200]}") from error


def _initialise(module: nn.Module, *, zeros: bool, generator: torch.Generator) -> None:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.RMSNorm | nn.GroupNorm):
        module.reset_parameters()
        return
    if isinstance(module, LayerScale):
        module.weight.fill_(0.0 if zeros else 1.0)
        return
    weight = getattr(module, "weight", None)
    if weight is None:
        return
    bound = 0.0 if zeros else 1 / math.sqrt(weight[0].numel())
    for parameter in module.parameters():
        if zeros:
            parameter.zero_()
        else:
            parameter.uniform_(-bound, bound, generator=generator)
