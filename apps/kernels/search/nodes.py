"""The abstract syntax of a search: what both spellings (``text``, ``tree``) are read into, and what is compiled.

Logic has two values: a condition on a value that is not there does not hold, and ``not`` turns that round.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

MAX_DEPTH = 8
"""Levels of and, or, not."""
MAX_TERMS = 32
"""Conditions in one search."""
MAX_VALUES = 100
"""Values of one ``in``."""
MAX_TEXT = 4096
"""Characters of a search, and of a value in it."""
MAX_LINEAGE = 32
MAX_RANK = 8
"""Dimensions of a shape."""


class Op(StrEnum):
    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    IN = "in"
    LIKE = "like"
    HAS = "has"


Scalar = str | int | float | bool
Value = Scalar | tuple[Scalar, ...] | None
Shape = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Compare:
    """``field op value``. ``value`` is None for ``has``, a tuple for ``in``; times are text (``now-7d``, RFC 3339)."""

    field: str
    op: Op
    value: Value = None


@dataclass(frozen=True, slots=True)
class DescendsFrom:
    """Kernels that came, over at most ``depth`` edges, from a kernel, a blueprint version or a blueprint."""

    id: str
    depth: int = MAX_LINEAGE


@dataclass(frozen=True, slots=True)
class FitsSlot:
    """Validated kernels that a slot of a run could take."""

    slot: str


@dataclass(frozen=True, slots=True)
class FitsContract:
    """Validated kernels of this contract; shapes batch first, free dimensions by their symbol."""

    operator: str
    input: Shape
    output: Shape


@dataclass(frozen=True, slots=True)
class Not:
    node: "Node"


@dataclass(frozen=True, slots=True)
class And:
    """All hold. ``And(())`` holds for every kernel."""

    nodes: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    nodes: "tuple[Node, ...]"


Term = Compare | DescendsFrom | FitsSlot | FitsContract
Node = Term | Not | And | Or
EVERYTHING = And(())


def terms(node: Node) -> Iterator[Term]:
    """Every condition, in the order of the text."""
    match node:
        case And(nodes) | Or(nodes):
            for inner in nodes:
                yield from terms(inner)
        case Not(inner):
            yield from terms(inner)
        case _:
            yield node


def required(node: Node) -> Iterator[Term]:
    """The conditions that every match meets."""
    if isinstance(node, And):
        for inner in node.nodes:
            yield from required(inner)
    elif not isinstance(node, Or | Not):
        yield node


def is_everything(node: Node) -> bool:
    return isinstance(node, And) and not node.nodes


def contract_of(node: Node) -> FitsSlot | FitsContract | None:
    """What the results are ranked for, when every one of them has to fit it."""
    return next((term for term in required(node) if isinstance(term, FitsSlot | FitsContract)), None)
