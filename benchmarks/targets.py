"""The figures that the project is held to: ``targets.toml`` as rows, each printed whether reached or not."""

import operator
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGETS = Path(__file__).with_name("targets.toml")
COMPARISONS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured figure: the median of ``n`` repetitions, and their spread (interquartile range, the row's unit)."""

    value: float
    n: int
    spread: float


def rows(area: str, measured: Mapping[str, Measurement]) -> list[dict[str, Any]]:
    """Every target row of ``area``, in the file's order; value null where nothing was measured."""
    targets = tomllib.loads(TARGETS.read_text(encoding="utf-8"))["target"]
    return [_row(target, measured.get(target["name"])) for target in targets if target["area"] == area]


def _row(target: Mapping[str, Any], found: Measurement | None) -> dict[str, Any]:
    return {
        "name": target["name"],
        "value": found.value if found else None,
        "op": target["op"],
        "target": target["target"],
        "unit": target["unit"],
        "reached": found is not None and COMPARISONS[target["op"]](found.value, target["target"]),
        "n": found.n if found else 0,
        "spread": found.spread if found else None,
    }
