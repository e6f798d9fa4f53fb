"""A spec as a drawing: every node in its box, symbols at their sizes, marks for what became of a node."""

from typing import Any

import pytest

from apps.blueprints.starter import starter_library
from apps.dashboards.spec_drawing import MAX_NOTE, spec_drawing
from tests.support.factories import residual_spec

NAMES = sorted(starter_library())


def texts(spec: dict[str, Any], **options: Any) -> dict[str, tuple[str, str]]:
    drawing = spec_drawing(spec, **options)
    assert drawing is not None
    return {box.node.id: (box.node.text, box.node.note) for box in drawing.boxes}


@pytest.mark.parametrize("name", NAMES)
def test_every_curated_design_is_drawn_whole(name: str) -> None:
    spec = starter_library()[name].spec
    drawing = spec_drawing(spec)

    assert drawing is not None
    assert {box.node.id for box in drawing.boxes} == {"input", "output", *(node["id"] for node in spec["nodes"])}
    assert len(drawing.lines) == 1 + sum(len(node["inputs"]) for node in spec["nodes"])
    assert all(len(box.node.text) <= MAX_NOTE for box in drawing.boxes)


def test_symbols_are_shown_as_they_are_bound() -> None:
    assert texts(residual_spec(), bindings={"H": 99})["fc1"] == ("linear out features 99", "fc1")


def test_symbols_that_are_not_bound_have_the_sizes_of_the_spec() -> None:
    assert texts(residual_spec(hidden=16))["fc1"] == ("linear out features 16", "fc1")


def test_a_mark_stands_before_the_name_of_its_node() -> None:
    assert texts(residual_spec(), notes={"act": "+ added"})["act"] == ("relu", "+ added: act")


def test_what_was_cut_is_said_whole() -> None:
    drawing = spec_drawing(residual_spec())

    assert drawing is not None
    assert "fc2: linear out features 8, init zeros" in {box.node.hint for box in drawing.boxes}


def test_a_spec_that_goes_in_a_circle_is_not_drawn() -> None:
    spec = residual_spec()
    spec["nodes"][0]["inputs"] = ["fc2"]

    assert spec_drawing(spec) is None
