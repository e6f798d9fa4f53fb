"""Widening: new units across a producer/consumer pair of layers, and the way back.

A widening kernel is a parallel branch incoming -> [norm] -> activation -> outgoing. Germination merges its tensors into
the pair: rows of the producer, entries of the norm, columns of the consumer. The columns start at zero, so the network
computes the same function at birth. The units are then ordinary ones; a cull cuts them out again.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from apps.morphogenesis.operators import Branch

Layer = nn.Linear | nn.Conv2d
Norm = nn.BatchNorm1d | nn.BatchNorm2d
SIZE_ATTRIBUTES = {
    nn.Linear: ("out_features", "in_features"),
    nn.Conv2d: ("out_channels", "in_channels"),
    nn.BatchNorm1d: ("num_features", ""),
    nn.BatchNorm2d: ("num_features", ""),
}
"""Module type -> the attribute that names its size along axis 0, and along axis 1 of the weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Where a width can grow: the modules' paths in the host. ``slot`` is the residual site on that width, if any."""

    producer: str
    consumer: str
    norm: str | None = None
    activation: str = "relu"
    slot: str | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """A run of entries that a tensor of the host gained or lost: the optimizer's moments follow it."""

    tensor: str
    axis: int
    start: int
    count: int


def units(host: nn.Module, pair: Pair) -> int:
    """The pair's width now."""
    return width(host, pair.producer)


def width(host: nn.Module, path: str) -> int:
    """Output features or channels of the layer at ``path``."""
    return _layer(host, path).weight.shape[0]


def mismatch(host: nn.Module, pair: Pair, branch: Branch) -> str | None:
    """Why the branch cannot be merged into the pair, or None."""
    nodes = branch.graph.nodes
    incoming, outgoing = _layer(branch, nodes[0].id), _layer(branch, nodes[-1].id)
    producer, consumer = _layer(host, pair.producer), _layer(host, pair.consumer)
    for name, part, whole in (("incoming", incoming, producer), ("outgoing", outgoing, consumer)):
        if type(part) is not type(whole):
            return f"the {name} layer is a {type(part).__name__}, the host's a {type(whole).__name__}"
        if isinstance(whole, nn.Conv2d) and whole.groups != 1:
            return "a grouped convolution cannot be widened"
    if incoming.weight.shape[1:] != producer.weight.shape[1:]:
        return f"the incoming layer reads {list(incoming.weight.shape[1:])}, not {list(producer.weight.shape[1:])}"
    if outgoing.weight[:, 0].shape != consumer.weight[:, 0].shape:
        return f"the outgoing layer feeds {list(outgoing.weight[:, 0].shape)}, not {list(consumer.weight[:, 0].shape)}"
    if (incoming.bias is None) != (producer.bias is None):
        return "one of the incoming layer and the producer has a bias, the other none"
    if (len(nodes) == 4) != (pair.norm is not None):
        return "one of the kernel and the pair has a normalisation, the other none"
    if nodes[-2].op != pair.activation:
        return f"the kernel's activation is {nodes[-2].op}, the host's {pair.activation}"
    return None


def merge(host: nn.Module, pair: Pair, branch: Branch) -> list[Cut]:
    """Append the branch's units to the pair. ``branch`` must fit (see ``mismatch``)."""
    nodes = branch.graph.nodes
    start, count = units(host, pair), _layer(branch, nodes[0].id).weight.shape[0]
    cuts = list(_cuts(host, pair, start, count))
    sources = {pair.producer: nodes[0].id, pair.norm: nodes[1].id, pair.consumer: nodes[-1].id}
    for cut in cuts:
        path, _, name = cut.tensor.rpartition(".")
        new = getattr(branch.get_submodule(sources[path]), name)
        _replace(host, cut.tensor, lambda old, new=new, axis=cut.axis: torch.cat([old, new.to(old.device)], axis))
    _set_sizes(host, cuts)
    return cuts


def unmerge(host: nn.Module, pair: Pair, start: int, count: int) -> list[Cut]:
    """Cut the units ``start .. start + count`` out of the pair."""
    cuts = list(_cuts(host, pair, start, count))
    for cut in cuts:
        _replace(host, cut.tensor, lambda old, axis=cut.axis: remove(old, axis, start, count))
    _set_sizes(host, cuts)
    return cuts


def resize(host: nn.Module, pair: Pair, width: int) -> None:
    """Give the pair this width. The tensors' contents are lost: the caller loads them."""
    for cut in list(_cuts(host, pair, 0, width)):
        _replace(host, cut.tensor, lambda old, axis=cut.axis: _blank(old, axis, width))
        _set_sizes(host, [cut])


@contextmanager
def masked(host: nn.Module, pair: Pair, start: int, count: int) -> Iterator[None]:
    """Run the host as if the units ``start .. start + count`` were not there: their outgoing columns are zero."""
    weight = _layer(host, pair.consumer).weight
    with torch.no_grad():
        columns = weight.narrow(1, start, count)
        kept = columns.clone()
        columns.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            columns.copy_(kept)


def remove(tensor: Tensor, axis: int, start: int, count: int) -> Tensor:
    """``tensor`` without the entries ``start .. start + count`` along ``axis``."""
    end = start + count
    return torch.cat([tensor.narrow(axis, 0, start), tensor.narrow(axis, end, tensor.shape[axis] - end)], axis)


def insert_zeros(tensor: Tensor, axis: int, start: int, count: int) -> Tensor:
    """``tensor`` with ``count`` zeros inserted before entry ``start`` along ``axis``."""
    shape = list(tensor.shape)
    shape[axis] = count
    before, after = tensor.narrow(axis, 0, start), tensor.narrow(axis, start, tensor.shape[axis] - start)
    return torch.cat([before, tensor.new_zeros(shape), after], axis)


def _cuts(host: nn.Module, pair: Pair, start: int, count: int) -> Iterator[Cut]:
    """Every tensor that the pair's width runs through."""
    yield from (Cut(f"{pair.producer}.{name}", 0, start, count) for name in _tensors(host, pair.producer))
    if pair.norm is not None:
        yield from (Cut(f"{pair.norm}.{name}", 0, start, count) for name in _tensors(host, pair.norm))
    yield Cut(f"{pair.consumer}.weight", 1, start, count)


def _tensors(host: nn.Module, path: str) -> list[str]:
    """Names of the parameters and buffers of one module that are sized along axis 0."""
    module = host.get_submodule(path)
    named = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    return [name for name, tensor in named if tensor.dim()]


def _replace(host: nn.Module, path: str, change: Any) -> None:
    module_path, _, name = path.rpartition(".")
    module = host.get_submodule(module_path)
    old = getattr(module, name)
    with torch.no_grad():
        new = change(old.detach()).contiguous()
    setattr(module, name, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)


def _set_sizes(host: nn.Module, cuts: Iterable[Cut]) -> None:
    for cut in cuts:
        path, _, name = cut.tensor.rpartition(".")
        module = host.get_submodule(path)
        if name == "weight":
            tensor = host.get_parameter(cut.tensor)
            setattr(module, SIZE_ATTRIBUTES[type(module)][cut.axis], tensor.shape[cut.axis])


def _blank(tensor: Tensor, axis: int, size: int) -> Tensor:
    shape = list(tensor.shape)
    shape[axis] = size
    return tensor.new_zeros(shape)


def _layer(module: nn.Module, path: str) -> Layer:
    found = module.get_submodule(path)
    if not isinstance(found, nn.Linear | nn.Conv2d):
        raise TypeError(f"{path} is a {type(found).__name__}: only Linear and Conv2d layers can be widened")
    return found
