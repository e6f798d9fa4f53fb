from django.apps import AppConfig


class KernelsConfig(AppConfig):
    name = "apps.kernels"

    def ready(self) -> None:
        from apps.kernels import metrics  # noqa: F401 - registers its collectors
        from apps.kernels.cache import metrics as cache_metrics  # noqa: F401 - so does this
