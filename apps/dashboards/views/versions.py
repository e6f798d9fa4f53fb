"""The page of one blueprint: its card, versions, aliases, lineage and kernels; and two versions side by side."""

from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import page
from apps.dashboards.selectors import versions
from apps.kernels.search import to_text
from apps.kernels.search.nodes import Compare, Op


@page(Scope.LIBRARY_READ)
def blueprint(request: HttpRequest, blueprint_id: UUID) -> HttpResponse:
    portrait = versions.portrait(blueprint_id)
    if portrait is None:
        raise Http404
    context = {
        "portrait": portrait,
        "blueprint": portrait.blueprint,
        "all_query": urlencode({"q": to_text(Compare("blueprint_id", Op.EQ, str(blueprint_id)))}),
    }
    return render(request, "library/blueprint.html", context)


@page(Scope.LIBRARY_READ)
def diff(request: HttpRequest, blueprint_id: UUID) -> HttpResponse:
    """``?from=1&to=2``: numbers of versions; else the newest two."""
    asked = [_number(request.GET.get(name, "")) for name in ("from", "to")]
    numbers = [number for number in asked if number is not None]
    if len(numbers) < 2:
        numbers = versions.newest_two(blueprint_id)
    found = versions.comparison(blueprint_id, *numbers) if len(numbers) == 2 else None
    if found is None:
        raise Http404
    return render(request, "library/diff.html", {"comparison": found, "blueprint": found.blueprint})


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
