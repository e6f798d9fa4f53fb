"""The settings of the kernel cache, from ``settings.KERNEL_CACHE``; docs/cache.md explains each."""

from dataclasses import dataclass, fields
from functools import lru_cache
from math import inf
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

POLICIES = ("cost-aware", "s3-fifo", "lru")
WRITES = ("through", "back")
POSITIVE = (
    *("l1_bytes", "l2_ttl", "l2_timeout_ms", "l2_largest", "half_life", "hot_reads", "warm_bytes_per_second"),
    *("absent_ttl", "lease", "binding_ttl"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Times in seconds unless the name says otherwise, sizes in bytes."""

    l1_bytes: int
    """The budget of each process. A kernel of more than an eighth of it stays out of L1."""
    policy: str
    """Who leaves L1 first: one of POLICIES."""
    l2_url: str
    """The Redis or Valkey of L2 (``allkeys-lru``); empty: there is no L2."""
    l2_cluster: bool
    """``l2_url`` is a node of a Redis Cluster."""
    l2_ttl: float
    l2_timeout_ms: float
    """How long one answer of L2 is waited for, plus ``l2_ms_per_mib`` for what is sent."""
    l2_ms_per_mib: float
    l2_largest: int
    """Bytes of the largest kernel that L2 keeps."""
    write: str
    """"through": the writer fills L2 after its commit; "back": a worker does."""
    copies: bool
    """L4 gets a copy of every kernel: what is corrupt in L3 is healed from it."""
    half_life: float
    """In which the weight of a read halves."""
    hot_reads: float
    """Decayed reads from which a kernel is hot; below half of it, it is warm again."""
    cold_after_days: float
    """Days without a read after which a warm kernel may go to L4 alone; 0: never by itself."""
    warm_share: float
    """The share of a tier that warming fills."""
    warm_bytes_per_second: int
    absent_ttl: float
    """How long "there are no such bytes" is remembered."""
    lease: float
    """How long others wait for the process that loads a segment before one of them loads it."""
    binding_ttl: float
    """How long a process trusts what it knows of a kernel if no invalidation comes."""


@lru_cache(maxsize=1)
def config() -> CacheConfig:
    """The validated settings.

    Raises:
        ImproperlyConfigured: one is wrong; names the variable.
    """
    given: dict[str, Any] = settings.KERNEL_CACHE
    made = CacheConfig(**{field.name: given[field.name] for field in fields(CacheConfig)})
    for problem in problems(made):
        raise ImproperlyConfigured(problem)
    return made


def problems(found: CacheConfig) -> list[str]:
    """What is wrong, each naming the environment variable to correct."""
    # Written so that "nan", which every comparison refuses, is wrong too.
    wrong = [f"{variable(name)} must be a number above 0" for name in POSITIVE if not 0 < getattr(found, name) < inf]
    wrong += [
        f"{variable(name)} must be a number, not below 0"
        for name in ("l2_ms_per_mib", "cold_after_days")
        if not 0 <= getattr(found, name) < inf
    ]
    if not 0 < found.warm_share <= 1:
        wrong.append(f"{variable('warm_share')} must be above 0 and at most 1")
    if found.policy not in POLICIES:
        wrong.append(f"{variable('policy')} must be one of {', '.join(POLICIES)}")
    if found.write not in WRITES:
        wrong.append(f"{variable('write')} must be one of {', '.join(WRITES)}")
    return [*wrong, *_url_problems(found)]


def _url_problems(found: CacheConfig) -> list[str]:
    if not found.l2_url:
        return []
    name = variable("l2_url")
    try:
        parts = urlsplit(found.l2_url)
    except ValueError:  # which may repeat the password
        return [f"{name} is no URL"]
    if parts.scheme not in {"redis", "rediss", "unix"}:
        return [f"{name} must begin with redis://, rediss:// or unix://"]
    try:
        parts.port  # noqa: B018 - it is read to be checked
    except ValueError:
        return [f"{name} has a port that is no number up to 65535"]
    if found.l2_cluster and parts.path not in {"", "/", "/0"}:
        return [f"{name} must name database 0: a cluster has no other"]
    return []


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"ESPER_CACHE_{name.upper()}"


@receiver(setting_changed)
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "KERNEL_CACHE":
        config.cache_clear()
