from django.apps import AppConfig


class BlueprintsConfig(AppConfig):
    name = "apps.blueprints"

    def ready(self) -> None:
        from apps.blueprints import metrics  # noqa: F401 - registers its collectors
