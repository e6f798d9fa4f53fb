"""Every address of the site: the API, the probes, the admin and the pages."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from apps.core import health
from apps.core.openapi import SchemaView
from apps.core.operations import OperationView

handler400 = "apps.core.problems.bad_request"
handler403 = "apps.core.problems.permission_denied"
handler404 = "apps.core.problems.page_not_found"
handler500 = "apps.core.problems.server_error"

API: list[URLPattern | URLResolver] = [
    path("schema", SchemaView.as_view()),
    path("operations/<uuid:id>", OperationView.as_view()),
    path("", include("apps.accounts.api.urls")),
    path("", include("apps.audit.api.urls")),
    path("", include("apps.blueprints.api.urls")),
    path("", include("apps.kernels.api.urls")),
    path("", include("apps.checkpoints.api.urls")),
    path("", include("apps.observability.api.urls")),
    path("", include("apps.training.api.urls")),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", include(API)),
    path("healthz", health.healthz),
    path("readyz", health.ReadyView.as_view()),
    path("metrics", health.MetricsView.as_view()),
    path("admin/", admin.site.urls),
    path("", include("apps.dashboards.urls")),
]
