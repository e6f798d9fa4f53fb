from django.apps import AppConfig


class ObservabilityConfig(AppConfig):
    name = "apps.observability"

    def ready(self) -> None:
        from apps.observability import checks  # noqa: F401 - they register themselves
        from apps.observability.collectors import registered, reporter  # noqa: F401 - collectors, workers' signals
