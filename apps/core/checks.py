"""System checks: what must be right before anything runs, each with its remedy."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

REMEDY = (
    "Run `make serve` (or `manage.py up`), which starts a real PostgreSQL of its own, "
    "or set DATABASE_URL=postgresql://user:password@host:5432/name."
)


@register(Tags.compatibility)
def check_database_engine(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Esper needs PostgreSQL: JSONB containment, SKIP LOCKED, partial indexes, triggers and partitions."""
    engine = settings.DATABASES["default"]["ENGINE"]
    if engine in {"django.db.backends.postgresql", "django_prometheus.db.backends.postgresql"}:
        return []
    return [Error(f"{engine} is not supported: Esper runs on PostgreSQL 15 or newer.", hint=REMEDY, id="esper.E001")]


@register(Tags.caches)
def check_cache_serializer(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Nothing that comes from Redis is ever unpickled."""
    return [
        Error(
            f"Cache {alias!r} would unpickle what Redis holds.",
            hint="Use django_redis' JSONSerializer.",
            id="esper.E002",
        )
        for alias, cache in settings.CACHES.items()
        if "JSON" not in str(cache.get("OPTIONS"))
    ]
