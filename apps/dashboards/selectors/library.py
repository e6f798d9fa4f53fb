"""The library as people look through it: kernels that a search finds, and the blueprints that they come from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db.models import Count, Q

from apps.blueprints.models import Blueprint
from apps.blueprints.spec import OPERATORS
from apps.core.errors import Invalid, ServiceError
from apps.core.ids import parse_id
from apps.dashboards.selectors.outcomes import Outcome, outcomes_of
from apps.kernels import search
from apps.kernels import selectors as kernels
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, StorageTier, TagKey, TagType
from apps.kernels.search.nodes import And, Compare, Node, Op, is_everything
from apps.kernels.search.running import Page, Query, run

PAGE_SIZE = 50
CHOICES: dict[str, tuple[str, ...]] = {
    "state": tuple(KernelState),
    "operator": tuple(OPERATORS),
    "tier": tuple(StorageTier.values),
}
"""Field -> the values that its chips offer."""
MAX_TAG_GROUPS = 5
MAX_TAG_VALUES = 12
ORDERS: dict[str, str] = {
    "": "newest first",
    "-metrics.gain_mean": "largest gain",
    "risk": "lowest risk",
    "-usage_count": "most used",
    "-last_used_at": "used last",
    "parameters": "fewest parameters",
    "-size": "largest",
}
"""``order_by`` of the search -> what it is called."""
ONE_WORD = re.compile(r"[\w.-]{1,100}")
"""No search, but a name: what is found then has it in its own."""
POSITION = re.compile(r"position (\d+): ")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a search: the text before the place, from the place on, and what to do."""

    detail: str
    before: str = ""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the address asks for. ``node`` is None where ``fault`` says what is wrong with ``text``."""

    text: str
    node: Node | None
    order: str
    cursor: str
    counts: bool
    fault: Fault | None = None
    is_name: bool = False
    """The text was one word: it is looked for in names."""

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "Wanted":
        """``q`` is a search; ``state`` and ``operator`` alone are older addresses of two of its conditions."""
        text = query.get("q", "").replace("\x00", "").strip()
        asked = [Compare(name, Op.EQ, query[name]) for name, known in CHOICES.items() if query.get(name) in known]
        is_name = bool(ONE_WORD.fullmatch(text))
        wanted = cls(
            text=text,
            node=None,
            order=query.get("order", "") if query.get("order", "") in ORDERS else "",
            cursor=query.get("after", ""),
            counts=query.get("counts") == "1",
        )
        try:
            node = _named(text) if is_name else search.parse(text)
        except ServiceError as error:
            return replace(wanted, fault=_fault(text, error))
        node = joined([*parts(node), *(condition for condition in asked if condition not in parts(node))])
        return replace(wanted, text=text if is_name and not asked else spelled(node), node=node, is_name=is_name)


def _named(word: str) -> Node:
    key = parse_id(word)
    if key is not None:
        return Compare("id", Op.EQ, str(key))
    return Compare("kernel_name", Op.LIKE, f"%{word}%")


def _fault(text: str, error: ServiceError) -> Fault:
    found = POSITION.match(error.detail)
    if found is None:
        return Fault(error.detail)
    at = int(found[1]) - 1
    return Fault(error.detail, text[:at], text[at:])


def parts(node: Node) -> tuple[Node, ...]:
    """The conditions that must all hold."""
    return node.nodes if isinstance(node, And) else (node,)


def joined(nodes: Sequence[Node]) -> Node:
    return nodes[0] if len(nodes) == 1 else And(tuple(nodes))


def spelled(node: Node) -> str:
    return "" if is_everything(node) else search.to_text(node)


@dataclass(frozen=True, slots=True)
class KernelPage:
    """``counts``: field -> value -> how many of all that are found; empty unless they were asked for."""

    rows: Sequence[Kernel]
    outcomes: Mapping[UUID, Outcome]
    next_after: str
    is_first: bool
    is_empty: bool
    counts: Mapping[str, Mapping[Any, int]]


def page(wanted: Wanted) -> KernelPage:
    """One page of what is found; the first one where the cursor is none of this search.

    Raises:
        ServiceError: the search costs too much, or an id in it is that of nothing.
    """
    assert wanted.node is not None
    try:
        found, is_first = _run(wanted, wanted.node, wanted.cursor or None), not wanted.cursor
    except Invalid as error:
        if all(found.pointer != "/cursor" for found in error.errors):
            raise
        found, is_first = _run(wanted, wanted.node, None), True
    ids = [row["id"] for row in found.rows]
    rows = kernels.kernels().defer("report", "blueprint_version__spec").in_bulk(ids)
    shown = [rows[key] for key in ids if key in rows]
    return KernelPage(
        rows=shown,
        outcomes=outcomes_of(shown),
        next_after=found.next_cursor or "",
        is_first=is_first,
        is_empty=not shown and not Kernel.objects.exists(),
        counts={name: {entry["value"]: entry["count"] for entry in values} for name, values in found.facets.items()},
    )


def _run(wanted: Wanted, node: Node, cursor: str | None) -> Page:
    return run(
        Query(
            filter=node,
            order_by=(wanted.order,) if wanted.order else (),
            fields=("id",),
            facets=tuple(CHOICES) if wanted.counts else (),
            page_size=PAGE_SIZE,
            cursor=cursor,
            pointer="/q",
        )
    )


def text_matches(text: str) -> Q:
    """Kernels that ``text`` finds: part of a name, a whole id, or the start of a digest."""
    key = parse_id(text)
    found = Q(name__icontains=text) | (Q(pk=key) if key else Q(pk__in=[]))
    return found | Q(digest__startswith=text.lower()) if len(text) >= 8 else found


def blueprint_matches(text: str) -> Q:
    """Blueprints that ``text`` finds: part of the name or title, or a whole id."""
    key = parse_id(text)
    return Q(name__icontains=text) | Q(title__icontains=text) | (Q(pk=key) if key else Q(pk__in=[]))


def tag_choices(keys: Sequence[TagKey]) -> dict[str, tuple[str | bool, ...]]:
    """Field -> values, of declared tags with few values."""
    offered: dict[str, tuple[str | bool, ...]] = {}
    for key in keys:
        if key.type == TagType.BOOLEAN:
            offered[f"tags.{key.name}"] = (True, False)
        elif key.type == TagType.TEXT and 0 < len(key.choices) <= MAX_TAG_VALUES:
            offered[f"tags.{key.name}"] = tuple(key.choices)
    return dict(list(offered.items())[:MAX_TAG_GROUPS])


@dataclass(frozen=True, slots=True)
class Word:
    """Something that a search may say: a field, with the values that it may have, or a function."""

    text: str
    note: str
    values: Sequence[str] = ()


FUNCTIONS = (
    Word("has(", "the kernel has a value there"),
    Word("descends_from('", "what came from a kernel, a version or a blueprint"),
    Word("compatible_with('", "fits the slot of a run; ranked by outcomes in other runs"),
)
METRICS = ("gain_mean", "gain_low", "grafts", "kept_rate", "forward_us")
"""The metrics that completions offer; every other one can be asked for too."""


def words(keys: Sequence[TagKey]) -> list[Word]:
    """What completions offer."""
    fields = [
        Word(field.name, str(field.kind), field.choices or CHOICES.get(field.name, ()))
        for field in search.FIELDS.values()
    ]
    tags = [Word(f"tags.{key.name}", key.description or key.type, key.choices or _of_type(key.type)) for key in keys]
    return [*fields, *tags, *(Word(f"metrics.{name}", "a number") for name in METRICS), *FUNCTIONS]


def _of_type(kind: str) -> Sequence[str]:
    return ("true", "false") if kind == TagType.BOOLEAN else ()


def tag_keys() -> list[TagKey]:
    return list(TagKey.objects.order_by("name"))


def blueprint_rows() -> list[Blueprint]:
    """Every blueprint with the number of its versions and kernels."""
    rows: list[Blueprint] = list(
        Blueprint.objects.annotate(version_total=Count("versions")).order_by("name")[:PAGE_SIZE]
    )
    counted = Kernel.objects.order_by().values_list("blueprint_version__blueprint").annotate(Count("pk"))
    totals = dict(counted.filter(blueprint_version__blueprint__in=[row.pk for row in rows]))
    for row in rows:
        row.kernel_total = totals.get(row.pk, 0)  # type: ignore[attr-defined]
    return rows
