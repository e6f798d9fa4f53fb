"""Trees of dictionaries, lists, tuples, tensors and JSON types: what a snapshot's components are."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import Tensor


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """Every tensor of the tree, in its order."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from tensors_of(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from tensors_of(value)


def mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The tree anew, with ``change`` of each tensor."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(value, change) for value in tree)
    return tree


def copied(tree: Any, keep: Collection[int] = frozenset()) -> Any:
    """The tree with copies of its tensors on the CPU, except those whose ids are in ``keep``."""
    return mapped(tree, lambda tensor: tensor if id(tensor) in keep else copy_of(tensor))


def copy_of(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that nobody else writes to."""
    return tensor.detach().to("cpu", copy=True).contiguous()
