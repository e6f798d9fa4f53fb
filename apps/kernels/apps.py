from django.apps import AppConfig


class KernelsConfig(AppConfig):
    name = "apps.kernels"

    def ready(self) -> None:
        from apps.kernels import checks, metrics, operations  # noqa: F401 - they register themselves
        from apps.kernels.cache import metrics as cache_metrics  # noqa: F401 - so does this
        from apps.kernels.cache import outbox, process  # noqa: F401 - they listen to signals
