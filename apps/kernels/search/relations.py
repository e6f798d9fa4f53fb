"""Conditions that are no comparison, checked: lineage and contracts. Both spellings make them here."""

from typing import Any
from uuid import UUID

from apps.core.errors import Invalid
from apps.kernels.search.fields import is_storable
from apps.kernels.search.nodes import MAX_LINEAGE, MAX_RANK, DescendsFrom, FitsContract, FitsSlot, Shape

MAX_OPERATOR = 16
MAX_SYMBOL = 32
MAX_SIZE = 2**31 - 1


def descends_from(reference: Any, depth: Any = MAX_LINEAGE, *, pointer: str) -> DescendsFrom:
    """Raises Invalid: the reference is no id, or the depth is out of range."""
    if type(depth) is not int or not 1 <= depth <= MAX_LINEAGE:
        raise Invalid(f"depth is a whole number from 1 to {MAX_LINEAGE}", pointer=pointer, code="range")
    return DescendsFrom(id=_id(reference, "descends_from", pointer), depth=depth)


def fits_slot(reference: Any, *, pointer: str) -> FitsSlot:
    """Raises Invalid: it is no id."""
    return FitsSlot(slot=_id(reference, "compatible_with", pointer))


def fits_contract(operator: Any, given: Any, wanted: Any, *, pointer: str) -> FitsContract:
    """Raises Invalid: an operator that is no text, or a shape that is none."""
    if not isinstance(operator, str) or not 0 < len(operator) <= MAX_OPERATOR or not is_storable(operator):
        raise Invalid("the operator of a contract is a short text", pointer=pointer, code="type")
    return FitsContract(operator=operator, input=_shape(given, pointer), output=_shape(wanted, pointer))


def _shape(value: Any, pointer: str) -> Shape:
    if isinstance(value, list | tuple) and 1 <= len(value) <= MAX_RANK and all(map(_is_dimension, value)):
        return tuple(value)
    raise Invalid(
        f"a shape has 1 to {MAX_RANK} dimensions, each a size or a symbol, batch first", pointer=pointer, code="type"
    )


def _is_dimension(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= MAX_SYMBOL and is_storable(value)
    return type(value) is int and 0 <= value <= MAX_SIZE


def _id(reference: Any, name: str, pointer: str) -> str:
    try:
        if isinstance(reference, str) and len(reference) <= 45:
            return str(UUID(reference))
    except ValueError:
        pass
    raise Invalid(f"{name} takes an id, not {reference!r:.80}", pointer=pointer, code="type")
