"""The growth page tells what the engine does: its tables are the code's."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from apps.morphogenesis.catalogue import RECIPES
from apps.morphogenesis.gates import GATES, TRUE
from apps.morphogenesis.settings import GrowthSettings, RunSettings

PAGE = (Path(__file__).parents[3] / "docs" / "growth.md").read_text(encoding="utf-8")
LINES = PAGE.splitlines()


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


SETTINGS = [
    (f"{prefix}{setting.name}", setting)
    for kind, prefix in ((RunSettings, ""), (GrowthSettings, "growth."))
    for setting in dataclasses.fields(kind)
    if setting.name not in ("growth", "topology")
]


@pytest.mark.parametrize(("name", "setting"), SETTINGS, ids=[name for name, _ in SETTINGS])
def test_every_setting_has_its_row_with_its_default_and_meaning(name: str, setting: "dataclasses.Field[Any]") -> None:
    rows = [line for line in LINES if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    assert rows[0].startswith(f"| `{name}` | {shown(setting.default)} |")
    assert rows[0].endswith(f"| {setting.metadata['help']} |")


def test_no_row_is_of_a_setting_that_is_gone() -> None:
    section = PAGE.split("\n## Settings\n")[1]
    named = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert named == [name for name, _ in SETTINGS]


@pytest.mark.parametrize("gate", GATES)
def test_every_condition_of_a_gate_is_in_its_row(gate: str) -> None:
    row = next(line for line in LINES if line.startswith(f"| {gate} |"))
    for condition in GATES[gate]:  # type: ignore[index]
        assert condition.says in row
        assert condition.threshold == TRUE or f"`{condition.threshold}`" in row


@pytest.mark.parametrize(("task", "host"), RECIPES)
def test_every_recipe_has_its_row(task: str, host: str) -> None:
    recipe = RECIPES[task, host]
    assert f"| {task} | {host} | {recipe.width} | {recipe.epochs} | {recipe.learning_rate:g} |" in LINES
