from django.apps import AppConfig


class TrainingConfig(AppConfig):
    name = "apps.training"

    def ready(self) -> None:
        from apps.training import metrics  # noqa: F401 - registers its collectors
