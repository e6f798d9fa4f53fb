"""Which conditions an index serves: what decides whether a search may be looked up, and what it costs at most."""

from apps.kernels.search.nodes import And, Compare, DescendsFrom, FitsContract, FitsSlot, Node, Not, Op, Or

EQUAL = frozenset({Op.EQ, Op.IN})
BY_EQUALITY = frozenset({"id", "digest", "name", "blueprint_id", "version"})
"""Columns with an index (those of the version by that of ``blueprint_version``)."""
LATER = frozenset({Op.EQ, Op.GT, Op.GTE})
COMPARISONS = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})


def is_indexed(node: Node, indexed_tags: frozenset[str]) -> bool:
    """Whether all matches come out of indexes. ``indexed_tags``: declared tags whose index is ready."""
    match node:
        case And(nodes):
            return any(is_indexed(inner, indexed_tags) for inner in nodes)
        case Or(nodes):
            return all(is_indexed(inner, indexed_tags) for inner in nodes)
        case Not():
            return False
        case DescendsFrom() | FitsSlot() | FitsContract():
            return True
        case Compare(field, op, _):
            return _is_indexed(field, op, indexed_tags)


def _is_indexed(field: str, op: Op, indexed_tags: frozenset[str]) -> bool:
    if field == "created_at":
        return op in LATER
    if field.startswith("tags."):
        return op in EQUAL or (op in COMPARISONS and field.removeprefix("tags.") in indexed_tags)
    return field in BY_EQUALITY and op in EQUAL
