from apps.observability.api import alerts, analysis, metrics, routing

urlpatterns = [*metrics.urlpatterns, *analysis.urlpatterns, *alerts.urlpatterns, *routing.urlpatterns]
