"""Putting the bytes of a blob into L2, segment by segment, from the tiers that hold the truth."""

from apps.core.errors import NotFound
from apps.kernels.cache import stats
from apps.kernels.cache.config import config
from apps.kernels.cache.segments import TierName, segment_count
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import KernelBlob


def fill_anew(digest: str) -> None:
    """Let L2 forget what it knew, also that there were no such bytes, and put them there. Raises as ``fill``."""
    redis = tiers().redis
    if redis is not None:
        redis.drop(digest)
        fill(digest)


def fill(digest: str) -> int:
    """Put every segment into L2; how many bytes went there. None that L2 would not keep, none that are not in L3.

    Each is put under a lease: one that is to be forgotten meanwhile does not come back.

    Raises:
        TierAway, CorruptKernel. NotFound: the bytes left L3 meanwhile.
    """
    found = tiers()
    size = KernelBlob.objects.filter(pk=digest, in_database=True, freed_at=None).values_list("size", flat=True).first()
    if found.redis is None or size is None or size > config().l2_largest:
        return 0
    written = 0
    for index in range(segment_count(size)):
        lease = found.redis.acquire(digest, index)
        if lease is None:  # another process is loading it
            continue
        segment = found.database.get(digest, index)
        if segment is None:
            raise NotFound(f"the bytes {digest} left the database meanwhile")
        if not found.redis.put(digest, index, segment, lease=lease):
            stats.count(TierName.L2, "refused", size=size)
            break
        stats.count(TierName.L2, "fills", size=size)
        written += len(segment.data)
    return written
