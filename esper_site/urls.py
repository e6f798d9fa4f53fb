"""Every address of the site: the API, the probes, the admin and the pages."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from apps.core import health

handler400 = "apps.core.problems.bad_request"
handler403 = "apps.core.problems.permission_denied"
handler404 = "apps.core.problems.page_not_found"
handler500 = "apps.core.problems.server_error"

urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", health.healthz),
    path("readyz", health.ReadyView.as_view()),
    path("metrics", health.MetricsView.as_view()),
    path("admin/", admin.site.urls),
    path("", include("apps.dashboards.urls")),
]
