from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "apps.core"

    def ready(self) -> None:
        import esper_site.celery  # noqa: F401 - shared tasks bind to this application
        from apps.core import checks, readiness  # noqa: F401 - registers the system checks
        from apps.core.registry import registry

        registry.readiness.update(readiness.CHECKS)
