"""How the account commands answer: one JSON object for programs, sentences for people, refusals without a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from apps.accounts.models import User
from apps.core.errors import ServiceError


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what a service refuses into the command's error, with the field in front.

    Raises:
        CommandError: the enclosed code raised a ServiceError or a ValidationError.
    """
    try:
        yield
    except ValidationError as error:
        fields = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
        raise CommandError("\n".join(_line(field, text) for field, texts in fields.items() for text in texts)) from None
    except ServiceError as error:
        pointer = error.errors[0].pointer.lstrip("/") if error.errors else ""
        raise CommandError(_line(pointer, error.detail)) from None


def password_from_stdin() -> str:
    """Arguments are visible to every process of the machine; standard input is not."""
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise CommandError("standard input holds no password")
    return password


def _line(field: str, text: str) -> str:
    return f"{field}: {text}" if field and field != "__all__" else text


def user_named(username: str) -> User:
    """Raises CommandError, naming those who exist."""
    user = User.objects.filter(username=username).first()
    if user is None:
        names = ", ".join(User.objects.order_by("username").values_list("username", flat=True)[:10])
        raise CommandError(f"there is no user {username!r}; users: {names or 'none yet (manage.py bootstrap)'}")
    return user
