"""The reference page tells what the code does: its example parses, its tables are the registry's."""

import json
import re
from pathlib import Path

import pytest

from apps.blueprints import spec as grammar
from apps.blueprints.ops import OPS

PAGE = (Path(__file__).parents[3] / "docs" / "blueprints.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """The table below a heading: first cell -> the other cells."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): rest for first, *rest in cells}


def test_the_example_is_a_blueprint() -> None:
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example
    assert grammar.parse(json.loads(example.group(1))).operator == "residual"


def test_every_operation_has_its_row() -> None:
    assert list(rows("Operations")) == list(OPS)


@pytest.mark.parametrize("name", OPS)
def test_a_row_names_inputs_and_parameters(name: str) -> None:
    inputs, params, *_ = rows("Operations")[name]
    assert inputs == str(OPS[name].arity)
    for param_name, param in OPS[name].params.items():
        shown = re.search(rf"`{param_name}`(?: \(`?(\w+))?", params)
        assert shown, param_name
        assert shown.group(1) == (None if param.required else str(param.default).lower())


def test_the_limits_are_those_of_the_code() -> None:
    assert {what: int(most.replace(",", "")) for what, (most,) in rows("Limits").items()} == {
        "nodes": grammar.MAX_NODES,
        "nodes on one path": grammar.MAX_DEPTH,
        "symbols": grammar.MAX_SYMBOLS,
        "any size": grammar.MAX_SIZE,
        "parameters": grammar.MAX_PARAMETERS,
    }


def test_both_operators_are_described() -> None:
    section = PAGE.split("\n## Operators\n")[1].split("\n## ")[0]
    assert re.findall(r"- \*\*`(\w+)`\*\*", section) == list(grammar.OPERATORS)
