"""Sessions that begin, end or are refused are events, whichever page or endpoint the login came through."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.core.cache import caches
from django.dispatch import receiver
from django.http import HttpRequest
from django_redis.exceptions import ConnectionInterrupted
from redis.exceptions import RedisError

from apps.accounts import services
from apps.accounts.models import User
from apps.core.actors import Actor, ActorKind, actor_of
from apps.core.signals import access_refused


@receiver(user_logged_in)
def on_login(sender: Any, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    services.record_login(user=user, actor=_actor(user, request))


@receiver(user_logged_out)
def on_logout(sender: Any, request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    if user is not None:  # a session that had expired has nobody to name
        services.record_logout(user=user, actor=_actor(user, request))


@receiver(user_login_failed)
def on_refusal(sender: Any, credentials: dict[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    username = str(credentials.get(User.USERNAME_FIELD, ""))
    services.record_refused_login(username=username, address=_address(request))


@receiver(access_refused)
def on_access_refused(sender: Any, request: Any, detail: str, **kwargs: Any) -> None:
    """Once a minute for each caller and address: a client that tries in a loop must not fill the trail."""
    user = getattr(request, "user", None)
    if not isinstance(user, User):  # nobody has nothing to be refused by name; the web server's log has the address
        return
    actor = actor_of(request)
    match = getattr(request, "resolver_match", None)
    route = str(match.route) if match is not None else request.path
    try:
        is_first = caches["throttle"].add(f"refused:{user.pk}:{actor.token_id}:{request.method}:{route}", 1, 60)
    except (RedisError, ConnectionInterrupted, OSError):
        is_first = True
    if is_first:
        services.record_refused_access(user=user, method=str(request.method), route=route, reason=detail, actor=actor)


def _actor(user: User, request: HttpRequest | None) -> Actor:
    return Actor(kind=ActorKind.USER, id=user.pk, name=user.get_username(), address=_address(request))


def _address(request: HttpRequest | None) -> str:
    return request.META.get("REMOTE_ADDR", "") if request is not None else ""
