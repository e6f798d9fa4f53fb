"""What can be searched for: one table. The parser, the compiler, the order and the projection of results read it."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from apps.core.errors import Invalid
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Pipeline, StorageTier
from apps.kernels.search.nodes import MAX_TEXT, MAX_VALUES, Compare, Op, Scalar, Value


class Kind(StrEnum):
    """What a value of a field is."""

    TEXT = "text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    FLAG = "true or false"
    TIME = "a time"
    ID = "an id"
    ANY = "text, a number, true or false"


EQUALITY = frozenset({Op.EQ, Op.NE, Op.IN, Op.HAS})
ORDER = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})
OPS: Mapping[Kind, frozenset[Op]] = {
    Kind.TEXT: EQUALITY | ORDER | {Op.LIKE},
    Kind.WHOLE: EQUALITY | ORDER,
    Kind.NUMBER: EQUALITY | ORDER,
    Kind.FLAG: frozenset({Op.EQ, Op.NE, Op.HAS}),
    Kind.TIME: EQUALITY - {Op.IN} | ORDER,
    Kind.ID: EQUALITY,
    Kind.ANY: EQUALITY | ORDER | {Op.LIKE},
}


@dataclass(frozen=True, slots=True)
class Field:
    """``column`` is SQL over the kernel ``k``; of fields that its version tells, over ``v`` and its blueprint ``b``."""

    name: str
    kind: Kind
    column: str
    of_version: bool = False
    is_nullable: bool = False
    choices: tuple[str, ...] = ()
    key: str = ""
    """The member of ``tags``, ``metrics`` or ``compat`` that it is."""

    @property
    def is_member(self) -> bool:
        return bool(self.key)


def _fields(*fields: Field) -> dict[str, Field]:
    return {field.name: field for field in fields}


STATES = tuple(str(state) for state in KernelState)
TIERS = tuple(str(tier) for tier in StorageTier.values)
PIPELINES = tuple(str(name) for name in Pipeline.values)
FIELDS: Mapping[str, Field] = _fields(
    Field("id", Kind.ID, "k.id"),
    Field("name", Kind.TEXT, "b.name", of_version=True),
    Field("blueprint_id", Kind.ID, "v.blueprint_id", of_version=True),
    Field("version", Kind.WHOLE, "v.number", of_version=True),
    Field("kernel_name", Kind.TEXT, "k.name"),
    Field("state", Kind.TEXT, "k.state", choices=STATES),
    Field("operator", Kind.TEXT, "k.operator"),
    Field("pipeline", Kind.TEXT, "k.pipeline", choices=PIPELINES),
    Field("digest", Kind.TEXT, "k.digest", is_nullable=True),
    Field("size", Kind.WHOLE, "k.size", is_nullable=True),
    Field("parameters", Kind.WHOLE, "k.parameters"),
    Field("compile_ms", Kind.WHOLE, "k.compile_ms", is_nullable=True),
    Field("usage_count", Kind.WHOLE, "k.usage_count"),
    Field("last_used_at", Kind.TIME, "k.last_used_at", is_nullable=True),
    Field("created_at", Kind.TIME, "k.created_at"),
    Field("updated_at", Kind.TIME, "k.updated_at"),
    Field("retired_at", Kind.TIME, "k.retired_at", is_nullable=True),
    Field("pinned_until", Kind.TIME, "k.pinned_until", is_nullable=True),
    Field("legal_hold", Kind.FLAG, "k.legal_hold"),
    Field("risk", Kind.NUMBER, "k.risk", is_nullable=True),
    Field("risk_confidence", Kind.NUMBER, "k.risk_confidence", is_nullable=True),
    Field("storage_tier", Kind.TEXT, "k.storage_tier", choices=TIERS),
    Field("tier", Kind.TEXT, "k.storage_tier", choices=TIERS),
)
MEMBERS = ("tags", "metrics")
"""JSON objects whose members are fields: ``tags.arch``."""
COMPAT = ("operator", "input", "output")
MAX_KEY = 100
KEYED = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""Keys that are written bare; others stand in quotes: ``tags.'my key'``."""

RELATIVE_TIME = re.compile(r"now(?:([+-])([0-9]{1,6})([smhdw]))?")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
MAX_PATTERN = 200
MAX_WILDCARDS = 8
MAX_WHOLE = 2**63 - 1
MAX_NUMBER = 1e300


def field_named(name: str, *, pointer: str) -> Field:
    """The field of this name.

    Raises:
        Invalid: there is none; the message says which it may have been.
    """
    field = FIELDS.get(name)
    if field is not None:
        return field
    base, dot, key = name.partition(".")
    if dot and base in MEMBERS and 0 < len(key) <= MAX_KEY and is_storable(key):
        return Field(name, Kind.ANY, f"k.{base}", is_nullable=True, key=key)
    if dot and base == "compat" and key == "operator":
        return Field(name, Kind.ANY, "k.compat", is_nullable=True, key=key)
    raise Invalid(f"{name!r:.120} is no field{did_you_mean(name)}", pointer=pointer, code="unknown_field")


