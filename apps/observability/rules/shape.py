"""A rule that comes with the platform, and what all of them share."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from apps.observability.models import Severity

MINUTE, HOUR, DAY = 60, 3600, 86_400
ANY_METRIC = "*"
"""Of rules about anomalies: every series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """One rule; the fields are those of ``AlertRule``, and ``key`` is what its row is known by."""

    key: str
    name: str
    description: str
    kind: str
    metric: str
    parameters: Mapping[str, Any]
    summary: str
    remedy: str
    severity: str = Severity.WARNING
    matchers: tuple[Mapping[str, str], ...] = ()
    for_seconds: int = 0
    keep_firing_seconds: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    inhibited_by: tuple[Mapping[str, Any], ...] = ()
    enabled: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """What ``services.rules.create_rule`` takes."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self) if each.name != "key"}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value


def where(label: str, value: str) -> dict[str, str]:
    return {"label": label, "op": "=", "value": value}
