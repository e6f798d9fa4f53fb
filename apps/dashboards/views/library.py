"""The library: kernels by state and operator, and the page of one kernel."""

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from apps.accounts.roles import Scope
from apps.dashboards.access import page, viewer
from apps.dashboards.chips import toggle
from apps.dashboards.selectors import library as selectors
from apps.dashboards.selectors import library_kernel
from apps.dashboards.stages import KERNEL_LOOKS
from apps.kernels.lifecycle import DOWNLOADABLE


@page(Scope.LIBRARY_READ)
def listing(request: HttpRequest) -> HttpResponse:
    wanted = selectors.KernelFilter.parse(request.GET)
    kept = {**wanted.chosen} | ({"q": wanted.text} if wanted.text else {})
    words = {state: look.word for state, look in KERNEL_LOOKS.items()}
    chips = {
        name: [toggle(kept, name, value, words.get(value, value)) for value in values]
        for name, values in selectors.CHOICES.items()
    }
    context = {
        "page": selectors.page(wanted),
        "wanted": wanted,
        "chips": chips,
        "blueprints": selectors.blueprint_rows(),
    }
    return render(request, "library/list.html", context)


@page(Scope.LIBRARY_READ)
def kernel(request: HttpRequest, kernel_id: UUID) -> HttpResponse:
    portrait = library_kernel.portrait(kernel_id)
    if portrait is None:
        raise Http404
    may_audit = viewer(request).has_scope(Scope.AUDIT_READ)
    context = {
        "portrait": portrait,
        "kernel": portrait.kernel,
        "may_audit": may_audit,
        "history": library_kernel.history(portrait.kernel) if may_audit else [],
        "is_downloadable": portrait.kernel.state in DOWNLOADABLE and bool(portrait.bytes.places),
    }
    return render(request, "library/kernel.html", context)
