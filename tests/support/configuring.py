"""Other settings of the kernel cache, for a test."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings


@pytest.fixture
def configure(settings: LazySettings) -> Callable[..., None]:
    """Changes settings of the cache in this process, which then makes its tiers anew."""

    def change(**changes: Any) -> None:
        settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, **changes}

    return change
