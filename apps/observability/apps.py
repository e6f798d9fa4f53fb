from django.apps import AppConfig


class ObservabilityConfig(AppConfig):
    name = "apps.observability"

    def ready(self) -> None:
        from apps.observability.collectors import registered, reporter  # noqa: F401 - collectors, workers' signals
