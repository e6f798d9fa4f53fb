"""The JSON spelling: ``{"and": [{"field": "tags.arch", "op": "eq", "value": "conv"}, {"not": {...}}]}``.

A list holds conditions that must all hold. Every error points at the member at fault.
"""

from collections.abc import Mapping
from typing import Any

from apps.core.errors import Invalid
from apps.kernels.search import relations
from apps.kernels.search.fields import checked
from apps.kernels.search.nodes import (
    EVERYTHING,
    MAX_DEPTH,
    MAX_LINEAGE,
    MAX_TERMS,
    And,
    Compare,
    DescendsFrom,
    FitsContract,
    FitsSlot,
    Node,
    Not,
    Op,
    Or,
    is_everything,
)

POINTER = "/filter"
FORMS = (
    '{"and": [...]}, {"or": [...]}, {"not": ...}, {"field", "op", "value"}, {"descends_from": {"id", "depth"}} '
    'or {"compatible_with": {"slot"}}'
)
CONTRACT = frozenset({"operator", "input", "output"})


def from_json(value: Any) -> Node:
    """The search that ``value`` spells; null, {} and [] find everything.

    Raises:
        Invalid: the pointer, under ``/filter``, names the place.
    """
    if value is None or value == {} or value == []:
        return EVERYTHING
    return _Reader().node(value, POINTER, 0)


class _Reader:
    def __init__(self) -> None:
        self.terms = 0

    def node(self, value: Any, at: str, level: int) -> Node:
        if isinstance(value, list):
            return self.nodes(And, value, at, level)
        if not isinstance(value, Mapping):
            raise Invalid(f"must be one of {FORMS}", pointer=at, code="type")
        for name, read in (("and", And), ("or", Or)):
            if name in value:
                self.alone(value, name, at=at)
                return self.nodes(read, value[name], f"{at}/{name}", level)
        if "not" in value:
            self.alone(value, "not", at=at)
            self.check_level(at, level)
            return Not(self.node(value["not"], f"{at}/not", level + 1))
        return self.term(value, at)

    def nodes(self, kind: type[And] | type[Or], values: Any, at: str, level: int) -> Node:
        if not isinstance(values, list) or not values:
            raise Invalid("must be a list of one condition or more", pointer=at, code="type")
        if len(values) == 1:
            return self.node(values[0], f"{at}/0", level)
        self.check_level(at, level)
        if len(values) > MAX_TERMS:
            raise Invalid(f"more than {MAX_TERMS} conditions", pointer=at, code="too_many")
        return kind(tuple(self.node(inner, f"{at}/{index}", level + 1) for index, inner in enumerate(values)))

    def check_level(self, at: str, level: int) -> None:
        if level >= MAX_DEPTH:
            raise Invalid(f"nested deeper than {MAX_DEPTH} levels", pointer=at, code="too_deep")

    def alone(self, value: Mapping[str, Any], *names: str, at: str = "") -> None:
        unknown = [name for name in value if name not in names]
        if unknown:
            raise Invalid(
                f"unknown member beside {', '.join(names)}", pointer=f"{at}/{_step(unknown[0])}", code="unknown"
            )

    def term(self, value: Mapping[str, Any], at: str) -> Node:
        self.terms += 1
        if self.terms > MAX_TERMS:
            raise Invalid(f"more than {MAX_TERMS} conditions", pointer=at, code="too_many")
        for name, read in (("descends_from", self.lineage), ("compatible_with", self.contract)):
            if name in value:
                self.alone(value, name, at=at)
                return read(value[name], f"{at}/{name}")
        if "field" not in value:
            raise Invalid(f"must be one of {FORMS}", pointer=at, code="type")
        self.alone(value, "field", "op", "value", at=at)
        return self.comparison(value, at)

    def comparison(self, value: Mapping[str, Any], at: str) -> Node:
        field, op, given = value["field"], value.get("op", "eq"), value.get("value")
        if not isinstance(field, str):
            raise Invalid("must be text", pointer=f"{at}/field", code="type")
        if not isinstance(op, str) or op not in list(Op):
            raise Invalid(f"{op!r:.40} is not one of {', '.join(Op)}", pointer=f"{at}/op", code="operator")
        if isinstance(given, list):
            given = tuple(given)
        if Op(op) is Op.HAS and given is True:
            given = None
        compare = Compare(field, Op(op), given)
        return checked(compare, pointer=f"{at}/field", value_pointer=f"{at}/value")

    def lineage(self, value: Any, at: str) -> Node:
        if not isinstance(value, Mapping):
            return relations.descends_from(value, pointer=at)
        self.alone(value, "id", "depth", at=at)
        return relations.descends_from(value.get("id"), value.get("depth", MAX_LINEAGE), pointer=at)

    def contract(self, value: Any, at: str) -> Node:
        if not isinstance(value, Mapping):
            return relations.fits_slot(value, pointer=at)
        if "slot" in value:
            self.alone(value, "slot", at=at)
            return relations.fits_slot(value["slot"], pointer=f"{at}/slot")
        self.alone(value, *sorted(CONTRACT), at=at)
        return relations.fits_contract(value.get("operator"), value.get("input"), value.get("output"), pointer=at)


def _step(name: object) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")


def to_json(node: Node) -> Any:
    """The JSON that ``from_json`` reads as ``node``."""
    match node:
        case And(nodes):
            return {} if is_everything(node) else {"and": [to_json(inner) for inner in nodes]}
        case Or(nodes):
            return {"or": [to_json(inner) for inner in nodes]}
        case Not(inner):
            return {"not": to_json(inner)}
        case DescendsFrom(reference, depth):
            return {"descends_from": {"id": reference, "depth": depth}}
        case FitsSlot(slot):
            return {"compatible_with": {"slot": slot}}
        case FitsContract(operator, given, wanted):
            return {"compatible_with": {"operator": operator, "input": list(given), "output": list(wanted)}}
        case Compare(field, Op.HAS, _):
            return {"field": field, "op": "has"}
        case Compare(field, op, value):
            return {"field": field, "op": str(op), "value": list(value) if isinstance(value, tuple) else value}
