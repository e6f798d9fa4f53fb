"""Where webhooks may go: the guard against requests that reach into the own network (SSRF, OWASP A10:2021).

A URL is looked up once. Each address that its name has must be public, or in ``ESPER_WEBHOOK_ALLOWED_NETWORKS``; the
connection is made to that very address, so that a second answer of the name server (DNS rebinding) changes nothing.
Addresses that carry an IPv4 address inside (mapped, 6to4, NAT64, Teredo) are judged by what they carry, too.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str, int], Sequence[str]]

PORTS = {"http": 80, "https": 443}
VISIBLE = re.compile(r"[\x21-\x7e]{1,2000}")
HOST = re.compile(r"[A-Za-z0-9._:%-]{1,253}")
NAT64 = ip_network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address. The local prefix (RFC 8215) is reserved as a whole."""
UNICAST = ip_network("2000::/3")
"""All of IPv6 that is given out (RFC 4291, section 2.4). The old site-local fec0::/10 is not in it."""
COMPATIBLE = ip_network("::/96")
"""RFC 4291, section 2.5.5.1: given up long ago, and still understood by some."""
MOST_ADDRESSES = 16


class Refused(ValueError):
    """This URL is not for webhooks, whenever it is tried."""


class Unreachable(Exception):
    """There is no address for this name now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A checked URL: ``addresses`` are those that may be connected to, ``host`` is what TLS and Host name."""

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[str, ...]


def networks(given: Iterable[str]) -> tuple[Network, ...]:
    """Networks in CIDR notation, from the settings.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ip_network(text.strip()) for text in given)


def parse(url: str) -> SplitResult:
    """The parts of a URL that has the form of a webhook's; nothing is looked up.

    Raises:
        Refused: it is not http or https, names no host, or holds a user, a password or a blank.
    """
    if not VISIBLE.fullmatch(url) or "\\" in url:
        raise Refused("must be a URL of visible ASCII characters; write an international name in its xn-- form")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"is not a URL: {error}") from None
    if parts.scheme not in PORTS:
        raise Refused("must begin with https:// or http://")
    if "@" in parts.netloc:
        raise Refused("must not hold a user or a password: the signature says who sends")
    if not parts.hostname or not HOST.fullmatch(parts.hostname) or port == 0:
        raise Refused("must name a host, and a port above 0 if any")
    return parts


def origin(url: str) -> str:
    """Scheme, host and port of the URL of a webhook (RFC 6454): what follows may be a secret of its receiver."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def check(
    url: str, *, allowed: Sequence[Network] = (), resolver: Resolver | None = None, seconds: float = 5.0
) -> Target:
    """The URL with the addresses that its name has now, each of them permitted.

    Raises:
        Refused: the URL has the wrong form, or one of its addresses is not public. Unreachable: it has no address.
    """
    parts = parse(url)
    host, port = str(parts.hostname), parts.port or PORTS[parts.scheme]
    try:
        found = (resolver or _looked_up(seconds))(host, port)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host} has no address: {error}") from None
    addresses = tuple(dict.fromkeys(found))[:MOST_ADDRESSES]
    if not addresses:
        raise Unreachable(f"{host} has no address")
    for text in addresses:
        if fault := fault_of(text, allowed):
            raise Refused(f"{host} leads to {text}, which is {fault}: {REMEDY}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(scheme=parts.scheme, host=host, port=port, path=path, addresses=addresses)


REMEDY = "if it is meant, ESPER_WEBHOOK_ALLOWED_NETWORKS must name its network"


def fault_of(text: str, allowed: Sequence[Network] = ()) -> str:
    """Why no webhook may go to this address; empty: it may."""
    address = ip_address(text)
    carried = list(_carried(address))
    if any(one in network for one in (address, *carried) for network in allowed):
        return ""
    return next((fault for one in carried or [address] if (fault := _fault(one))), "")


def _fault(address: Address) -> str:
    kinds: tuple[tuple[bool, str], ...] = (
        (address.is_unspecified, "no address of anybody"),
        (address.is_loopback, "this machine"),
        (address.is_link_local, "link-local"),
        (address.is_multicast, "multicast"),
        (address.is_private, "private"),
        (address.is_reserved or not address.is_global, "reserved"),
        (isinstance(address, IPv6Address) and address not in UNICAST, "reserved"),
    )
    return next((kind for holds, kind in kinds if holds), "")


def _carried(address: Address) -> Iterator[Address]:
    """The IPv4 addresses inside an IPv6 address that leads to them."""
    if isinstance(address, IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif address in NAT64 or (address in COMPATIBLE and int(address) > 0xFFFF):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _looked_up(seconds: float) -> Resolver:
    """The system's resolver, which knows no time limit: it is asked in a thread that nobody waits for longer."""

    def resolve(host: str, port: int) -> Sequence[str]:
        found: list[Any] = []

        def ask() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                found.append(error)

        thread = threading.Thread(target=ask, name="esper-webhook-lookup", daemon=True)
        thread.start()
        thread.join(seconds)
        if not found:
            raise TimeoutError(f"no answer within {seconds:.0f} s")
        if isinstance(found[0], Exception):
            raise found[0]
        return [str(entry[4][0]) for entry in found[0]]

    return resolve
