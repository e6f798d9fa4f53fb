"""The mail server, from one URL: what Django's EMAIL settings are made of."""

from typing import Any
from urllib.parse import unquote, urlsplit

from environs import EnvValidationError

SCHEMES: dict[str, tuple[int, bool, bool]] = {
    "smtp": (25, False, False),
    "submission": (587, True, False),
    "smtps": (465, False, True),
}
"""Scheme -> its port (RFC 8314), whether it begins TLS by STARTTLS, whether it begins with TLS."""


def server(url: str) -> dict[str, Any]:
    """``host``, ``port``, ``user``, ``password``, ``starttls``, ``tls``; without a URL, no host.

    Raises:
        EnvValidationError: it is no such URL.
    """
    if not url:
        return {"host": "", "port": 25, "user": "", "password": "", "starttls": False, "tls": False}
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise _invalid(str(error)) from None
    if parts.scheme not in SCHEMES or not host or parts.path.strip("/") or parts.query or port == 0:
        raise _invalid("must be smtp://, submission:// or smtps://, then user:password@host:port as far as needed")
    usual, starttls, tls = SCHEMES[parts.scheme]
    return {
        "host": host,
        "port": port or usual,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "starttls": starttls,
        "tls": tls,
    }


def _invalid(why: str) -> EnvValidationError:
    return EnvValidationError(f'Environment variable "ESPER_EMAIL_URL" invalid: {why}', [why])
