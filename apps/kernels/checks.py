"""System checks: the settings of the kernel cache."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from apps.kernels.cache.config import CacheConfig, problems


@register()
def cache_settings(**kwargs: Any) -> list[CheckMessage]:
    found = problems(CacheConfig(**settings.KERNEL_CACHE))
    return [Error(problem, id=f"kernels.E{number:03}") for number, problem in enumerate(found, start=1)]
