"""What a checkpoint keeps of the library (Urza): how many assets there are, which kernels the run holds, the cache."""

from typing import Any
from uuid import UUID

from django.db.models import Count

from apps.kernels.cache import stats
from apps.kernels.models import Kernel

FORMAT = 1
MAX_KERNELS = 1000


def library_state(run_id: UUID) -> dict[str, Any]:
    """JSON types only: assets by state, the kernels in use by the run, and what this process asked of the cache."""
    states = Kernel.objects.order_by("state").values_list("state").annotate(count=Count("pk"))
    held = Kernel.objects.filter(uses__run_id=run_id, uses__until=None).select_related("blueprint_version")
    counted = stats.process()
    tiers = sorted({tier for tier, _, _ in counted.counts})
    return {
        "format": FORMAT,
        "assets": {str(state): count for state, count in states},
        "kernels": [
            {"name": kernel.name, "digest": kernel.digest, "version": kernel.blueprint_version.number}
            for kernel in held.order_by("name", "pk")[:MAX_KERNELS]
        ],
        "cache": {
            str(tier): {"hits": counted.total("hits", tier), "misses": counted.total("misses", tier)} for tier in tiers
        },
    }
