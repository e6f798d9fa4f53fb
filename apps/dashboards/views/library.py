"""The library: a search over its kernels, and the page of one kernel."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.core.errors import ServiceError
from apps.dashboards.access import page, viewer
from apps.dashboards.chips import Chip
from apps.dashboards.selectors import library as selectors
from apps.dashboards.selectors import library_kernel
from apps.dashboards.stages import KERNEL_LOOKS
from apps.kernels.lifecycle import DOWNLOADABLE
from apps.kernels.search.nodes import Compare, Node, Op, contract_of, is_everything

EXAMPLES = (
    ("state = 'VALIDATED' and risk < 0.3", "those that runs may use, and that rarely fail"),
    ("operator = 'widen' and parameters <= 10000", "small ones that widen"),
    ("metrics.gain_low > 0 and created_at > now-7d", "made this week, with a gain for sure"),
    ("name like 'residual%' and not has(tags.deprecated)", "of blueprints called residual..., without that tag"),
)


@page(Scope.LIBRARY_READ)
def listing(request: HttpRequest) -> HttpResponse:
    """``q`` is a search in the language of the API; what is wrong with it stands under the box."""
    wanted, keys = selectors.Wanted.parse(request.GET), selectors.tag_keys()
    found, fault = None, wanted.fault
    if wanted.node is not None:
        try:
            found = selectors.page(wanted)
        except ServiceError as error:
            fault = selectors.Fault(error.detail)
    narrows = bool(wanted.text)
    context = {
        "page": found,
        "wanted": wanted,
        "fault": fault,
        "narrows": narrows,
        "is_ranked": wanted.node is not None and not wanted.order and contract_of(wanted.node) is not None,
        "chips": _chips(wanted, keys, found.counts if found else {}),
        "orders": selectors.ORDERS.items(),
        "words": selectors.words(keys),
        "examples": [(text, meaning, urlencode({"q": text})) for text, meaning in EXAMPLES],
        "blueprints": [] if narrows or found is None or not found.is_first else selectors.blueprint_rows(),
    }
    return render(request, "library/list.html", context)


def _chips(
    wanted: selectors.Wanted, keys: Sequence[Any], counts: Mapping[str, Mapping[Any, int]]
) -> dict[str, list[Chip]]:
    """Field -> chips; each turns one condition of the search on or off."""
    if wanted.node is None:
        return {}
    words = {state: look.word for state, look in KERNEL_LOOKS.items()}
    groups: dict[str, Sequence[str | bool]] = {**selectors.CHOICES, **selectors.tag_choices(keys)}
    return {
        _title(name): [
            _chip(wanted, Compare(name, Op.EQ, value), _word(words, value, counts.get(name))) for value in values
        ]
        for name, values in groups.items()
    }


def _title(name: str) -> str:
    key = name.removeprefix("tags.")
    return name if key in selectors.CHOICES else key


def _word(words: Mapping[str, str], value: str | bool, counts: Mapping[Any, int] | None) -> str:
    word = ("yes" if value else "no") if isinstance(value, bool) else words.get(value, value)
    return word if counts is None else f"{word} {counts.get(value, 0):,}"


def _chip(wanted: selectors.Wanted, condition: Compare, word: str) -> Chip:
    """Turning a value on turns the others of its field off."""
    node = wanted.node
    assert node is not None
    kept: list[Node] = [part for part in selectors.parts(node) if not _is_of(part, condition.field)]
    is_on = condition in selectors.parts(node)
    after = selectors.joined(kept if is_on else [*kept, condition])
    query = {"q": selectors.spelled(after), "order": wanted.order, "counts": "1" if wanted.counts else ""}
    return Chip(word=word, is_on=is_on, query=urlencode({name: value for name, value in query.items() if value}))


def _is_of(part: Node, field: str) -> bool:
    return is_everything(part) or (isinstance(part, Compare) and part.field == field and part.op is Op.EQ)


@page(Scope.LIBRARY_READ)
def kernel(request: HttpRequest, kernel_id: UUID) -> HttpResponse:
    portrait = library_kernel.portrait(kernel_id)
    if portrait is None:
        raise Http404
    who = viewer(request)
    may_audit = who.has_scope(Scope.AUDIT_READ)
    context = {
        "portrait": portrait,
        "kernel": portrait.kernel,
        "may_audit": may_audit,
        "may_curate": who.is_staff and who.has_scope(Scope.LIBRARY_WRITE),
        "history": library_kernel.history(portrait.kernel) if may_audit else [],
        "is_downloadable": portrait.kernel.state in DOWNLOADABLE and bool(portrait.bytes.places),
    }
    return render(request, "library/kernel.html", context)
