"""The admin site: our own models only, the one login page, and no second history beside the audit trail."""

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.templatetags.static import static
from django.urls import reverse
from unfold.dataclasses import Favicon
from unfold.sites import UnfoldAdminSite

MENU = ("training", "kernels", "blueprints", "checkpoints", "audit", "accounts")
"""Apps in the order in which people ask for them; within an app, models in the order of their registration."""
ACCENT = {
    "50": "#eff6fd",
    "100": "#dbeafa",
    "200": "#bdd9f4",
    "300": "#90bfec",
    "400": "#5b9de0",
    "500": "#2f7dcb",
    "600": "#0a58a8",
    "700": "#094a8d",
    "800": "#0b3e73",
    "900": "#0d345f",
    "950": "#09213e",
}
"""Shades of --accent in static/css/tokens.css: its light value is 600."""
PASSWORDS = "Passwords are set at the terminal: manage.py set_password NAME."
NOT_STAFF = "The admin is for operators, curators and administrators. An administrator can give you another role."


class EsperAdminSite(UnfoldAdminSite):
    """Nothing is written here but through services, with an event each."""

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Take models of ``apps.*``; what other packages register would be written without services and events."""
        models = model_or_iterable if isinstance(model_or_iterable, list | tuple) else [model_or_iterable]
        ours = [model for model in models if model.__module__.startswith("apps.")]
        super().register(ours, admin_class, **options)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """There is one login page, with its limit on attempts; who is logged in and not let in is told why."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied(NOT_STAFF)
        back = request.GET.get(REDIRECT_FIELD_NAME) or reverse("admin:index", current_app=self.name)
        return HttpResponseRedirect(f"{settings.LOGIN_URL}?{urlencode({REDIRECT_FIELD_NAME: back})}")

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        raise PermissionDenied(PASSWORDS)

    def password_change_done(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        raise PermissionDenied(PASSWORDS)

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context = super().each_context(request)
        mine = {"title": "What I did", "link": f"{reverse('admin:audit_auditevent_changelist')}?by=me"}
        context["account_links"] = [mine]  # in the place of "Change password"
        context["colors"] = {**context["colors"], "primary": ACCENT}
        context["site_favicons"] = [Favicon(href=static("favicon.svg"), rel="icon", type="image/svg+xml")]
        return context

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        order = {model: place for place, model in enumerate(self._registry)}
        apps = super().get_app_list(request, app_label)
        for app in apps:
            app["models"].sort(key=lambda entry: order[entry["model"]])
        return sorted(apps, key=lambda app: MENU.index(app["app_label"]) if app["app_label"] in MENU else len(MENU))

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """Models by name. Unfold's own search would keep its results in a cache that holds JSON only."""
        wanted = request.GET.get("s", "").lower()
        results = self._search_apps(self.get_app_list(request), wanted) if wanted else []
        return TemplateResponse(request, "unfold/helpers/search_results.html", {"results": results})
