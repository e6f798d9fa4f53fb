from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "apps.core"

    def ready(self) -> None:
        import esper_site.celery  # noqa: F401 - shared tasks bind to this application
        from apps.core import checks, readiness, task_metrics  # noqa: F401 - registers checks and signals
        from apps.core.registry import registry

        registry.readiness.update(readiness.CHECKS)
