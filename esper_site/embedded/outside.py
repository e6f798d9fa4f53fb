"""Servers that are not ours: look whether they answer before anything starts, and say it plainly if they do not."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from esper_site.embedded.errors import StackError

TIMEOUT = 3  # seconds a server


def check(urls: Mapping[str, str]) -> None:
    """Try each given server once.

    Args:
        urls: `DATABASE_URL`, `REDIS_URL` and `BROKER_URL`, as far as they are given.

    Raises:
        StackError: a URL makes no sense, or nothing useful answers there.
    """
    for name, url in urls.items():
        if name == "DATABASE_URL":
            _check_postgres(name, url)
        else:
            _check_redis(name, url)


def _check_postgres(name: str, url: str) -> None:
    import psycopg

    if urlsplit(url).scheme not in ("postgres", "postgresql"):
        raise StackError(f"{name} has to begin with postgresql:// (Esper needs PostgreSQL 15 or later).")
    try:
        psycopg.connect(url, connect_timeout=TIMEOUT).close()
    except psycopg.Error as error:
        raise _unreachable(name, url, "PostgreSQL", str(error)) from None


def _check_redis(name: str, url: str) -> None:
    import redis

    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=TIMEOUT, socket_timeout=TIMEOUT)
        client.ping()
        client.close()
    except ValueError:
        raise StackError(f"{name} has to begin with redis:// or rediss://.") from None
    except redis.RedisError as error:
        raise _unreachable(name, url, "Valkey", str(error)) from None


def _unreachable(name: str, url: str, server: str, reason: str) -> StackError:
    parts = urlsplit(url)
    place = f"{parts.hostname or 'localhost'}:{parts.port}" if parts.port else parts.hostname or "localhost"
    first_line = next(iter(reason.strip().splitlines()), "no answer")
    return StackError(
        f"{name}: {server} at {place} does not answer: {first_line}\n"
        f"Start it, correct {name}, or unset it to use the embedded server."
    )
