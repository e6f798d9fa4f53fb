"""The page of one blueprint: its card, versions, aliases, lineage and kernels."""

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import page
from apps.dashboards.selectors import versions


@page(Scope.LIBRARY_READ)
def blueprint(request: HttpRequest, blueprint_id: UUID) -> HttpResponse:
    portrait = versions.portrait(blueprint_id)
    if portrait is None:
        raise Http404
    return render(request, "library/blueprint.html", {"portrait": portrait, "blueprint": portrait.blueprint})
