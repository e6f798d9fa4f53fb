from django.apps import AppConfig


class CheckpointsConfig(AppConfig):
    name = "apps.checkpoints"

    def ready(self) -> None:
        from apps.checkpoints import metrics, operations  # noqa: F401 - they register themselves
