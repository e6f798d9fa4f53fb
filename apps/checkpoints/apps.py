from django.apps import AppConfig


class CheckpointsConfig(AppConfig):
    name = "apps.checkpoints"

    def ready(self) -> None:
        from apps.checkpoints import metrics  # noqa: F401 - registers its collectors
