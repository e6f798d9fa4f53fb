"""Where apps announce what they offer, so that lower layers need not import upper ones. Filled in ``ready()``."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.core.operations import OperationSource


@dataclass
class Registry:
    """Metric collectors, readiness checks and sources of long work, by name."""

    collectors: dict[str, Callable[[], Iterable[Any]]] = field(default_factory=dict)
    readiness: dict[str, Callable[[], str]] = field(default_factory=dict)
    """Each returns an empty string when the part answers, else what is wrong."""
    operations: dict[str, "OperationSource"] = field(default_factory=dict)


registry = Registry()
