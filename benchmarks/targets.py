"""The figures that the project is held to: ``targets.toml`` as rows, each printed whether reached or not."""

import operator
import statistics
import tomllib
from collections.abc import Mapping, Sequence
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

    @classmethod
    def of(cls, values: Sequence[float]) -> "Measurement":
        return cls(value=statistics.median(values), n=len(values), spread=spread(values))


def spread(values: Sequence[float]) -> float:
    """The interquartile range."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


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


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """``rows`` for people: each, reached or not."""
    return [_line(row) for row in rows]


def _line(row: Mapping[str, Any]) -> str:
    value = "not measured" if row["value"] is None else f"{row['value']:,.2f}"
    verdict = "reached" if row["reached"] else "SHORT"
    held_to = f"{row['op']} {row['target']:,} {row['unit']}; n {row['n']}, spread {row['spread'] or 0:,.2f}"
    return f"  {verdict:<8}{row['name']:<40}{value:>14}  ({held_to})"