def did_you_mean(name: str) -> str:
    known = [*FIELDS, "tags.<key>", "metrics.<key>"]
    close = difflib.get_close_matches(name[:100], known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def checked(compare: Compare, *, pointer: str, value_pointer: str | None = None) -> Compare:
    """``compare`` if its field takes this operator and value.

    Raises:
        Invalid: it does not; the message names the field and the type that it wants.
    """
    field = field_named(compare.field, pointer=pointer)
    at = value_pointer or pointer
    if compare.op not in OPS[field.kind]:
        known = ", ".join(sorted(OPS[field.kind]))
        raise Invalid(f"{field.name} is {field.kind}: it takes {known}, not {compare.op}", pointer=at, code="operator")
    if compare.op is Op.HAS:
        if compare.value is not None:
            raise Invalid("has takes no value", pointer=at, code="type")
    elif compare.op is Op.IN:
        _check_list(field, compare.value, at)
    else:
        _check_value(field, compare.op, compare.value, at)
    return compare


def _check_list(field: Field, values: Value, at: str) -> None:
    if not isinstance(values, tuple) or not 1 <= len(values) <= MAX_VALUES:
        raise Invalid(f"in takes a list of 1 to {MAX_VALUES} values for {field.name}", pointer=at, code="type")
    for value in values:
        _check_value(field, Op.IN, value, at)


def _check_value(field: Field, op: Op, value: Value, at: str) -> None:
    kind = Kind.TEXT if op is Op.LIKE else field.kind
    if op is Op.LIKE and isinstance(value, str) and (len(value) > MAX_PATTERN or value.count("%") > MAX_WILDCARDS):
        detail = f"a pattern has at most {MAX_PATTERN} characters and {MAX_WILDCARDS} %"
        raise Invalid(detail, pointer=at, code="range")
    if not isinstance(value, str | int | float) or not FITS[kind](value):
        remedy = "; has() asks whether there is one" if value is None else ""
        hint = ", such as 2026-01-31T12:00:00Z or now-7d" if kind is Kind.TIME else ""
        raise Invalid(
            f"{field.name} is compared with {kind}{hint}, not with {_shown(value)}{remedy}", pointer=at, code="type"
        )
    if op in ORDER and isinstance(value, bool):
        raise Invalid(f"{field.name}: true and false have no order", pointer=at, code="type")
    if field.choices and op in EQUALITY and value not in field.choices:
        close = difflib.get_close_matches(str(value), field.choices, n=1, cutoff=0.4)
        guess = f"; did you mean {close[0]}?" if close else ""
        known = ", ".join(field.choices)
        raise Invalid(f"{field.name} is one of {known}, not {_shown(value)}{guess}", pointer=at, code="choice")


def _shown(value: object) -> str:
    return f"{value!r:.80}"


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold it: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _is_text(value: Scalar) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and is_storable(value)


def _is_whole(value: Scalar) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_WHOLE


def _is_number(value: Scalar) -> bool:
    if isinstance(value, bool | str):
        return False
    return abs(value) <= (MAX_WHOLE if isinstance(value, int) else MAX_NUMBER)


def _is_time(value: Scalar) -> bool:
    try:
        return isinstance(value, str) and moment(value, datetime(2026, 1, 1, tzinfo=UTC)) is not None
    except (ValueError, OverflowError):
        return False


def _is_id(value: Scalar) -> bool:
    try:
        return isinstance(value, str) and len(value) <= 45 and UUID(value) is not None
    except ValueError:
        return False


FITS = {
    Kind.TEXT: _is_text,
    Kind.WHOLE: _is_whole,
    Kind.NUMBER: _is_number,
    Kind.FLAG: lambda value: isinstance(value, bool),
    Kind.TIME: _is_time,
    Kind.ID: _is_id,
    Kind.ANY: lambda value: isinstance(value, bool) or _is_text(value) or _is_number(value),
}


def moment(text: str, now: datetime) -> datetime:
    """The time that ``now-7d`` or an RFC 3339 text names.

    Raises:
        ValueError, OverflowError: it names none.
    """
    relative = RELATIVE_TIME.fullmatch(text)
    if relative is None:
        if RFC_3339.fullmatch(text) is None:
            raise ValueError(text)
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    sign, amount, unit = relative.groups()
    if sign is None:
        return now
    step = timedelta(**{UNITS[unit]: int(amount)})
    return now - step if sign == "-" else now + step
