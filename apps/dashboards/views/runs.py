"""The list of runs, and the form that starts one."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from apps.accounts.roles import Scope
from apps.core.actors import actor_of
from apps.core.errors import ServiceError
from apps.dashboards.access import is_fragment, page, viewer
from apps.dashboards.chips import run_chips
from apps.dashboards.forms import StartRunForm
from apps.dashboards.selectors import runs as selectors
from apps.morphogenesis.catalogue import HOSTS, RECIPES, TASKS
from apps.training import services
from apps.training.models import TrainingRun


@page(Scope.RUNS_READ)
def listing(request: HttpRequest) -> HttpResponse:
    wanted = selectors.RunFilter.parse(request.GET)
    found = selectors.page(wanted, viewer_id=viewer(request).pk)
    context = {
        "page": found,
        "wanted": wanted,
        "chips": run_chips(wanted, request.GET),
        "may_start": viewer(request).has_scope(Scope.RUNS_WRITE),
    }
    return render(request, "runs/list.html", context)


@page(Scope.RUNS_WRITE, methods=("GET", "HEAD", "POST"))
def new(request: HttpRequest) -> HttpResponse:
    """A page of its own, or (asked for by htmx) the dialog's content."""
    if request.method != "POST":
        known = {name: request.GET[name] for name in StartRunForm.base_fields if name in request.GET}
        initial = {name: field.initial for name, field in StartRunForm.base_fields.items()} | known
        return _form(request, StartRunForm(initial=initial))
    form = StartRunForm(request.POST)
    run = _start(request, form) if form.is_valid() else None
    if run is None:
        return _form(request, form, status=422)
    target = reverse("dashboards:run", args=[run.pk])
    if is_fragment(request):
        return HttpResponseClientRedirect(target)
    return HttpResponse(status=303, headers={"Location": target})


def _start(request: HttpRequest, form: StartRunForm) -> TrainingRun | None:
    try:
        return services.create_run(
            settings=form.settings(),
            name=form.cleaned_data["name"],
            library_source=form.library_source(),
            wants_control=form.cleaned_data["control"],
            actor=actor_of(request),
        )
    except ServiceError as error:
        form.refuse(error)
        return None


def _form(request: HttpRequest, form: StartRunForm, *, status: int = 200) -> HttpResponse:
    context: dict[str, Any] = {
        "form": form,
        "tasks": TASKS.values(),
        "hosts": HOSTS.values(),
        "recipes": [{"task": task, "host": host, "recipe": recipe} for (task, host), recipe in RECIPES.items()],
    }
    template = "runs/_new.html" if is_fragment(request) else "runs/new.html"
    return render(request, template, context, status=status)
