"""Who leaves L1 first. ``POLICIES`` has them by the name in ESPER_CACHE_POLICY."""

from apps.kernels.cache.eviction.base import Entry, Policy
from apps.kernels.cache.eviction.cost_aware import CostAware
from apps.kernels.cache.eviction.lru import Lru
from apps.kernels.cache.eviction.s3fifo import S3Fifo

__all__ = ["POLICIES", "Entry", "Policy"]

_KNOWN: tuple[type[Policy], ...] = (CostAware, S3Fifo, Lru)
POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in _KNOWN}
