from django.apps import AppConfig


class KernelsConfig(AppConfig):
    name = "apps.kernels"

    def ready(self) -> None:
        from apps.kernels import metrics  # noqa: F401 - registers its collectors
