"""The tiers of this process, made once from the settings."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver

from apps.kernels.cache.archive import ArchiveTier
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.chunks import DatabaseTier
from apps.kernels.cache.config import config
from apps.kernels.cache.memory import MemoryTier
from apps.kernels.cache.remote import RedisTier


@dataclass(frozen=True, slots=True)
class Tiers:
    memory: MemoryTier
    redis: RedisTier | None
    """None: ESPER_CACHE_L2_URL is empty."""
    database: DatabaseTier
    storage: ArchiveTier

    @property
    def breakers(self) -> dict[str, Breaker]:
        found = {"l3": self.database.breaker, "l4": self.storage.breaker}
        return found if self.redis is None else {"l2": self.redis.breaker, **found}


@lru_cache(maxsize=1)
def tiers() -> Tiers:
    """Raises ImproperlyConfigured."""
    found = config()
    return Tiers(
        memory=MemoryTier(found.l1_bytes, found.policy),
        redis=RedisTier(Breaker("l2")) if found.l2_url else None,
        database=DatabaseTier(Breaker("l3")),
        storage=ArchiveTier(Breaker("l4")),
    )


@receiver(setting_changed)
def _make_anew(*, setting: str, **kwargs: Any) -> None:
    if setting in {"KERNEL_CACHE", "STORAGES"}:
        tiers.cache_clear()
