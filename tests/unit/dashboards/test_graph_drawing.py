"""Layered drawings: nothing overlaps, edges run downwards and pass beside the boxes, the same every time."""

import re
from graphlib import CycleError
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.dashboards.graph_drawing import Drawing, Edge, Node, layered

NAMES = [f"n{number}" for number in range(12)]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[Node], list[Edge]]:
    """Up to 12 nodes; edges only from earlier to later ones, so that there is no circle."""
    size = draw(st.integers(1, len(NAMES)))
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=20)) if pairs else []
    return [Node(name, name) for name in NAMES[:size]], [Edge(NAMES[a], NAMES[b]) for a, b in chosen]


def tops(drawing: Drawing) -> dict[str, float]:
    return {box.node.id: box.y for box in drawing.boxes}


@given(graphs())
def test_boxes_never_overlap_and_stay_inside(graph: tuple[list[Node], list[Edge]]) -> None:
    drawing = layered(*graph)

    boxes = sorted(drawing.boxes, key=lambda box: (box.y, box.x))
    for one, other in pairwise(boxes):
        assert one.y != other.y or one.x + one.width < other.x
    assert all(box.x >= 0 and box.x + box.width <= drawing.width for box in boxes)
    assert all(box.y >= 0 and box.y + box.height <= drawing.height for box in boxes)


@given(graphs())
def test_every_edge_runs_downwards(graph: tuple[list[Node], list[Edge]]) -> None:
    drawing = layered(*graph)

    at = tops(drawing)
    assert all(at[line.edge.source] < at[line.edge.target] for line in drawing.lines)


@given(graphs())
def test_the_same_graph_is_drawn_the_same(graph: tuple[list[Node], list[Edge]]) -> None:
    assert layered(*graph) == layered(*graph)


def test_a_long_edge_passes_beside_the_boxes_of_the_ranks_between() -> None:
    drawing = layered([Node(name, name) for name in "abc"], [Edge("a", "b"), Edge("b", "c"), Edge("a", "c")])

    between = next(box for box in drawing.boxes if box.node.id == "b")
    passing = next(line for line in drawing.lines if line.edge == Edge("a", "c"))
    straight = re.search(rf" ([\d.]+),{between.y} V", passing.path)
    assert straight is not None
    assert not between.x <= float(straight[1]) <= between.x + between.width


def test_a_chain_is_one_straight_column() -> None:
    drawing = layered([Node(name, name) for name in "abc"], [Edge("a", "b"), Edge("b", "c")])

    assert len({box.x for box in drawing.boxes}) == 1


def test_edges_to_nodes_that_are_not_drawn_are_left_out() -> None:
    assert layered([Node("a", "a")], [Edge("a", "gone"), Edge("gone", "a")]).lines == []


def test_a_circle_is_refused() -> None:
    with pytest.raises(CycleError):
        layered([Node("a", "a"), Node("b", "b")], [Edge("a", "b"), Edge("b", "a")])


def test_nothing_is_an_empty_drawing() -> None:
    assert layered([], []).boxes == []
