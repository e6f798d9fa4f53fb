"""The rules that come with the platform, as data.

Rows are made of them (``services.rules.install_shipped``), which people edit; a change here changes no row.
"""

from apps.observability.rules.shape import ANY_METRIC, Shipped
from apps.observability.rules.shipped_platform import PLATFORM
from apps.observability.rules.shipped_training import TRAINING

__all__ = ["ANY_METRIC", "SHIPPED", "Shipped"]

SHIPPED: dict[str, Shipped] = {rule.key: rule for rule in (*TRAINING, *PLATFORM)}
