from apps.observability.api import alerts, analysis, anomalies, metrics, routing

urlpatterns = [
    *metrics.urlpatterns,
    *analysis.urlpatterns,
    *anomalies.urlpatterns,
    *alerts.urlpatterns,
    *routing.urlpatterns,
]
