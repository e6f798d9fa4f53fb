"""The bench of metrics, small: both layouts hold the same, each row is measured, a call is counted."""

import tomllib
from typing import Any

import pytest

from benchmarks import metrics_cost, metrics_layouts
from benchmarks.targets import TARGETS
from tests.support.stack import Servers


@pytest.fixture
def layouts(committed_db: str, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(metrics_layouts, "DAYS", 8)
    monkeypatch.setattr(metrics_layouts, "STEP", 600)
    url = servers.environment(committed_db)["DATABASE_OWNER_URL"]
    return metrics_layouts.measure(url, others=1, rounds=1, say=lambda text: None)


def test_both_layouts_show_the_same_and_every_row_is_measured(layouts: dict[str, Any]) -> None:
    cost = {"percent": {"collect": [0.1]}, "grown_mib": 1.0}

    found = metrics_cost.measured(metrics_cost.record_call(1), cost) | metrics_layouts.measured(layouts)

    targets = tomllib.loads(TARGETS.read_text(encoding="utf-8"))["target"]
    assert set(found) == {target["name"] for target in targets if target["area"] == "metrics"}
    assert all(measurement.value > 0 for measurement in found.values())
    assert layouts["samples"] == 9 * 8 * 144
