"""Can this installation work? One check for each part; the apps may register more (``core.registry``)."""

import time
from collections.abc import Callable
from threading import Lock

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django_redis import get_redis_connection
from redis.exceptions import RedisError

from apps.core import heartbeats
from apps.core.registry import registry

CACHE_SECONDS = 2.0


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        return "PostgreSQL does not answer"
    return ""


def _redis(alias: str, name: str) -> Callable[[], str]:
    def check() -> str:
        try:
            get_redis_connection(alias).ping()
        except (RedisError, OSError):
            return f"the {name} Redis does not answer"
        return ""

    return check


def _workers() -> str:
    try:
        silent = heartbeats.silent_queues(settings.REQUIRED_QUEUES)
    except (RedisError, OSError):
        return "no sign of life can be read"
    return f"no worker serves {', '.join(silent)}" if silent else ""


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "cache": _redis("default", "cache"),
    "broker": _redis("throttle", "broker"),
    "workers": _workers,
}


class Readiness:
    """What is wrong now, part by part; asked at most once in CACHE_SECONDS, whoever calls."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._until = 0.0
        self._wrong: dict[str, str] = {}

    def wrong(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() >= self._until:
                found = {name: check() for name, check in registry.readiness.items()}
                self._wrong = {name: wrong for name, wrong in found.items() if wrong}
                self._until = time.monotonic() + CACHE_SECONDS
            return self._wrong

    def forget(self) -> None:
        self._until = 0.0


readiness = Readiness()
