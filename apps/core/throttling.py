"""Request limits, counted in Redis with one round trip of at most 50 ms.

When Redis is silent, reading and writing go on uncounted (a limit is not worth an outage) and a metric says so; a login
is refused, because guessing passwords without a limit is.
"""

import time
from dataclasses import dataclass
from typing import Any

from django_redis import get_redis_connection
from prometheus_client import Counter
from redis.exceptions import RedisError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import BaseThrottle

from apps.core.errors import Unavailable

UNCOUNTED = Counter("esper_throttle_uncounted", "Requests admitted without counting: Redis was silent.", ["rate"])
PERIODS = {"s": 1, "sec": 1, "min": 60, "hour": 3600, "day": 86_400}
REST_SECONDS = 5.0
"""After a silence, Redis is not asked again for this long: a frozen one must not cost every request 50 ms."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``limit`` requests in ``period`` seconds."""

    limit: int
    period: int

    @classmethod
    def named(cls, name: str) -> "Rate | None":
        """The rate in the settings; None there switches the limit off."""
        text = api_settings.DEFAULT_THROTTLE_RATES.get(name)
        if text is None:
            return None
        limit, _, period = str(text).partition("/")
        return cls(int(limit), PERIODS[period])


class WindowThrottle(BaseThrottle):
    """A sliding window over two fixed ones: the previous window counts by the share of it that is still in sight."""

    name = ""
    methods: frozenset[str] = frozenset()
    _silent_until = 0.0

    def allow_request(self, request: Request, view: Any) -> bool:
        return request.method not in self.methods or self.admit(self.identity(request))

    def identity(self, request: Request) -> str:
        """Who is counted: the user, or the address of somebody unknown."""
        return str(request.user.pk) if request.user.is_authenticated else f"address:{self.get_ident(request)}"

    def admit(self, identity: str) -> bool:
        rate = Rate.named(self.name)
        if rate is None:
            return True
        try:
            used = self._count(rate, identity)
        except (RedisError, OSError):
            WindowThrottle._silent_until = time.monotonic() + REST_SECONDS
            return self.when_silent()
        return used <= rate.limit

    def when_silent(self) -> bool:
        UNCOUNTED.labels(self.name).inc()
        return True

    def wait(self) -> float | None:
        rate = Rate.named(self.name)
        return rate.period - time.time() % rate.period if rate else None

    def _count(self, rate: Rate, identity: str) -> float:
        if time.monotonic() < WindowThrottle._silent_until:
            raise RedisError("silent a moment ago")
        window, elapsed = divmod(time.time(), rate.period)
        current, previous = (f"esper:throttle:{self.name}:{identity}:{int(window) - back}" for back in (0, 1))
        pipeline = get_redis_connection("throttle").pipeline(transaction=False)
        pipeline.incr(current)
        pipeline.expire(current, rate.period * 2)
        pipeline.get(previous)
        count, _, before = pipeline.execute()
        return float(count) + float(before or 0) * (1 - elapsed / rate.period)


class ReadThrottle(WindowThrottle):
    name = "read"
    methods = frozenset(SAFE_METHODS)


class WriteThrottle(WindowThrottle):
    name = "write"
    methods = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class LoginThrottle(WindowThrottle):
    """For whatever checks a password: ``LoginThrottle().admit_login(address, username)``, before it is checked.

    A name may be tried a few times from one address, and an address may try many names only slowly.

    Raises:
        Unavailable: Redis is silent.
    """

    name = "login"
    methods = frozenset({"POST"})

    def when_silent(self) -> bool:
        raise Unavailable("logins cannot be counted now, so none is taken; try again in a few seconds")

    def admit_login(self, address: str, username: str) -> bool:
        return AddressThrottle().admit(address) and self.admit(f"{address} {username[:150]}")


class AddressThrottle(LoginThrottle):
    """All logins from one address, whatever the name: against one password tried on many names."""

    name = "login_address"
